"""The exercises of notebook 02: typical mistakes are named."""

import re

import pytest

from tinygpt.exercises import examine
from tinygpt.files import ROOT

from .answers import define, solutions

NOTEBOOK = ROOT / "notebooks" / "02_dense_tinygpt.ipynb"


def function(name: str, body: str) -> str:
    """The code of an answer with this body and the solution's arguments."""
    signature = re.search(r"def \w+\(.*?\):", solutions(NOTEBOOK)[name])[0]
    return "\n    ".join([signature, *body.splitlines()])


def attention(
    scores="q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])",
    mask="scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)",
    weights="scores.softmax(dim=-1)",
    result="weights @ v",
) -> str:
    return f"scores = {scores}\nscores = {mask}\nweights = {weights}\nreturn {result}"


def masked(diagonal: str) -> str:
    return f"scores.masked_fill(torch.ones_like(scores).{diagonal}.bool(), -torch.inf)"


def entropy(m="logits.amax(dim=1, keepdim=True)", total="z.exp().sum(dim=1).log()", rest="") -> str:
    picked = "z[torch.arange(len(targets)), targets]"
    return f"z = logits - {m}\npicked = {picked}\nreturn {rest or f'({total} - picked).mean()'}"


def probability(end: str) -> str:
    start = "p = logits.exp() / logits.exp().sum(1, keepdim=True)\nn = torch.arange(len(targets))"
    return f"{start}\n{end}"


def hill(after: str, before="(step + 1) / (warmup_steps + 1)") -> str:
    return (
        "w, N, r = warmup_steps, max_steps, min_ratio\n"
        f"if step < w:\n    return {before}\n"
        "x = (step - w) / (N - w)\n"
        f"return {after}"
    )


def cosine(x: str) -> str:
    return hill(f"r + (1 - r) * 0.5 * (1 + math.cos({x}))")


def twice(first: str, second: str) -> str:
    return f"x = {first}\nreturn {second}"


def ablate(output: str, remove="handle.remove()", loss="lm_loss") -> str:
    hook = f"lambda module, inputs, output: {output}"
    return (
        f"handle = part.register_forward_hook({hook})\n"
        f"loss = model(x, y).{loss}.item()\n{remove}\nreturn loss"
    )


# name, body of the function, a word of the diagnosis
MISTAKES = [
    ("causal_attention", attention(mask="scores"), "no mask"),
    ("causal_attention", attention(scores="q @ k.transpose(2, 3)"), "not scaled"),
    ("causal_attention", attention("q @ k.transpose(2, 3)", "scores"), "not scaled"),
    ("causal_attention", attention("q @ k.transpose(2, 3)", "scores"), "And: There is no mask"),
    ("causal_attention", attention(scores="q @ k.transpose(2, 3) / q.shape[3]"), "square root"),
    ("causal_attention", attention(scores="q @ k.transpose(2, 3) * q.shape[3] ** 0.5"), "multipl"),
    (
        "causal_attention",
        attention(scores="q @ k.transpose(2, 3) / math.sqrt(q.shape[1] * q.shape[3])"),
        "sqrt(C)",
    ),
    ("causal_attention", attention(scores="q @ k.transpose(2, 3) / q.shape[2] ** 0.5"), "sqrt(T)"),
    ("causal_attention", attention(mask=masked("triu(2)")), "also reads the next one"),
    ("causal_attention", attention(mask=masked("triu(0)")), "covers the diagonal"),
    ("causal_attention", attention(mask=masked("tril(-1)")), "wrong way round"),
    ("causal_attention", attention(mask="scores.tril()"), "e^0 = 1"),
    (
        "causal_attention",
        attention(mask="scores", result="weights.tril() @ v"),
        "after the softmax",
    ),
    (
        "causal_attention",
        attention(
            mask="scores",
            result="weights.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf) @ v",
        ),
        "into the weights",
    ),
    ("causal_attention", attention(weights="scores.softmax(dim=-2)"), "columns add up"),
    ("causal_attention", attention(weights="scores.softmax(dim=1)"), "heads"),
    ("causal_attention", attention(result="weights"), "weighted sum"),
    ("causal_attention", "B, H, T, D = q.shape\n" + attention(), "three axes stop with an error"),
    ("causal_attention", attention(weights="scores.softmax(3)"), "Count axes from the end"),
    (
        "causal_attention",
        attention(weights="scores.softmax(-1) if q.dim() == 4 else scores.softmax(1)"),
        "wrong for three axes",
    ),
    ("causal_attention", attention(result="weights @ q"), "its own value"),
    ("causal_attention", attention(weights="scores.softmax(-1) ** 2"), "later ones are not"),
    ("causal_attention", attention(weights="scores.softmax(-1) * torch.nan"), "nan"),
    ("causal_attention", attention(result="(weights @ v).transpose(1, 2)"), "the shape of q"),
    ("causal_attention", attention(scores="q @ k.transpose(2, 3) / 2"), "as a number"),
    ("causal_attention", attention(scores="q @ k"), "RuntimeError"),
    ("causal_attention", "y = q @ k.transpose(2, 3)", "`return` missing"),
    ("causal_attention", "return q, k, v", "a tuple"),
    ("transformer_block", "return mlp(ln_2(attention(ln_1(x))))", "Nothing is added"),
    ("transformer_block", "return mlp(ln_2(x + attention(ln_1(x))))", "The MLP's result replaces"),
    ("transformer_block", twice("attention(ln_1(x))", "x + mlp(ln_2(x))"), "Attention's result"),
    ("transformer_block", twice("ln_1(x + attention(x))", "ln_2(x + mlp(x))"), "block of 2017"),
    ("transformer_block", twice("x + attention(x)", "x + mlp(x)"), "norms are missing"),
    ("transformer_block", twice("x + ln_1(attention(x))", "x + ln_2(mlp(x))"), "behind the parts"),
    (
        "transformer_block",
        "y = x + attention(ln_1(x))\nreturn x + mlp(ln_2(y))",
        "second line adds",
    ),
    ("transformer_block", twice("x + attention(ln_1(x))[0]", "x + mlp(ln_2(x))"), "first window"),
    ("transformer_block", twice("x + attention(x)", "x + mlp(ln_2(x))"), "first norm is missing"),
    ("transformer_block", twice("x + attention(ln_1(x))", "x + mlp(x)"), "second norm is missing"),
    (
        "transformer_block",
        "x = ln_1(x)\nx = x + attention(x)\nx = ln_2(x)\nreturn x + mlp(x)",
        "added to the normed x",
    ),
    ("transformer_block", "return x + attention(ln_1(x)) + mlp(ln_2(x))", "what attention left"),
    ("transformer_block", twice("x + attention(ln_1(x))", "x + mlp(ln_1(x))"), "used twice"),
    ("transformer_block", twice("x + mlp(ln_2(x))", "x + attention(ln_1(x))"), "MLP comes first"),
    ("transformer_block", "return x + attention(ln_1(x))", "MLP is missing"),
    ("transformer_block", "return x + mlp(ln_2(x))", "Attention is missing"),
    ("transformer_block", twice("x + 2 * attention(ln_1(x))", "x + mlp(ln_2(x))"), "two lines"),
    ("transformer_block", "x += attention(ln_1(x))\nreturn x + mlp(ln_2(x))", "has changed"),
    ("transformer_block", "return x.mean(1)", "the shape of x"),
    ("transformer_block", "x = x + attention(ln_1(x))", "`return` missing"),
    ("loss_without", ablate("None"), "if it returns nothing"),
    ("loss_without", ablate("output * 0", remove="pass"), "hook is still on the model"),
    (
        "loss_without",
        "part.weight.data.zero_()\npart.bias.data.zero_()\nreturn model(x, y).lm_loss.item()",
        "weights have changed",
    ),
    (
        "loss_without",
        "h = part.register_forward_pre_hook(lambda m, i: (i[0] * 0,))\n"
        "loss = model(x, y).lm_loss.item()\nh.remove()\nreturn loss",
        "bias is still added",
    ),
    ("loss_without", ablate("output * 0", loss="lm_loss.exp()"), "perplexity"),
    (
        "loss_without",
        ablate("output * 0").replace("return loss", "return loss - model(x, y).lm_loss.item()"),
        "how much the loss rises",
    ),
    ("loss_without", ablate("output / 2"), "you return"),
    ("loss_without", ablate("output * 0").replace("return", "loss ="), "`return` missing"),
    ("count_block_parameters", "return 12 * n_embd**2", "biases of the four layers"),
    ("count_block_parameters", "return 12 * n_embd**2 + 4 * n_embd", "four linear layers"),
    ("count_block_parameters", "return 12 * n_embd**2 + 9 * n_embd", "two LayerNorms"),
    ("count_block_parameters", "return 12 * n_embd**2 + 11 * n_embd", "a scale and a shift"),
    ("count_block_parameters", "return 12 * n_embd**2 + 10 * n_embd", "c_attn"),
    ("count_block_parameters", "return 12 * n_embd**2 + 8 * n_embd", "MLP have biases"),
    ("count_block_parameters", "return 12 * n_embd**2 + 12 * n_embd", "C are missing"),
    ("count_block_parameters", "return 12 * n_embd**2 + 15 * n_embd", "2 C too many"),
    ("count_block_parameters", "return 12 * n_embd**2 + 77 * n_embd", "have 9 C"),
    ("count_block_parameters", "return 11 * n_embd**2 + 12 * n_embd", "One C x C matrix"),
    ("count_block_parameters", "return 8 * n_embd**2 + 9 * n_embd", "matrices of attention"),
    ("count_block_parameters", "return 4 * n_embd**2 + 8 * n_embd", "of the MLP are missing"),
    ("count_block_parameters", "return 6 * n_embd**2 + 10 * n_embd", "up to 4C"),
    ("count_block_parameters", "return 24 * n_embd**2 + 26 * n_embd", "twice"),
    ("count_block_parameters", "return 5 * n_embd**2", "4 C² in attention"),
    ("count_block_parameters", "return 49984", "for every n_embd"),
    ("count_block_parameters", "return 12 * n_embd ^ 2 + 13 * n_embd", "C**2, not C^2"),
    ("count_block_parameters", "return 12 * n_embd**2 + 13 * n_embd + 65", "nothing in it depends"),
    ("count_block_parameters", "x = 12 * n_embd**2", "`return` missing"),
    ("cross_entropy_by_hand", entropy(m="0"), "infinity"),
    ("cross_entropy_by_hand", entropy(m="logits.max()"), "its own m"),
    ("cross_entropy_by_hand", entropy(total="z.exp().sum(dim=0).log()"), "dim=0"),
    ("cross_entropy_by_hand", entropy(m="logits.amax(dim=1)"), "keepdim=True"),
    ("cross_entropy_by_hand", "return [0.0]", "you return [0.0]"),
    (
        "cross_entropy_by_hand",
        "p = logits.softmax(0)\nreturn -p[torch.arange(len(targets)), targets].log().mean()",
        "dim=0",
    ),
    ("cross_entropy_by_hand", entropy(total="z.exp().sum().log()"), "whole table"),
    ("cross_entropy_by_hand", entropy(m="0", total="z.exp().sum().log()"), "whole table"),
    ("cross_entropy_by_hand", entropy(rest="(z.exp().sum(1).log2() - picked).mean()"), "Compare"),
    ("cross_entropy_by_hand", probability("return -p[n, targets].log2().mean()"), "bits"),
    ("cross_entropy_by_hand", probability("return -p[n, targets].log10().mean()"), "log10"),
    ("cross_entropy_by_hand", probability("return p[n, targets].log().mean()"), "sign"),
    ("cross_entropy_by_hand", probability("return -p[n, targets].log().sum()"), "over the rows"),
    ("cross_entropy_by_hand", probability("return -p.log().mean()"), "all V characters"),
    ("cross_entropy_by_hand", probability("return -p[n, targets].mean().log()"), "surprises"),
    ("cross_entropy_by_hand", probability("return p[n, targets].mean()"), "log is missing"),
    ("cross_entropy_by_hand", probability("return -p[n, targets].log()"), "mean is asked"),
    ("cross_entropy_by_hand", probability("return -p[targets].log()"), "whole rows"),
    ("cross_entropy_by_hand", probability("return -p[targets].log().mean()"), "whole rows"),
    ("cross_entropy_by_hand", probability("return -p[:, targets].log().mean()"), "whole rows"),
    ("cross_entropy_by_hand", probability("return -p[n, targets].log().mean()"), "infinity"),
    ("cross_entropy_by_hand", probability("return (-p[n, targets].log()).sum() / p.numel()"), "N"),
    ("cross_entropy_by_hand", probability("return (-p[n, targets].log()).mean().exp()"), "perplex"),
    ("cross_entropy_by_hand", entropy(rest="-picked.mean()"), "first term"),
    (
        "cross_entropy_by_hand",
        entropy(rest="(logits.exp().sum(1).log() - picked).mean()"),
        "m is subtracted from z_y only",
    ),
    (
        "cross_entropy_by_hand",
        "p = (logits - logits.amax(1, keepdim=True)).exp()\np = p / p.sum(1, keepdim=True)\n"
        "return -p[torch.arange(len(targets)), targets].log().mean()",
        "rounds to 0",
    ),
    (
        "cross_entropy_by_hand",
        "p = (logits - logits.amax(1, keepdim=True)).exp()\np = p / p.sum(1, keepdim=True)\n"
        "return -(p[torch.arange(len(targets)), targets] + 1e-9).log().mean()",
        "hides how wrong",
    ),
    ("cross_entropy_by_hand", entropy(m="0", rest="picked.log_softmax(0).mean()"), "Compare"),
    ("cross_entropy_by_hand", "z = logits.exp()", "`return` missing"),
    ("warmup_cosine", cosine("math.pi * x").replace("(step + 1)", "step"), "changes nothing"),
    ("warmup_cosine", cosine("math.pi * x").replace("(warmup_steps + 1)", "w"), "Divide by w + 1"),
    ("warmup_cosine", cosine("math.pi * x").replace("step < w", "False"), "no warm-up"),
    ("warmup_cosine", hill("1.0", before="0.5"), "in the warm-up"),
    ("warmup_cosine", hill("0.5 * (1 + math.cos(math.pi * x))"), "min_ratio is not used"),
    ("warmup_cosine", hill("max(r, 0.5 * (1 + math.cos(math.pi * x)))"), "cut off"),
    ("warmup_cosine", hill("r + 0.5 * (1 + math.cos(math.pi * x))"), "1 - r is missing"),
    ("warmup_cosine", hill("r + (1 - r) * (1 + math.cos(math.pi * x))"), "1/2 is missing"),
    ("warmup_cosine", hill("r + (1 - r) * math.cos(math.pi * x)"), "negative"),
    ("warmup_cosine", hill("1 - (1 - r) * x"), "straight line"),
    ("warmup_cosine", hill("1 - x * x"), "step 250 should give"),
    ("warmup_cosine", cosine("math.pi * x").replace(" / (N", " // (N"), "rounded down by `//`"),
    (
        "warmup_cosine",
        cosine("math.pi * x")
        .replace("(step + 1)", "4e-3 * (step + 1)")
        .replace("return r + (1 - r) * ", "return 4e-3 * (r + (1 - r) * ")
        + ")",
        "0.004 times as high",
    ),
    ("warmup_cosine", cosine("math.pi * step / N"), "counted from step 0"),
    ("warmup_cosine", cosine("math.pi * (step - w) / N"), "never reaches 1"),
    ("warmup_cosine", cosine("x"), "radians"),
    ("warmup_cosine", cosine("180 * x"), "radians"),
    ("warmup_cosine", cosine("2 * math.pi * x"), "whole cosine"),
    ("warmup_cosine", cosine("math.pi * (1 - x)"), "rises instead of falling"),
    ("warmup_cosine", cosine("math.pi * (step - 100) / 900"), "written into your function"),
    ("warmup_cosine", hill("1").replace("return 1", "y = 1"), "`return` missing"),
    (
        "warmup_cosine",
        "if warmup_steps / warmup_steps and step < warmup_steps:\n"
        "    return (step + 1) / (warmup_steps + 1)\n"
        "x = (step - warmup_steps) / (max_steps - warmup_steps)\n"
        "return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * x))",
        "no rise",
    ),
]


@pytest.mark.parametrize(("name", "body", "word"), MISTAKES)
def test_typical_mistake_is_diagnosed(name, body, word):
    passed, said = examine(define(NOTEBOOK, name, function(name, body)))
    assert not passed
    assert said.startswith("✗")
    assert word in said


OTHER_WAYS = [
    ("transformer_block", "h = attention(ln_1(x)) + x\nreturn mlp(ln_2(h)) + h"),
    (
        "loss_without",
        "h = part.register_forward_hook(lambda m, i, out: out * 0)\nwith torch.no_grad():\n"
        "    loss = F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())\n"
        "h.remove()\nreturn loss",
    ),
    ("causal_attention", attention(mask="scores + torch.full_like(scores, -1e9).triu(1)")),
    ("count_block_parameters", "return n_embd * (12 * n_embd + 13)"),
    (
        "cross_entropy_by_hand",
        "return (logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]).mean().item()",
    ),
    ("warmup_cosine", cosine("math.pi - math.pi * (1 - x)")),
]


@pytest.mark.parametrize(("name", "body"), OTHER_WAYS)
def test_another_way_passes_too(name, body):
    passed, said = examine(define(NOTEBOOK, name, function(name, body)))
    assert passed, said
