from dataclasses import fields, replace
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config

import tinygpt
from tinygpt import ModelConfig, MoEConfig, TinyGPT, generate, generate_batch, generate_beam, stream
from tinygpt.decoding import Step, Writer, generate_details, generate_lookup
from tinygpt.errors import ConfigError
from tinygpt.model import FixedCache, KVCache

from ..tools import (
    ALPHABET,
    VARIANTS,
    close,
    gpt2,
    ids,
    opinionated,
    ready,
    shaken,
    sliding_window_logits,
)

# --- the step equals the model, over every field of its configuration -------------------------

BASES = {
    "gpt2": ModelConfig(vocab_size=17, block_size=8, n_layer=2, n_head=2, n_embd=16),
    "llama": ModelConfig(
        vocab_size=17,
        block_size=8,
        n_layer=2,
        n_head=2,
        n_embd=16,
        norm="rmsnorm",
        position="rope",
        mlp="swiglu",
        tie_embeddings=False,
        attn_bias=False,
        mlp_bias=False,
    ),
}

FIELDS = {
    "vocab_size": [{"vocab_size": 5}],
    "block_size": [{"block_size": 5}],
    "n_layer": [{"n_layer": 1}, {"n_layer": 3}],
    "n_head": [{"n_head": 1}, {"n_head": 4}],
    "n_embd": [{"n_embd": 24}],
    "n_inner": [{"n_inner": 6}],
    "dropout": [{"dropout": 0.5}],
    "norm": [{"norm": "layernorm"}, {"norm": "rmsnorm"}],
    "norm_eps": [{"norm_eps": 0.5}, {"norm_eps": 0.5, "qk_norm": True}],
    "position": [{"position": "learned"}, {"position": "rope"}],
    "rope_theta": [{"rope_theta": 9.0, "position": "rope"}],
    "mlp": [{"mlp": "gelu"}, {"mlp": "swiglu"}, {"mlp": "relu2"}],
    "qk_norm": [{"qk_norm": True}, {"qk_norm": True, "position": "rope"}],
    "tie_embeddings": [{"tie_embeddings": True}, {"tie_embeddings": False}],
    "n_kv_head": [{"n_kv_head": 1}, {"n_kv_head": 2, "n_head": 4}],
    "head_dim": [{"head_dim": 4}, {"head_dim": 10, "n_head": 3, "n_kv_head": 1, "qk_norm": True}],
    "attn_bias": [{"attn_bias": True}, {"attn_bias": False}],
    "qkv_bias": [{"qkv_bias": True, "attn_bias": False}, {"qkv_bias": False}],
    "mlp_bias": [{"mlp_bias": True}, {"mlp_bias": False}],
    "zero_init": [{"zero_init": True}],
    "bigrams": [{"bigrams": 50}, {"bigrams": 9999}],
    "token_shift": [{"token_shift": True}],
    "moe": [{"moe": MoEConfig()}],
}

EXPERT_FIELDS = {
    "n_experts": [{"n_experts": 1}, {"n_experts": 3}],
    "top_k": [{"top_k": 2}],
    "n_inner": [{"n_inner": 6}],
    "every": [{"every": 2}],
    "first_dense": [{"first_dense": 1}],
    "n_shared": [{"n_shared": 2}],
    "shared_gate": [{"shared_gate": True, "n_shared": 1}],
    "scores": [{"scores": "softmax"}, {"scores": "sigmoid"}],
    "norm_topk_prob": [{"norm_topk_prob": True, "top_k": 2}],
    "routed_scaling_factor": [{"routed_scaling_factor": 2.5}],
    "straight_through": [{"straight_through": True}, {"straight_through": True, "top_k": 2}],
    "top_p": [{"top_p": 0.5, "top_k": 3}],
    "n_groups": [{"n_groups": 2, "top_groups": 1, "top_k": 2}],
    "top_groups": [{"n_experts": 6, "n_groups": 3, "top_groups": 2, "top_k": 2}],
    "noisy": [{"noisy": True}],
    "jitter": [{"jitter": 0.5}],
    "expert_dropout": [{"expert_dropout": 0.5}],
    "capacity_factor": [{"capacity_factor": 0.3}],
    "balance": [{"balance": "bias"}, {"balance": "loss"}, {"balance": "none"}],
    "bias_rate": [{"bias_rate": 0.5}],
    "balance_weight": [{"balance_weight": 0.5}],
    "z_weight": [{"z_weight": 0.5}],
    "cv_weight": [{"cv_weight": 0.5}],
    "dispatch": [{"dispatch": way} for way in ("auto", "loop", "split", "grouped_mm")],
    # experts take turns by the place in the batch, unless each token has them all
    "forced_balance": [{"forced_balance": True, "top_k": 4, "norm_topk_prob": True}],
}


@pytest.mark.parametrize(
    ("kind", "table"), [(ModelConfig, FIELDS), (MoEConfig, EXPERT_FIELDS)], ids=["model", "moe"]
)
def test_every_field_has_values_to_be_tried(kind, table):
    assert {field.name for field in fields(kind)} == set(table)
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is Literal:
            assert {values[name] for values in table[name]} == set(get_args(hint)), name


def assert_the_step_is_the_model(config: ModelConfig) -> None:
    """Token by token from the first: inside the block, with padding, and past it with roll.

    Three rows, and one alone, which is computed as a vector.
    """
    model, T, padding = opinionated(shaken(config)), config.block_size, torch.tensor([0, 2, 4])
    rolls = config.position == "rope"
    tokens = ids(config, 3, 3 * T if rolls else T)
    if rolls:
        long = TinyGPT(replace(config, block_size=3 * T)).eval()
        long.load_state_dict(model.state_dict())
    for B, lengths in ((3, None), (3, padding), (1, None), (1, padding[1:2])):
        step = Step(model, KVCache(config, B, padding=lengths))
        with torch.inference_mode():
            steps = [step(token) for token in tokens[:B].unbind(1)]
            logits = torch.stack(steps, dim=1)  # (B, T, V)
            for row, first in enumerate([0] * B if lengths is None else lengths.tolist()):
                text = tokens[[row], first:]
                expected = model(text[:, : T - first]).logits
                close(logits[[row], first:T], expected)
                if rolls:
                    close(logits[[row], first:], sliding_window_logits(long, text, T))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", FIELDS)
def test_the_step_is_the_model_whatever_its_shape(name, base):
    for values in FIELDS[name]:
        assert_the_step_is_the_model(replace(BASES[base], **values))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", EXPERT_FIELDS)
def test_the_step_is_the_model_whatever_its_experts(name, base):
    for values in EXPERT_FIELDS[name]:
        assert_the_step_is_the_model(replace(BASES[base], moe=MoEConfig(**values)))


@pytest.mark.parametrize("rows", [1, 3])
def test_the_step_follows_weights_that_change_between_tokens(rows):
    """Who takes a text token by token may train the model meanwhile."""
    shape = {"qk_norm": True, "bigrams": 50, "token_shift": True, "moe": MoEConfig()}
    model = opinionated(shaken(replace(BASES["llama"], **shape)))
    tokens = ids(model.config, rows, 8)
    caches = [KVCache(model.config, rows) for _ in range(2)]
    step = Step(model, caches[0])
    with torch.inference_mode():
        for token in tokens.unbind(1):
            close(step(token), model(token[:, None], cache=caches[1]).logits[:, -1])
            for p in model.parameters():
                p.mul_(1.1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("experts", [None, MoEConfig(top_k=2, norm_topk_prob=True, n_shared=1)])
@pytest.mark.parametrize("qk_norm", [None, 16, 32])  # bits of the norms' weights
@pytest.mark.parametrize("base", BASES)
def test_the_steps_of_16_bit_weights_are_the_model_of_16_bit_weights(base, qk_norm, experts, dtype):
    """Within what 16 bits hold: a bf16 number is exact to 1/256, and each layer rounds anew."""
    config = replace(BASES[base], qk_norm=qk_norm is not None, moe=experts)
    model, tokens = opinionated(shaken(config)).to(dtype), ids(config, 3, 8)
    if qk_norm == 32:
        for block in model.blocks:
            block.attn.q_norm.float(), block.attn.k_norm.float()
    tolerance = 0.03 if dtype == torch.bfloat16 else 0.004
    with torch.inference_mode():
        expected = model(tokens).logits
        step, alone = (Step(model, KVCache(config, B, dtype=dtype)) for B in (3, 1))
        fixed = FixedCache(KVCache(config, 3, dtype=dtype))
        for t, token in enumerate(tokens.unbind(1)):
            one_row, rows = alone(token[:1]), step(token)
            for logits in (one_row, rows, model(token[:, None], cache=fixed).logits[:, -1]):
                assert logits.dtype == torch.float32
                place = expected[: len(logits), t]
                close(logits, place, atol=tolerance * expected.abs().max().item())


def test_a_step_follows_its_cache_to_another_text():
    """Whatever was made for the next tokens: from another place on, or with other padding."""
    model, tokens = opinionated(shaken(BASES["llama"])), ids(BASES["llama"], 2, 8)
    cache = KVCache(model.config, 2)
    step = Step(model, cache)
    with torch.inference_mode():
        for padding in (None, torch.tensor([0, 3]), torch.tensor([2, 0]), None):
            for read in (5, 1, 3):
                cache.restart(padding)
                model(tokens[:, :read], cache=cache)
                other = KVCache(model.config, 2, padding=padding)
                for t in range(read, 8):
                    expected = model(tokens[:, : t + 1], cache=other).logits[:, -1]
                    close(step(tokens[:, t]), expected)
                    other.restart(padding)


@pytest.fixture
def steps(monkeypatch):
    """Run what would be compiled as it is; the list has an entry per step."""
    taken = []

    def counting(run):
        return lambda: taken.append(run) or run()

    monkeypatch.setattr("tinygpt.decoding.step._compiled", counting)
    return taken


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_way_of_writing_has_16_bit_weights(steps, variant, dtype):
    model = ready(VARIANTS[variant]).to(dtype)
    for past_block in ("crop", "stop") if variant == "gpt2" else ("crop", "stop", "roll"):
        options = {"seed": 1, "past_block": past_block}
        for compile in (False, True):
            both = generate_batch(model, ["ABC", "A"], 30, compile=compile, **options)
            new = 22 if past_block == "stop" else 30
            assert [len(text) for text in both] == [3 + new, 1 + new + 2 * (new < 30)]
    assert len(generate_beam(model, "ABC", 30, n_beams=3)) == 33
    assert len(generate_lookup(model, "ABCABC", 30)) == 36
    (row,) = generate_details(model, ["ABC"], 5, seed=0, top_p=0.9)
    log_p = model(torch.tensor([model.tokenizer.encode(row.text)])).logits[0, 2:-1].log_softmax(-1)
    expected = log_p.gather(1, torch.tensor(row.tokens)[:, None])[:, 0].tolist()
    assert row.raw_logprobs == pytest.approx(expected, abs=0.3)


# --- the fixed step, to be compiled or recorded ------------------------------------------------


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
            for _ in range(197):  # noise is copied anew within
                next(writing)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert next(writing, "end") == "end"  # after the one look at what was written
