import pytest
import torch

from tinygpt import generate_greedy
from tinygpt.text import CharTokenizer

from ..parity import as_gpt2, as_llama
from ..tools import VARIANTS, ids, shaken


@pytest.mark.parametrize(("variant", "convert"), [("gpt2", as_gpt2), ("llama", as_llama)])
def test_equals_transformers(variant, convert):
    config = VARIANTS[variant]
    model, idx = shaken(config), ids(config)
    theirs = convert(model)
    with torch.inference_mode():
        torch.testing.assert_close(model(idx).logits, theirs(idx).logits, atol=1e-5, rtol=1e-5)
        loss = theirs(idx, labels=idx).loss
    torch.testing.assert_close(model(idx[:, :-1], idx[:, 1:]).lm_loss, loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("variant", "convert"), [("gpt2", as_gpt2), ("llama", as_llama)])
def test_greedy_continuation_equals_transformers(variant, convert):
    config = VARIANTS[variant]
    model = shaken(config)
    alphabet = [chr(ord("0") + i) for i in range(config.vocab_size)]
    tokenizer = CharTokenizer(alphabet)
    start = ids(config, batch=1, length=6)
    theirs = convert(model)
    theirs.generation_config.eos_token_id = None  # ours has no end symbol
    expected = theirs.generate(start, do_sample=False, max_new_tokens=18, pad_token_id=0)
    ours = generate_greedy(model, tokenizer.decode(start[0]), 18, tokenizer=tokenizer)
    assert ours == tokenizer.decode(expected[0])
