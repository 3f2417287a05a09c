"""Checks of notebook 02: the block, and the model without one of its parts."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..model import TinyGPT
from .registry import NotYet, exercise
from .tools import expect, is_number, is_tensor

Part = Callable[[Tensor], Tensor]


@exercise
def transformer_block(answer):
    x, parts = _block()
    given = x.clone()
    got = is_tensor(answer(given, *parts))
    right = _right(x, *parts)
    expect(
        got.shape == x.shape,
        f"the result should have the shape of x, {tuple(x.shape)}, but yours is "
        f"{tuple(got.shape)}.",
    )
    if not torch.allclose(got, right, atol=1e-5):
        said = (why for why, wrong in MISTAKES.items() if torch.allclose(got, wrong(x, *parts)))
        raise NotYet(next(said, WRONG))
    expect(
        torch.equal(given, x),
        "the values are right, but the x that was given has changed: `x += ...` writes into the "
        "caller's tensor. `x = x + ...` makes a new one.",
    )
    return "right. GPT-2 is this, twelve times, between an embedding and a head."


WRONG = "the values are wrong. Compare your two lines with the figure: norm, part, add; twice."


def _right(x: Tensor, ln_1: Part, attention: Part, ln_2: Part, mlp: Part) -> Tensor:
    x = x + attention(ln_1(x))
    return x + mlp(ln_2(x))


# Typical mistakes as message -> what is done, for x, ln_1, a (attention), ln_2, m (MLP).
MISTAKES: dict[str, Callable[..., Tensor]] = {
    "Nothing is added: each part replaces what came in. The thick line of the figure goes on "
    "beside the parts: x = x + ...": lambda x, n, a, o, m: m(o(a(n(x)))),
    "The MLP's result replaces the stream. Add it to what attention left there.": (
        lambda x, n, a, o, m: m(o(x + a(n(x))))
    ),
    "Attention's result replaces the stream. Add it to x.": lambda x, n, a, o, m: _add(
        a(n(x)), lambda z: m(o(z))
    ),
    "The norms stand after the sums. That is the block of 2017; GPT-2 has them before the parts, "
    "and nothing but sums on the thick line.": lambda x, n, a, o, m: o(_add(n(_add(x, a)), m)),
    "The norms stand behind the parts. They come before: attention reads ln_1(x), the MLP "
    "ln_2(x).": lambda x, n, a, o, m: _add(_add(x, lambda z: n(a(z))), lambda z: o(m(z))),
    "The second line adds to the x that came in. It should add to what the first line left.": (
        lambda x, n, a, o, m: x + m(o(_add(x, lambda z: a(n(z)))))
    ),
    "[0] takes the first window of the batch, and adds it to all. `Attention` of the package "
    "returns a pair; here each part returns its result alone.": lambda x, n, a, o, m: _add(
        x + a(n(x))[0], lambda z: m(o(z))
    ),
    "The norms are missing: attention should read ln_1(x), the MLP ln_2(x).": (
        lambda x, n, a, o, m: _add(_add(x, a), m)
    ),
    "The first norm is missing: attention should read ln_1(x).": (
        lambda x, n, a, o, m: _add(_add(x, a), lambda z: m(o(z)))
    ),
    "The second norm is missing: the MLP should read ln_2(x).": (
        lambda x, n, a, o, m: _add(_add(x, lambda z: a(n(z))), m)
    ),
    "The results are added to the normed x. Add them to x itself: only the parts read through the "
    "norm.": lambda x, n, a, o, m: _add(o(_add(n(x), a)), m),
    "The MLP reads the x that came in. It should read what attention left: x = x + ... first.": (
        lambda x, n, a, o, m: x + a(n(x)) + m(o(x))
    ),
    "ln_1 is used twice. The MLP has a norm of its own, ln_2.": lambda x, n, a, o, m: _add(
        _add(x, lambda z: a(n(z))), lambda z: m(n(z))
    ),
    "The MLP comes first. Attention gathers, then the MLP works on what was gathered.": (
        lambda x, n, a, o, m: _add(_add(x, lambda z: m(o(z))), lambda z: a(n(z)))
    ),
    "The MLP is missing: there is a second line like the first.": lambda x, n, a, o, m: x + a(n(x)),
    "Attention is missing: it comes first.": lambda x, n, a, o, m: x + m(o(x)),
}


def _add(x: Tensor, part: Part) -> Tensor:
    return x + part(x)


def _block() -> tuple[Tensor, tuple[Part, Part, Part, Part]]:
    """An input (B, T, C), and parts that cannot be taken for one another."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, 8, generator=generator)
    scales = 1 + torch.rand(2, 8, generator=generator)
    A, M = torch.randn(2, 8, 8, generator=generator) / 2
    norms = [lambda z, s=s: F.layer_norm(z, (8,)) * s for s in scales]
    return x, (norms[0], lambda z: z.cumsum(1) @ A, norms[1], lambda z: F.gelu(z @ M))


@exercise
def loss_without(answer):
    model, x, y = _small()
    for name in ("blocks.0.ffn.c_proj", "blocks.1.attn.c_proj"):
        part, before = model.get_submodule(name), copy.deepcopy(model.state_dict())
        truth, mistakes = _ablated(model, name, x, y), _losses(model, name, x, y)
        got = is_number(answer(model, part, x, y))
        expect(
            all(torch.equal(now, before[key]) for key, now in model.state_dict().items()),
            "the weights have changed: the next user of the model gets a broken one. Leave them, "
            "and let a hook give zeros as the part's output.",
        )
        seen = f"without {name} the loss is {truth:.4f}, you return {got:.4f}"
        for value, why in mistakes.items():
            if math.isclose(got, value, abs_tol=1e-5):
                raise NotYet(f"{seen}: {why}.")
        expect(math.isclose(got, truth, abs_tol=1e-4), f"{seen}.")
        expect(
            not part._forward_hooks and not part._forward_pre_hooks,
            "right, but the hook is still on the model, and every later loss is without this part. "
            "register_forward_hook returns a handle: call handle.remove() after the pass.",
        )
    return (
        "right. Zeros are something the later parts have never met; other ablations put the mean "
        "output there, or that of another text."
    )


def _losses(model: TinyGPT, name: str, x: Tensor, y: Tensor) -> dict[float, str]:
    """What typical mistakes give."""
    truth, whole = _ablated(model, name, x, y), model(x, y).lm_loss.item()
    return {
        whole: "the loss of the whole model. What a hook returns takes the output's place; if it "
        "returns nothing, the output stays. A forward hook has three arguments: module, inputs, "
        "output",
        _ablated(model, name, x, y, keep_bias=True): "what comes out when the part's input, or its "
        "weight alone, is zero: its bias is still added. Make the output zero",
        math.exp(truth): "the perplexity. The loss is its logarithm",
        truth - whole: "how much the loss rises. The loss itself is asked",
    }


def _small() -> tuple[TinyGPT, Tensor, Tensor]:
    """A model whose every part matters, and a batch."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        model = TinyGPT(ModelConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    x, y = torch.randint(11, (2, 4, 8), generator=generator)
    return model.eval(), x, y


def _ablated(model: TinyGPT, name: str, x: Tensor, y: Tensor, keep_bias: bool = False) -> float:
    """The loss of a copy in which the weights of one linear layer are zero."""
    copied = copy.deepcopy(model)
    part: nn.Linear = copied.get_submodule(name)
    with torch.no_grad():
        part.weight.zero_()
        if not keep_bias:
            part.bias.zero_()
    return copied(x, y).lm_loss.item()
