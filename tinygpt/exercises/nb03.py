"""Checks of notebook 03."""

from itertools import accumulate, combinations_with_replacement

import torch

from .registry import NotYet, exercise
from .tools import expect, is_tensor, short, shown

# all ways to write ten as a sum of 2 to 5 numbers, the largest first
TENTHS = [
    parts
    for n in (2, 3, 4, 5)
    for parts in combinations_with_replacement(range(9, 0, -1), n)
    if sum(parts) == 10
]


@exercise
def sharpen(answer):
    p = torch.tensor([0.5, 0.25, 0.25, 0.0])
    given = p.clone()
    got = _distribution(answer(given, 0.5), p)
    expect(
        torch.equal(given, p),
        "your function changed the tensor it was given (an operation in place, such as **= or /=, "
        "does that). Make a new one, or the caller's distribution is lost.",
    )
    of_probabilities = (
        "where a character with probability 0 can suddenly come. That is a softmax of "
        "probabilities; a softmax takes logits, and log p is one"
    )
    mistakes = [
        (
            p.sqrt() / p.sqrt().sum(),
            "which is what T = 2 gives: flatter, not sharper. p to the power T has it upside "
            "down; the logits are divided by T",
        ),
        (
            p,
            "which is p again. When all are divided by the same number, normalising takes that "
            "back. It is the logits, log p, that are divided by T",
        ),
        (p**2, "which add up to 0.375. A distribution adds up to 1: divide by the sum"),
        (
            p / 0.5,
            "which add up to 2. It is the logits, log p, that are divided by T; then a softmax "
            "makes a distribution of them",
        ),
        (p * 0.5, "which add up to 0.5. It is the logits, log p, that are divided by T"),
        ((p / 0.5).softmax(0), of_probabilities),
        ((p * 0.5).softmax(0), of_probabilities),
        (p.softmax(0), of_probabilities),
        (
            torch.tensor([1.0, 0.0, 0.0, 0.0]),
            "which is what temperature 0 gives. At 0.5 the others keep a chance",
        ),
    ]
    for values, why in mistakes:
        if torch.allclose(got, values, atol=1e-3):
            raise NotYet(f"T = 0.5 turns {short(p)} into {short(got)}, {why}.")
    expect(
        not bool((got < 0).any()),
        f"T = 0.5 turns {short(p)} into {short(got)}. Some are negative: are these logits? "
        f"Probabilities are asked, so a softmax is missing.",
    )
    expect(
        not bool(got.isnan().any()),
        f"T = 0.5 turns {short(p)} into {short(got)}: nan, not a number. Is 0 times minus infinity "
        f"in it?",
    )
    truth = torch.tensor([2 / 3, 1 / 6, 1 / 6, 0.0])
    expect(
        torch.allclose(got, truth, atol=1e-4),
        f"T = 0.5 should turn {short(p)} into {short(truth)}: the first was twice as probable as "
        f"the second and becomes four times as probable. You return {short(got)}.",
    )
    flat = _distribution(answer(p.clone(), 2.0), p)
    truth = p.sqrt() / p.sqrt().sum()
    expect(
        torch.allclose(flat, truth, atol=1e-4),
        f"T = 0.5 is right, but T = 2 should turn {short(p)} into {short(truth)}; you return "
        f"{short(flat)}.",
    )
    return "right. So a temperature can be set even where a service gives only probabilities."


@exercise
def keep_top_k(answer):
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.5], [0.0, -1.0, 4.0, 2.0]])
    got = _filtered(answer, logits, 2)
    kept = _kept(got)
    expect(
        kept[0] != [0, 3],
        f"the logits {short(logits[0])} with k = 2 keep places {kept[0]}: the smallest. The k "
        f"most probable stay.",
    )
    expect(
        sum(map(len, kept)) != 2,
        f"two rows with k = 2 keep {kept}: k in the whole batch. Each row is a text of its own and "
        f"keeps its own k; work along the last dimension.",
    )
    expect(
        kept == [[1, 2], [2, 3]],
        f"the rows {short(logits[0])} and {short(logits[1])} with k = 2 should keep places [1, 2] "
        f"and [2, 3]; yours keep {kept[0]} and {kept[1]}.",
    )
    expect(
        torch.equal(got[got.isfinite()], logits[got.isfinite()]),
        f"what stays must keep its logit; {short(logits.flatten())} became {short(got.flatten())}.",
    )
    tied = torch.tensor([[1.0, 2.0, 2.0, 2.0, 3.0]])
    kept = _kept(_filtered(answer, tied, 3))[0]
    expect(
        len(kept) <= 3,
        f"the logits {short(tied[0])} with k = 3 keep {len(kept)} characters, at places {kept}. "
        f"The third largest is 2, and a comparison with 2 lets all its equals in. Exactly k stay.",
    )
    expect(
        len(kept) == 3,
        f"the logits {short(tied[0])} with k = 3 keep only places {kept}. Equal ones were dropped "
        f"together. Exactly k stay.",
    )
    for logits, right in ((tied, [1, 2, 4]), (torch.zeros(1, 65), [0, 1, 2])):
        kept = _kept(_filtered(answer, logits, 3))[0]
        name = short(logits[0]) if logits.shape[1] < 9 else "65 equal logits"
        expect(
            kept == right,
            f"{name} with k = 3 should keep places {right}: of equal logits the first. Yours keeps "
            f"{kept}. (`topk` promises no order among equals; a stable sort does.)",
        )
    try:
        kept = _kept(_filtered(answer, tied, 9))[0]
    except (RuntimeError, IndexError) as error:
        raise NotYet(
            f"k = 9 with 5 characters stops with an error ({error}); it keeps all 5."
        ) from (error)
    expect(len(kept) == 5, f"k = 9 with 5 characters should keep all 5; yours keeps {kept}.")
    return "right. With a plain threshold, 65 equal logits and k = 3 would keep all 65."


@exercise
def keep_top_p(answer):
    p = torch.tensor([[0.125, 0.375, 0.125, 0.25, 0.125]])
    logits = p.log()
    got = _filtered(answer, logits, 0.6)
    kept = _kept(got)[0]
    text = f"probabilities {short(p[0])} and p = 0.6"
    mistakes = {
        (): "nothing. At least one character has to be left",
        (1,): "only place 1, which has 0.375. That is not yet 0.6: the character that crosses p "
        "stays too",
        (
            0,
            1,
        ): "places 0 and 1, the first two. You have a mask for the sorted probabilities; bring "
        "it back to the characters' places (scatter) before you apply it",
        (0, 2, 3, 4): "all but place 1, the most probable. Sort in descending order",
        (0, 2, 4): "just what should be cut. Your mask marks what stays: turn it round, ~stay",
        (0, 1, 2, 3, 4): "all of them. The sum is over probabilities (the logits need a softmax), "
        "and along the row (dim=-1)",
    }
    if tuple(kept) in mistakes:
        raise NotYet(f"with {text} you keep {mistakes[tuple(kept)]}.")
    expect(
        not (len(kept) == 3 and {1, 3} < set(kept)),
        f"with {text} you keep places {kept}: one too many. Places 1 and 3 have 0.625, which is "
        f"enough.",
    )
    expect(kept == [1, 3], f"with {text} places 1 and 3 should stay; you keep {kept}.")
    expect(
        torch.allclose(got[0, [1, 3]], logits[0, [1, 3]]),
        f"places 1 and 3 stay, but with other logits: {short(got[0])} instead of "
        f"{short(logits[0])}. What stays must not change.",
    )
    moved = _filtered(answer, logits - 5, 0.6)
    expect(
        _kept(moved)[0] == kept,
        f"adding a number to all logits must not change what stays, since it does not change the "
        f"probabilities. With 5 less you keep {_kept(moved)[0]} instead of {kept}: is a softmax "
        f"missing?",
    )
    expect(
        torch.allclose(moved[0, [1, 3]], logits[0, [1, 3]] - 5),
        f"what stays must not change, but the logits {short(logits[0] - 5)} became "
        f"{short(moved[0])}. The filter removes characters and leaves the others as they are.",
    )
    exact = _kept(_filtered(answer, torch.zeros(1, 4), 0.5))[0]
    expect(
        len(exact) == 2,
        f"of four equal characters two have exactly 0.5, so with p = 0.5 two stay; you keep "
        f"{len(exact)}. A character stays if the sum before it is still below p.",
    )
    small = _kept(_filtered(answer, logits, 0.1))[0]
    expect(
        small == [1],
        f"with probabilities {short(p[0])} and p = 0.1 the most probable one crosses p and stays; "
        f"you keep {small or 'nothing'}. At least one character has to be left.",
    )
    _expect_rows_alone(answer, logits)
    _expect_equal_is_enough(answer)
    return "right. In one context it keeps one character, in another twenty: the model decides."


def _expect_rows_alone(answer, logits: torch.Tensor) -> None:
    batch = torch.cat(
        [logits, torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 0.0, 9.0, 0.0, 1.0]])]
    )
    together = _kept(_filtered(answer, batch, 0.6))
    alone = [_kept(_filtered(answer, row[None], 0.6))[0] for row in batch]
    expect(
        together == alone,
        f"three rows together keep {together}, each alone {alone}. A row must not depend on the "
        f"others: sum along the last dimension.",
    )


def _expect_equal_is_enough(answer) -> None:
    """Probabilities of whole tenths, and for p each sum of the first: in float32 just beside it."""
    for tenths in TENTHS:
        logits = (torch.tensor([tenths]) / 10).log()
        for n, total in enumerate(accumulate(tenths[:-1]), start=1):
            kept = len(_kept(_filtered(answer, logits, total / 10))[0])
            expect(
                kept == n,
                f"with probabilities {[t / 10 for t in tenths]} and p = {total / 10} the largest "
                f"{n} make p, and no more should stay; you keep {kept}. In float32 such a sum is a "
                f"little more or less: let one that equals p but for rounding be enough, as in "
                f"`top_p`.",
            )


@exercise
def cut_at_stop(answer):
    got = _text(answer(iter("one. two. three"), ". "))
    mistakes = {
        "one. ": "The stop sequence itself is not part of the text.",
        "one. two": "That is the last place where the stop sequence stands; writing ends at the "
        "first.",
        "one.": "Only a part of the stop sequence was cut off.",
        "one. two. three": "The stop sequence was not noticed.",
        "": "Everything is gone.",
    }
    expect(
        got == "one",
        f"'one. two. three' with the stop sequence '. ' should give 'one', but you return {got!r}. "
        f"{mistakes.get(got, 'Compare the end of what has been read so far with it.')}",
    )
    got = _text(answer(iter("abba-ab-"), "ab-"))
    expect(
        got == "abba-",
        f"'abba-ab-' with the stop sequence 'ab-' should give 'abba-', but you return {got!r}. "
        + (
            "The text ends with it, and it was not noticed: compare after the character is added, "
            "not before."
            if got == "abba-ab-"
            else "(`strip` and `rstrip` remove a set of characters, not a sequence.)"
        ),
    )
    for text, stop in (
        ("aab, and", "ab"),
        ("aaab, and", "aab"),
        ("\n\n\nQ, and", "\n\nQ"),
        ("ababac, and", "abac"),
        ("abb-ab-, and", "ab-"),
    ):
        got, right = _text(answer(iter(text), stop)), text[: text.index(stop)]
        expect(
            got == right,
            f"{text!r} with the stop sequence {stop!r} should give {right!r}, but you return "
            f"{got!r}. A counter of matching characters has to know, after a mismatch, how much of "
            f"the stop sequence may have begun before: compare the end of the text instead.",
        )
    got = _text(answer(iter("no, no"), "!"))
    expect(
        got == "no, no",
        f"'no, no' has no '!' in it, so all of it is the text; you return {got!r}.",
    )
    characters = iter("one. two. three")
    answer(characters, ". ")
    rest = "".join(characters)
    expect(
        rest == "two. three",
        f"the text is right, but you read {'to the end' if not rest else 'too far'}: of "
        f"'one. two. three' there should be 'two. three' left, and there is {rest!r}. Each "
        f"character costs a pass through the model: stop as soon as the stop sequence is there.",
    )
    return "right. `stream` does this, and holds back what may become a stop sequence."


def _distribution(result, like: torch.Tensor) -> torch.Tensor:
    result = is_tensor(result)
    expect(
        result.shape == like.shape,
        f"{len(like)} probabilities are asked, but you return a tensor of shape "
        f"{tuple(result.shape)}.",
    )
    return result.float()


def _filtered(answer, logits: torch.Tensor, value: float) -> torch.Tensor:
    """What the answer makes of logits `(B, V)`: other logits of that shape, with some at -inf."""
    given = logits.clone()
    got = is_tensor(answer(given, value))
    expect(
        torch.equal(given, logits),
        "your function changed the logits it was given. Make new ones (clone, masked_fill, "
        "torch.where): the next filter, or the caller, still needs the old.",
    )
    expect(
        got.shape == logits.shape,
        f"logits of shape {tuple(logits.shape)} should give logits of the same shape, but yours "
        f"have {tuple(got.shape)}. Every character keeps its place; what is cut becomes -inf.",
    )
    expect(
        got.is_floating_point() and not bool(got.isnan().any()),
        f"logits are asked, with -inf for what is cut; you return {shown(got)}.",
    )
    expect(
        not bool(((got == 0) & (logits != 0)).any()),
        "what is cut has the logit 0 in your result. 0 is a logit like others: after the softmax "
        "it has a probability above 0. What is cut must become minus infinity.",
    )
    return got


def _kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


def _text(result) -> str:
    if not isinstance(result, str):
        raise NotYet(f"a text is asked, but you return {shown(result)}.")
    return result
