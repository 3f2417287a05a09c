"""The exercises of notebook 07, each with a diagnosis of the usual mistakes.

B batch, T time, E experts, K experts per token, N tokens
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .registry import NotYet, exercise
from .tools import expect, is_number, is_tensor, shown

# tokens, a pair, what becomes of them
MERGES = (
    (["l", "o", "w", "e", "r"], ("l", "o"), ["lo", "w", "e", "r"]),
    (["t", "h", "e", "n", "t", "h"], ("t", "h"), ["th", "e", "n", "th"]),
    (["th", "e", "m", "e"], ("m", "e"), ["th", "e", "me"]),
    (["a", "a", "a", "b"], ("a", "a"), ["aa", "a", "b"]),
    (["a", "a", "a", "a"], ("a", "a"), ["aa", "aa"]),
    (["ab", "c", "a", "bc"], ("a", "b"), ["ab", "c", "a", "bc"]),
    (["a"], ("a", "b"), ["a"]),
    ([], ("a", "b"), []),
)


@exercise
def merge_pair(answer: Callable) -> str:
    for tokens, pair, right in MERGES:
        given = list(tokens)
        got = answer(given, pair)
        expect(given == tokens, f"you changed the list that was given, {tokens}; return a new one.")
        expect(isinstance(got, list), f"a list is asked, but you return {shown(got)}.")
        if got != right:
            _explain_merge(tokens, pair, right, got)
    return (
        "right. From left to right, and what was joined is not joined again in the same step: that "
        "is why `aaa` becomes `aa a`."
    )


def _explain_merge(
    tokens: Sequence[str], pair: tuple[str, str], right: list[str], got: list[str]
) -> None:
    seen = f"Of {tokens} with the pair {pair} you make {got}, it should be {right}: "
    expect("".join(got) == "".join(tokens), seen + "letters were lost, doubled or moved.")
    least = max(map(len, got), default=0) <= max(map(len, right), default=0)
    expect(least, seen + "too much was joined. The pair is two whole tokens.")
    expect(set(got) <= {*tokens, "".join(pair)}, seen + "a token was taken apart again.")
    expect(got != tokens, seen + "nothing was joined.")
    raise NotYet(f"{seen}all places where the pair stands are joined, from left to right.")


@exercise
def text_loss(answer: Callable) -> str:
    end = 9
    targets = torch.tensor(  # the third row was cut: it has no end mark
        [[1, 2, 9, 9, 9, 9], [3, 4, 5, 6, 7, 9], [6, 4, 1, 3, 8, 2], [8, 9, 9, 9, 9, 9]]
    )
    nats = torch.arange(1.0, 25.0).view(4, 6).sqrt()
    given = nats.clone(), targets.clone()
    got = is_number(answer(*given, end))
    expect(not math.isnan(got), "you return nan: is it the mean of nothing, or 0 / 0?")
    expect(torch.equal(given[0], nats), "you changed the losses that were given.")
    expect(torch.equal(given[1], targets), "you changed the targets that were given.")
    pad = targets == end
    first = pad & (pad.cumsum(1) == 1)
    real, rows = ~pad | first, targets.shape[0]
    by_row = (nats * real).sum(1) / real.sum(1)
    place = torch.arange(pad.shape[1]) - pad.int().argmax(1, keepdim=True)  # 0: the first end mark
    whole = pad.any(1)  # the rows that end
    mistakes = [
        (nats.mean(), "all places count, padding too."),
        (
            nats[~pad].mean(),
            "the first end mark of a row is left out. The model must learn to end.",
        ),
        (nats[pad].mean(), "that is the loss of the end marks."),
        ((nats * real).mean(), "padding is zero in the sum, but still counts in the number."),
        (by_row.mean(), "rows have different lengths: a mean of means counts short ones more."),
        ((nats * real).sum(), "that is a sum; a mean is asked."),
        ((nats * real).sum() / rows, "divide by the number of tokens that count, not of rows."),
        (nats[first].mean(), "that is the loss of the first end marks alone."),
        (
            nats[place <= 0].mean(),
            "a row that was cut has no end mark: all of it is text. `argmax` says 0 then.",
        ),
        (nats[whole][real[whole]].mean(), "a row without an end mark is left out; it is all text."),
        (
            nats[~pad | (pad.cumsum(0) == 1)].mean(),
            "the end marks are numbered down the columns; a row is a text: dim=1.",
        ),
    ]
    right = nats[real].mean().item()
    for wrong, why in mistakes:
        expect(math.isclose(got, right, abs_tol=1e-5) or not _near(got, wrong), why)
    expect(math.isclose(got, right, abs_tol=1e-5), f"the loss is {right:.4f}, yours {got:.4f}.")
    return (
        "right. Where padding has an id of its own, `ignore_index` does it all. Where it is the "
        "end mark, one line must tell the mark from the filling."
    )


def _near(got: float, wrong: Tensor) -> bool:
    return math.isclose(got, wrong.item(), abs_tol=1e-5)


@exercise
def start_stack(answer: Callable) -> str:
    E, n_in, n_out = 8, 64, 256
    torch.manual_seed(0)
    stack = is_tensor(answer(E, n_in, n_out)).detach()
    expect(
        stack.shape == (E, n_in, n_out),
        f"the shape ({E}, {n_in}, {n_out}) is asked, but yours is {tuple(stack.shape)}.",
    )
    size, bound, spread = stack.abs().max().item(), 1 / math.sqrt(n_in), stack.std().item()
    expect(size < 10, "`torch.empty` is whatever lay in memory: draw the weights, `uniform_`.")
    expect(spread > 0, "all weights are equal; they must be drawn.")
    mistakes = {
        1 / math.sqrt(n_in * n_out): "as if one matrix with n_in * n_out inputs were drawn. That "
        "is what `kaiming_uniform_` makes of a stack.",
        1 / math.sqrt(n_out): "the fan-in is the size that the product sums over, n_in; that is "
        "1 / √n_out.",
        1 / math.sqrt(E * n_in): "the number of experts is in it. A token meets one matrix at a "
        "time.",
        1 / n_in: "it is 1 / n_in: the square root is missing.",
        1 / math.sqrt(3 * n_in): "it is 1 / √(3 n_in): that is their standard deviation, not the "
        "bound.",
        math.sqrt(3 / n_in): "it is √(3 / n_in): the variance is 1 / n_in then, three times "
        "nn.Linear's.",
        math.sqrt(6 / n_in): "it is √(6 / n_in), the default for ReLU; nn.Linear takes a = √5.",
    }
    for wrong, why in mistakes.items():
        close = math.isclose(size, wrong, rel_tol=0.02)
        expect(not close or math.isclose(size, bound, rel_tol=0.02), f"The largest weight: {why}")
    expect(stack.min().item() < 0, "half of the weights should be negative.")
    expect(size < 3 * spread, "these are drawn from a normal distribution; uniform ones are asked.")
    expect(
        math.isclose(size, bound, rel_tol=0.02),
        f"weights should reach from -{bound:.4f} to {bound:.4f}, yours reach {size:.4f}.",
    )
    expect(
        math.isclose(spread, bound / math.sqrt(3), rel_tol=0.05),
        "within the bounds the weights should be uniform.",
    )
    expect(not torch.equal(stack[0], stack[1]), "all experts are alike; draw each of its own.")
    return (
        "right. The same holds for any stack: for convolutions, for heads kept in one tensor, for "
        "experts. The fan-in is what one product sums over."
    )


@exercise
def load_cv(answer: Callable) -> str:
    E = 6
    experts = torch.tensor([[0, 1], [0, 2], [0, 1], [3, 0], [1, 0], [0, 3], [2, 0], [0, 1]])
    got = is_number(answer(experts.clone(), E))
    counts = torch.bincount(experts.flatten(), minlength=E).double()
    used = counts[counts > 0]
    right = (counts.std(correction=0) / counts.mean()).item()
    mistakes = [
        (
            used.std(correction=0) / used.mean(),
            "experts that got nothing are missing: they are the point. `minlength`.",
        ),
        (
            counts.std() / counts.mean(),
            "the standard deviation is that of a sample. These are all "
            "experts there are: divide by E.",
        ),
        (counts.var(correction=0) / counts.mean(), "that is the variance over the mean."),
        (counts.var(correction=0) / counts.mean() ** 2, "that is its square."),
        (counts.std(correction=0), "divide by the mean, else it depends on the number of tokens."),
        (counts.std(correction=0) / counts.sum(), "divide by the mean count, not by their sum."),
        (counts.max() / counts.mean(), "that is the fullest over the mean."),
        (counts.max() / counts.mean() - 1, "that is how far the fullest is above the mean."),
    ]
    first = torch.bincount(experts[:, 0], minlength=E).double()
    mistakes.append((first.std(correction=0) / first.mean(), "only the first choices count."))
    for wrong, why in mistakes:
        expect(math.isclose(got, right, abs_tol=1e-5) or not _near(got, wrong), why)
    expect(math.isclose(got, right, abs_tol=1e-5), f"the CV is {right:.4f}, yours {got:.4f}.")
    return (
        "right. If one of E experts takes all, it is √(E - 1): for 16 experts 3.87. With two "
        "choices per token, √(E / 2 - 1), 2.65, is the most."
    )
