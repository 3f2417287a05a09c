import math
import statistics
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tinygpt import MoEConfig, TinyGPT, generate, stream
from tinygpt.decoding import generate_details
from tinygpt.errors import ConfigError
from tinygpt.measure import (
    FIGURES,
    compare_spread,
    evaluate,
    head_figures,
    measure_even,
    measure_heads,
    speaker_lines,
    without_heads,
)
from tinygpt.model import TinyGPTOutput
from tinygpt.text import CharTokenizer

from ..tools import SHAPE, ByteTokenizer, close, gpt2, ready, shaken

PLAY = (
    "of a speech\nbefore: it\n\nANN:\nOh, no: see\nthe hen:\nit ran.\n\n"
    "ACT II\n\nBO B:\n\nANN:\nhum"
)


@pytest.fixture
def tokenizer():
    return CharTokenizer.from_text(PLAY)


class Handmade(TinyGPT):
    """Attends as it is told: `make(T)` gives the weights `(L, H, T, T)`."""

    def __init__(self, tokenizer, make, block_size=24):
        super().__init__(replace(SHAPE, vocab_size=tokenizer.vocab_size, block_size=block_size))
        self.make = make

    def forward(self, idx, targets=None, return_attention=False):
        assert return_attention
        B, T = idx.shape
        maps = [layer.expand(B, -1, -1, -1) for layer in self.make(T).float()]
        return TinyGPTOutput(torch.zeros(B, T, 1), attentions=maps)


# --- figures per head ----------------------------------------------------------------------------


def current_names(text):
    """The name of each character's speaker as a set of places, read line by line."""
    found, start, name, fresh = [], 0, set(), True
    for line in text.split("\n"):
        if line == "":
            fresh = True
            found += [name]
        else:
            if fresh:
                name = set(range(start, start + len(line))) if line.endswith(":") else set()
                here = [set()] * len(line) + [name]
            else:
                here = [name] * (len(line) + 1)
            found, fresh = found + here, False
        start += len(line) + 1
    return found[: len(text)]


def test_the_speakers_line_of_each_token(tokenizer):
    lines = speaker_lines(torch.tensor(tokenizer.encode(PLAY)), tokenizer)
    assert [set(range(a, b)) for a, b in lines.tolist()] == current_names(PLAY)
    ends = [tuple(line) for line in lines.unique(dim=0).tolist() if line != [0, 0]]
    assert [PLAY[a:b] for a, b in ends] == ["ANN:", "BO B:", "ANN:"]


def test_a_speakers_line_in_tokens_that_are_parts_of_characters_or_several():
    tokenizer = ByteTokenizer([b"\n\n", b"\xc3", b"\xa9", b"o:\n", b"", b"ah", b"\n"])
    lines = speaker_lines(torch.tensor([5, 0, 1, 2, 3, 4, 5, 6, 5, 0, 5]), tokenizer)
    here = [2, 5]  # the name ends in the token that ends the line
    assert lines.tolist() == [[0, 0]] * 5 + [here] * 5 + [[0, 0]]


def by_hand(weights, text, start):
    """What `measure_heads` promises, query by query, of a head in the window that starts there."""
    found, names = {figure: [] for figure in FIGURES}, current_names(text)
    for t in range(1, len(weights)):
        w, here = weights[t].tolist(), start + t
        found["entropy"].append(-sum(x * math.log(x) for x in w if x > 0))
        found["distance"].append(sum(x * (t - s) for s, x in enumerate(w)))
        found["previous_token"].append(w[t - 1])
        same = [x for s, x in enumerate(w[:t]) if text[start + s] == text[here]]
        if same:
            found["same_token"].append(sum(same))
        name = {place - start for place in names[here]}
        if name and min(name) >= 0 and here not in names[here]:
            found["speaker_line"].append(sum(w[s] for s in name))
    return found


@pytest.mark.parametrize("max_tokens", [None, 40])
def test_the_figures_of_heads_by_hand(tokenizer, max_tokens):
    text = PLAY + "\n\n" + PLAY.replace("hum", "o") + "\n"
    model = shaken(replace(SHAPE, vocab_size=tokenizer.vocab_size, block_size=20))
    with torch.no_grad():
        for block in model.blocks:
            block.attn.c_attn.weight.mul_(8)  # heads with opinions
    tokens = torch.tensor(tokenizer.encode(text))
    table = measure_heads(model, tokens, tokenizer, max_tokens)
    assert table[["layer", "head"]].values.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    n = len(tokens) - 1
    starts = range(0, n, 20)
    if max_tokens:
        starts = [starts[0], starts[n // 20 - 1]]
    for row in table.itertuples():
        found = {figure: [] for figure in FIGURES}
        for start in starts:
            window = tokens[None, start : min(start + 20, n)]
            weights = model(window, return_attention=True).attentions[row.layer][0, row.head]
            for figure, values in by_hand(weights, text, start).items():
                found[figure] += values
        for figure, values in found.items():
            assert len(values) > 1, figure
            assert getattr(row, figure) == pytest.approx(statistics.fmean(values), abs=1e-5)
    assert table.entropy.std() > 0.01


def test_a_head_that_looks_at_the_token_before(tokenizer):
    def previous(T):
        return (
            torch.eye(T).roll(-1, 1).tril().index_fill(0, torch.tensor(0), 0).expand(2, 2, -1, -1)
        )

    text = "xaabb\n\nANN:\n" * 3
    model = Handmade(CharTokenizer.from_text(text), previous, block_size=12)
    tokens = torch.tensor(CharTokenizer.from_text(text).encode(text))
    table = measure_heads(model, tokens, CharTokenizer.from_text(text))
    assert (table.entropy == 0).all()
    assert (table.distance == 1).all()
    assert (table.previous_token == 1).all()
    # of 12 letters a b \n N \n have one like them before, in a b \n N next to them; the last
    # window lacks its last letter
    assert table.same_token.tolist() == pytest.approx([12 / 14] * 4)


def test_a_head_that_looks_at_all_alike(tokenizer):
    """Entropy ln(t + 1), distance t / 2, 1 / (t + 1) on each place, averaged over t."""
    T, tokens = 24, torch.tensor(tokenizer.encode("ANN:\n" + 19 * "h"))
    tokens = torch.cat([tokens, tokens[:1]])
    t = np.arange(1, T)
    expected = {
        "entropy": np.log(t + 1).mean(),
        "distance": t.mean() / 2,
        "previous_token": (1 / (t + 1)).mean(),
        "same_token": np.mean([1 / 3, *((s - 5) / (s + 1) for s in range(6, 24))]),
        "speaker_line": np.mean([4 / (s + 1) for s in range(4, 24)]),
    }

    def even(T):
        return (torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]).expand(2, 2, -1, -1)

    model = Handmade(tokenizer, even)
    assert measure_even(model, tokens, tokenizer) == pytest.approx(expected, rel=1e-5)
    for _, row in measure_heads(model, tokens, tokenizer).iterrows():
        assert row[list(FIGURES)].to_dict() == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_asked_of_a_text_is_nan(tokenizer):
    tokens = torch.tensor(tokenizer.encode("hence"))
    table = measure_heads(
        Handmade(tokenizer, lambda T: torch.eye(T).expand(2, 2, -1, -1)), tokens, tokenizer
    )
    assert table.speaker_line.isna().all()
    assert table.same_token.isna().all()  # the second e is a target only
    assert (table.distance == 0).all()
    figures = head_figures(torch.eye(3)[None, None], torch.zeros(3, 1, 3, 3, dtype=torch.bool))
    assert figures[:2, 0, 0, 1:].eq(0).all()
    assert figures[2:].isnan().all()


def test_measuring_leaves_the_model_in_its_mode(tokenizer):
    config = replace(SHAPE, vocab_size=tokenizer.vocab_size, dropout=0.5)
    model, tokens = TinyGPT(config).train(), torch.tensor(tokenizer.encode(PLAY))
    table = measure_heads(model, tokens, tokenizer)
    assert model.training
    pd.testing.assert_frame_equal(table, measure_heads(model.eval(), tokens, tokenizer))


# --- do heads of one arm differ more? ------------------------------------------------------------


def heads_of(spreads, seeds=8, seed=0):
    draw, rows = np.random.default_rng(seed), []
    for arm, spread in spreads.items():
        for run in range(seeds):
            for layer in range(2):
                for head in range(4):
                    entropy = 2 + spread * draw.normal()
                    rows.append((arm, run, layer, head, entropy, 9 + draw.normal()))
    return pd.DataFrame(rows, columns=["arm", "seed", "layer", "head", "entropy", "distance"])


def test_more_differing_heads_are_found_with_runs_as_the_unit():
    heads = heads_of({"dense": 1.0, "mixture": 3.0})
    table = compare_spread(heads, "mixture", "dense", ["entropy", "distance"]).set_index("figure")
    spread = {
        arm: [
            statistics.stdev(heads[(heads.arm == arm) & (heads.seed == seed)].entropy)
            for seed in range(8)
        ]
        for arm in ("mixture", "dense")
    }
    row = table.loc["entropy"]
    assert row.mixture == pytest.approx(statistics.fmean(spread["mixture"]))
    assert row.difference == pytest.approx(row.mixture - row.dense)
    a, b = (statistics.variance(spread[arm]) / 8 for arm in ("mixture", "dense"))
    freedom = (a + b) ** 2 / (a**2 / 7 + b**2 / 7)  # Welch 1947
    t = row.difference / math.sqrt(a + b)
    x = torch.linspace(t, 4000, 4_000_000, dtype=torch.float64)
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    beyond = 2 * torch.trapezoid(scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x).item()
    assert row.p == pytest.approx(beyond, rel=1e-3)
    assert row.p_holm == pytest.approx(2 * row.p)
    assert row.low > 0
    assert table.p_holm["distance"] == pytest.approx(table.p["distance"])


def test_equal_arms_are_rarely_told_apart():
    p = [
        compare_spread(heads_of({"a": 1, "b": 1}, seeds=5, seed=i), "a", "b", ["entropy"]).p[0]
        for i in range(100)
    ]
    assert sum(x < 0.05 for x in p) <= 11


def test_a_figure_without_values_is_left_out_and_an_unknown_arm_refused():
    heads = heads_of({"a": 1, "b": 1}).assign(distance=math.nan)
    assert compare_spread(heads, "a", "b", ["entropy", "distance"]).figure.tolist() == ["entropy"]
    with pytest.raises(ConfigError, match=r"no heads of \{'c'\}; the arms are \['a', 'b'\]"):
        compare_spread(heads, "a", "c", ["entropy"])


# --- a model without a head ----------------------------------------------------------------------


def silence(model, heads):
    """Hooks that take what these heads give as zero: another way to the same."""
    D = model.config.head_size

    def hook_of(head):
        def hook(module, inputs):
            x = inputs[0].clone()
            x[..., head * D : (head + 1) * D] = 0
            return (x,)

        return hook

    return [
        model.blocks[layer].attn.c_proj.register_forward_pre_hook(hook_of(head))
        for layer, head in heads
    ]


OFF = [(0, 1), (2, 3), (0, 2)]


@pytest.mark.parametrize("moe", [None, MoEConfig()])
def test_a_head_that_is_left_out_gives_nothing(moe):
    model = ready(replace(gpt2().config, moe=moe))
    before = {name: p.clone() for name, p in model.state_dict().items()}
    idx = torch.arange(60).view(2, 30)
    other, whole = without_heads(model, OFF), model(idx).logits
    actual = other(idx, return_attention=True)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert torch.equal(model(idx).logits, whole)
    hooks = silence(model, OFF)
    expected = model(idx, return_attention=True)
    close(actual.logits, expected.logits)
    close(actual.attentions[2], expected.attentions[2])
    close(evaluate(other, idx.flatten()), evaluate(model, idx.flatten()))
    for hook in hooks:
        hook.remove()
    assert (actual.logits - whole).abs().max() > 1e-2
    assert other.wte.weight is model.wte.weight
    assert other.blocks[1].attn.c_proj.weight is model.blocks[1].attn.c_proj.weight
    assert other.tokenizer is model.tokenizer


def test_it_is_left_out_in_each_way_of_writing():
    """Against slow greedy decoding with hooks; the fast step reads weights and sees no hooks."""
    model = gpt2()
    prompts, whole = ["0123", "QRS"], generate(model, "0123", 50, temperature=0)
    hooks = silence(model, OFF)
    expected = [generate(model, prompt, 50, temperature=0, use_cache=False) for prompt in prompts]
    for hook in hooks:
        hook.remove()
    other = without_heads(model, OFF)
    assert expected[0] != whole
    for cached in (True, False):
        assert generate(other, "0123", 50, temperature=0, use_cache=cached) == expected[0]
    assert "".join(stream(other, "0123", 50, temperature=0)) == expected[0][4:]
    details = generate_details(other, prompts, 50, temperature=0)
    assert [found.text for found in details] == expected
    assert generate(model, "0123", 50, temperature=0) == whole


def test_without_any_head_attention_is_its_bias():
    model = gpt2()
    other = without_heads(model, [(layer, h) for layer in range(3) for h in range(4)])
    assert isinstance(other.blocks[0].attn.c_proj, nn.Linear)
    found, _ = other.blocks[1].attn(torch.randn(2, 5, 32))
    close(found, model.blocks[1].attn.c_proj.bias.expand(2, 5, -1))
    assert without_heads(model, []).blocks[0].attn.c_proj.weight is not None


@pytest.mark.parametrize("head", [(3, 0), (-1, 0), (0, 4), (0, -1)])
def test_a_head_that_there_is_not_is_refused(head):
    with pytest.raises(ConfigError, match=f"no head {head[1]} in layer {head[0]}; .* 0 to 2, .* 3"):
        without_heads(gpt2(), [head])
