from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config

import tinygpt
from tinygpt import generate, generate_batch, stream
from tinygpt.decoding import Writer, generate_details
from tinygpt.errors import ConfigError
from tinygpt.model import FixedCache, KVCache

from ..tools import ALPHABET, VARIANTS, gpt2, ready


@pytest.fixture
def steps(monkeypatch):
    """Run what would be compiled as it is; the list has an entry per step."""
    taken = []

    def counting(run):
        return lambda: taken.append(run) or run()

    monkeypatch.setattr("tinygpt.decoding.step._compiled", counting)
    return taken


WAYS = [(v, "crop") for v in VARIANTS] + [("gpt2", "stop"), ("llama", "roll"), ("modern", "roll")]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {},
        {"temperature": 0.9, "top_k": 12, "top_p": 0.9, "repetition_penalty": 1.3},
        {"stop": ("Z", "ab")},
    ],
)
@pytest.mark.parametrize(("variant", "past_block"), WAYS)
def test_the_fixed_step_writes_the_same_text(steps, variant, past_block, options):
    model, options = ready(VARIANTS[variant]), {"seed": 7, "past_block": past_block, **options}
    batches = [["ABC"], ["ABC", "A", "ABCDEFGHIJKLMNOP"]]
    if past_block == "roll":
        batches.append(["ABC", ALPHABET[:40]])  # where padding, too, is read token by token
    for prompts in batches:
        for new in (8, 60):  # inside the block, and beyond it
            expected = generate_batch(model, prompts, new, **options)
            steps.clear()
            assert generate_batch(model, prompts, new, compile=True, **options) == expected
            assert len(steps) >= 7 or "stop" in options


def test_the_fixed_step_gives_the_logits_whatever_the_memory_held_before(model):
    idx = torch.randint(65, (2, 24), generator=torch.manual_seed(0))
    cache = KVCache(model.config, batch_size=2)
    cache.buffer.fill_(torch.nan)
    fixed = FixedCache(cache)
    with torch.no_grad():
        expected = model(idx).logits
        model(idx[:, :7], cache=cache)
        fixed.follow(cache)
        logits = [model(idx[:, [t]], cache=fixed).logits for t in range(7, 24)]
    torch.testing.assert_close(torch.cat(logits, dim=1), expected[:, 7:], atol=1e-5, rtol=1e-5)


def test_the_fixed_mask_by_hand():
    fixed = FixedCache(KVCache(VARIANTS["llama"], 2), torch.tensor([0, 5]))

    def seen():
        return [row.nonzero().flatten().tolist() for row in fixed.mask(1, "cpu")[:, 0, 0]]

    fixed.length.fill_(3)  # padding sees itself: a row of nothing is NaN on some devices
    assert seen() == [[0, 1, 2, 3], [3]]
    fixed.length.fill_(26)  # 24 slots: the first three hold tokens 24 to 26
    assert seen() == [[*range(24)], [0, 1, 2, *range(5, 24)]]


def test_details_and_streams_of_the_fixed_step(steps):
    model = gpt2()
    (plain,) = generate_details(model, ["ABC"], 30, seed=2)
    (fixed,) = generate_details(model, ["ABC"], 30, seed=2, compile=True)
    assert fixed.tokens == plain.tokens
    assert fixed.raw_logprobs == pytest.approx(plain.raw_logprobs, abs=1e-4)
    assert "ABC" + "".join(stream(model, "ABC", 30, seed=2, compile=True)) == plain.text
    assert len(steps) == 2 * 29  # the last token is not read
    with pytest.raises(ConfigError, match="leave use_cache=True"):
        generate(model, "ABC", 5, use_cache=False, compile=True)


@pytest.mark.full
def test_compiled_once_it_serves_all_texts_and_follows_the_weights():

    torch._dynamo.reset()
    counters.clear()
    for number, (variant, past_block) in enumerate([("gpt2", "crop"), ("modern", "roll")], start=1):
        model = ready(VARIANTS[variant])
        for scale in (1.0, 1.0, 1.1):
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(scale)
            options = {"seed": 5, "past_block": past_block}
            expected = generate_batch(model, ["ABC", "A"], 60, **options)
            assert generate_batch(model, ["ABC", "A"], 60, compile=True, **options) == expected
        assert counters["stats"]["unique_graphs"] == number
    assert not counters["graph_break"]


@pytest.mark.full
def test_a_missing_compiler_is_one_clear_error(monkeypatch, tmp_path):

    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = ready(replace(VARIANTS["gpt2"], n_embd=24, n_layer=1))  # nobody compiled this before
    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(ConfigError, match="compile=True needs a C.. compiler; use compile=False"),
    ):
        generate(model, "ABC", 3, compile=True)


@pytest.mark.cuda
def test_cuda_writes_the_same_greedy_text():
    model = gpt2()
    expected = generate_batch(model, ["ABC", "A"], 40, temperature=0.0)
    assert generate_batch(model.cuda(), ["ABC", "A"], 40, temperature=0.0) == expected


@pytest.mark.cuda
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}])
@pytest.mark.parametrize(("variant", "past_block"), WAYS)
def test_cuda_a_recorded_step_writes_the_same_text(variant, past_block, options):
    model = ready(VARIANTS[variant]).cuda()
    long = ALPHABET[: 40 if past_block == "roll" else 16]
    for prompts in (["ABC"], ["ABC", "A", long]):
        options = options | {"past_block": past_block}
        expected = generate_batch(model, prompts, 60, **options)
        for _ in range(2):
            assert generate_batch(model, prompts, 60, compile=True, **options) == expected


@pytest.mark.cuda
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "typical": 0.95},
        {"epsilon": 0.001, "eta": 0.001, "banned": "abc", "repetition_penalty": 1.2},
        {"frequency": 0.2, "presence": 0.1},
    ],
)
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_cuda_no_token_waits_for_the_gpu(variant, compile, options):
    model = ready(replace(VARIANTS[variant], block_size=256)).cuda()
    for prompts in (["ABC"], ["ABC", "A"]):
        writer = Writer(model, prompts, 200, None, tinygpt.DecodingConfig(**options))
        writing = writer.run(seed=0, compile=compile)
        for _ in range(3):  # set-up, first reading, recording
            next(writing)
        torch.cuda.set_sync_debug_mode("error")
        try:
            assert sum(1 for _ in writing) == 197  # noise is copied anew within
        finally:
            torch.cuda.set_sync_debug_mode("default")
