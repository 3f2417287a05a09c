"""The exercises of notebook 08, each with a diagnosis of the usual mistakes.

T queries, S keys, D head size, E experts, K experts per token, C channels, F feed-forward width, G
parts of a layer
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .registry import exercise
from .tools import expect, is_tensor, short, shown


def _random(*shape: int, seed: int = 8) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


Partial = tuple[Tensor, Tensor, Tensor]  # maximum (T, 1), sum (T, 1), weighted values (T, D)


def partial(scores: Tensor, values: Tensor) -> Partial:
    """What one tile of keys comes to: scores `(T, S)`, values `(S, D)`."""
    m = scores.amax(-1, keepdim=True)
    p = (scores - m).exp()
    return m, p.sum(-1, keepdim=True), p @ values


@exercise
def merge_tiles(answer: Callable) -> str:
    scores, values = 3 * _random(3, 6), _random(6, 2, seed=9)
    scores[0, 3] += 5  # the larger maximum is now in the second tile, below in the first
    scores[1:, 0] += 5
    tiles = [partial(scores[:, part], values[part]) for part in (slice(0, 2), slice(2, 6))]
    given = [t.clone() for t in tiles[0] + tiles[1]]
    got = _three(answer(*tiles))
    same = all(map(torch.equal, tiles[0] + tiles[1], given))
    expect(same, "you changed a tensor that was given: make new ones.")
    m, total, a = partial(scores, values)
    (m1, l1, _), (m2, l2, _) = tiles
    expect(
        torch.allclose(got[0], m),
        f"the new maximum of each row is the larger of the two, {short(m[:, 0])}, but yours is "
        f"{short(got[0].flatten())}.",
    )
    c1, c2 = (m1 - m).exp(), (m2 - m).exp()
    mistakes = [
        (l1 + l2, "the sums were made with two different maxima. Bring each to the new one first."),
        (l1 * c1 + l2, "the second sum, too, was made with a maximum of its own."),
        (l1 + l2 * c2, "the first sum, too, was made with a maximum of its own."),
        (l1 / c1 + l2 / c2, "the factor is exp(old − new): below 1, never above."),
    ]
    for wrong, why in mistakes:
        right_anyway = torch.allclose(got[1], total, rtol=1e-4)
        expect(right_anyway or not torch.allclose(got[1], wrong, rtol=1e-4), why)
    expect(
        torch.allclose(got[1], total, rtol=1e-4),
        f"the sums are {short(total[:, 0])}, but yours are {short(got[1].flatten())}.",
    )
    expect(
        torch.allclose(got[2], a, rtol=1e-4, atol=1e-5)
        or not torch.allclose(got[2], a / total, rtol=1e-4, atol=1e-5),
        "you have divided by the sum already. That comes once, after the last tile.",
    )
    expect(
        torch.allclose(got[2], a, rtol=1e-4, atol=1e-5),
        "the weighted values are wrong: they need the same two factors as the sums.",
    )
    _check_nothing_seen(answer, tiles[0])
    return (
        "right. So tiles may be worked on in any order, and at the same time: a long context is "
        "shared out among the parts of a GPU when one token is written (split-K, flash-decoding)."
    )


def _check_nothing_seen(answer: Callable, seen: Partial) -> None:
    """A tile in which a row sees no key: maximum minus infinity, sum and values 0."""
    m, total, a = seen
    nothing = (torch.full_like(m, -torch.inf), torch.zeros_like(total), torch.zeros_like(a))
    got = _three(answer(seen, nothing))
    expect(
        all(torch.allclose(x, y) for x, y in zip(got, seen, strict=True)),
        "a tile in which a row sees nothing has the maximum −inf and the sum 0. It must change "
        "nothing.",
    )


def _three(result) -> Partial:
    wanted = isinstance(result, (tuple, list)) and len(result) == 3
    expect(wanted, f"maximum, sum and values are asked, but you return {shown(result)}.")
    m, total, a = map(is_tensor, result)
    return m, total, a


@exercise
def safe_weights(answer: Callable) -> str:
    logits, experts = _random(5, 4), torch.tensor([[1, 3], [0, 2], [3, 2], [2, 1], [0, 3]])
    leaf = logits.clone().requires_grad_()
    got = is_tensor(answer(leaf, experts))
    expect(got.shape == (5, 2), f"a weight for each choice, shape (5, 2), not {tuple(got.shape)}.")
    p = logits.softmax(-1).gather(-1, experts)
    right = p / p.sum(-1, keepdim=True)
    expect(
        torch.allclose(got, right, atol=1e-6) or not torch.allclose(got, p, atol=1e-6),
        "these are the probabilities: their sum is below 1, so the layer says less than before.",
    )
    expect(
        torch.allclose(got, right, atol=1e-5),
        f"the weights of the first token are {short(right[0])}, but yours {short(got[0])}.",
    )
    expect(got.requires_grad, "no gradient comes through: something was detached that should not.")
    slope = torch.autograd.grad(got.sum(), leaf, retain_graph=True)[0].abs().max().item()
    expect(
        slope > 1e-3,
        "the values are right, but the gradient of their sum is 0: a constant sum teaches the "
        "router nothing as long as the experts are equal. The sum below the line must be detached.",
    )
    q = logits.clone().requires_grad_()
    chosen = q.softmax(-1).gather(-1, experts)
    (chosen / chosen.sum(-1, keepdim=True).detach()).sum().backward()
    expect(
        torch.allclose(torch.autograd.grad(got.sum(), leaf)[0], q.grad, atol=1e-5),
        "the values are right, the gradient is not: detach the sum, and nothing else.",
    )
    _check_underflow(answer)
    return (
        "right. In logarithms the numbers stay moderate. It happens in practice: biases that even "
        "the load out may send a token to an expert whose probability is 0 in float32."
    )


def _check_underflow(answer: Callable) -> None:
    """Experts that were chosen though their probabilities are 0, in float64, too."""
    logits, experts = torch.tensor([[0.0, -1000.0, -1001.0]]), torch.tensor([[1, 2]])
    got = is_tensor(answer(logits.requires_grad_(), experts))
    right = torch.tensor([[0.731059, 0.268941]])  # e / (1 + e) and 1 / (1 + e)
    expect(
        bool(got.isfinite().all()),
        f"for the logits 0, −1000, −1001 and the experts 1 and 2 the weights are "
        f"{short(right[0])}, but yours {short(got[0])}: both probabilities are 0 in float32, and "
        f"in float64, too, and 0 / 0 is NaN. Stay in logarithms until the end.",
    )
    expect(
        torch.allclose(got, right, atol=1e-3),  # near 1000 a float32 is rounded to 6e-5
        f"for the logits 0, −1000, −1001 and the experts 1 and 2 the weights are "
        f"{short(right[0])}, but yours {short(got[0])}.",
    )


@exercise
def cut_gated(answer: Callable) -> str:
    G, F, C = 3, 6, 5
    w_in, w_out, x = _random(2 * F, C), _random(C, F, seed=9), _random(5, C, seed=10)

    def swiglu(first: Tensor, second: Tensor) -> Tensor:
        gate, value = (x @ first.T).chunk(2, -1)
        return (torch.nn.functional.silu(gate) * value) @ second.T

    ups, downs = _pair(answer(w_in.clone(), w_out.clone(), G))
    shapes = (G, 2 * F // G, C), (G, C, F // G)
    expect(
        (ups.shape, downs.shape) == shapes,
        f"for C = 5, F = 6 and G = 3 the shapes are {shapes[0]} and {shapes[1]}, but yours are "
        f"{tuple(ups.shape)} and {tuple(downs.shape)}.",
    )
    expect(
        not torch.equal(ups, w_in.view(G, 2 * F // G, C)),
        "you cut the stack of gate over value into G pieces, so a part's gate is multiplied with "
        "another gate. It runs, and says something else. Cut gate and value each for itself.",
    )
    expect(
        not torch.equal(downs, w_out.view(G, C, F // G)),
        "w_out is cut by its *columns*, one for each hidden unit; a plain view cuts it by rows.",
    )
    total = sum(swiglu(up, down) for up, down in zip(ups, downs, strict=True))
    expect(
        torch.allclose(total, swiglu(w_in, w_out), atol=1e-4),
        "the parts do not add up to the layer. Part g needs the rows g F/G to (g+1) F/G of the "
        "gate, the same rows of the value, and the same columns of w_out.",
    )
    return (
        "right. A hidden unit is a row of the gate, a row of the value and a column of w_out: "
        "these three stay together. Which units share a part is free; the sum does not mind."
    )


def _pair(result) -> tuple[Tensor, Tensor]:
    wanted = isinstance(result, (tuple, list)) and len(result) == 2
    expect(wanted, f"two stacks are asked, but you return {shown(result)}.")
    first, second = map(is_tensor, result)
    return first, second


# rows of a router, experts per token, whether copies stay clones, what each case is
TWO = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, -1.0]])
CASES = [
    (torch.zeros(4, 2), 4, True, "all four experts, and a router of zeros"),
    (torch.ones(4, 2), 4, True, "all four experts, and a router whose rows are equal but not 0"),
    (TWO, 4, False, "all four experts, with different weights"),
    (TWO, 1, False, "one of four experts"),
    (TWO, 2, False, "two of four experts"),
    (torch.zeros(4, 2), 2, False, "two of four experts, and a router of zeros"),
    (torch.zeros(4, 2), 1, False, "one of four experts, and a router of zeros"),
    (torch.tensor([[1.0, 2.0]] * 3 + [[1.0, 2.5]]), 4, False, "all four, one row another"),
    (torch.tensor([[1.0, 2.0]] * 4), 4, True, "all four, equal rows"),
    (torch.tensor([[1.0, 2.0]] * 3), 3, True, "all three of three, equal rows"),
    (torch.tensor([[1.0, 2.0]] * 6), 4, False, "four of six, equal rows"),
]
WHY = {
    True: "every expert gets the same tokens with the same weight, so the same gradient, for ever",
    False: "some experts get other tokens, or the same with other weights, so other gradients",
}


@exercise
def stay_clones(answer: Callable) -> str:
    for rows, top_k, right, case in CASES:
        got = answer(rows.clone(), top_k)
        expect(got is not None, "the function returns None: is a `return` missing?")
        if isinstance(got, Tensor):
            expect(got.numel() == 1, f"one answer is asked, but you return {shown(got)}.")
        expect(
            bool(got) == right,
            f"{case}: copies {'stay clones' if right else 'move apart'}, since {WHY[right]}. You "
            f"return {bool(got)}.",
        )
    return (
        "right. It is the one case in which all of them do. With fewer than all, ties are broken "
        "by number, so even a router of zeros gives some experts tokens and others none."
    )
