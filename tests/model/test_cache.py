import pytest
import torch

from tinygpt import generate
from tinygpt.decoding import Step
from tinygpt.model import KVCache
from tinygpt.text import CharTokenizer

from ..tools import LLAMA, MODES, SHAPE, close, model_of, random_ids

CACHED = [mode for mode in MODES if mode != "forced"]  # which goes by the place in the batch


@pytest.mark.parametrize("shape", [SHAPE, LLAMA], ids=["learned", "rope"])
@pytest.mark.parametrize("mode", CACHED)
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(mode, shape):
    model, idx = model_of(shape, **MODES[mode]), random_ids()
    cache = KVCache(model.config, batch_size=3)
    with torch.inference_mode():
        pieces = [model(part, cache=cache).logits for part in idx.split([7, 1, 1, 5, 1, 9], dim=1)]
        close(torch.cat(pieces, dim=1), expected := model(idx).logits)
        cache.restart()
        model(idx[:, :20], cache=cache)
        step = Step(model, cache)  # how `generate` reads one token
        for t in range(20, 24):
            close(step(idx[:, t]), expected[:, t])


@pytest.mark.parametrize("shape", [SHAPE, LLAMA], ids=["learned", "rope"])
@pytest.mark.parametrize("mode", ["top-1", "capacity, top-2", "deepseek", "shared"])
def test_writing_with_a_cache_equals_recomputation(mode, shape):
    model = model_of(shape, **MODES[mode])
    model.lm_head.weight.data.mul_(2)
    model.tokenizer = CharTokenizer("".join(chr(48 + i) for i in range(65)))
    prompts = ["0", "ABCDE", "hello"]  # of unlike lengths: padded on the left
    fast, slow = (generate(model, prompts, 20, seed=3, use_cache=c) for c in (True, False))
    assert fast == slow
    assert fast[2] == generate(model, prompts, 20, seed=3)[2]
