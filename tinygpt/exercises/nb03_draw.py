"""The check of the draw that is written in notebook 03."""

import torch

from .registry import NotYet, exercise
from .tools import expect, short, shown


@exercise
def draw(answer):
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 0.5])
    given = logits.clone()
    got = _drawn(answer, given)
    expect(torch.equal(given, logits), "your function changed the logits it was given.")
    expect(
        len(set(got)) > 1,
        f"{len(got)} draws all give {got[0]}. "
        + (
            "That is the most probable character each time: greedy, no chance in it."
            if got[0] == 0
            else "Is the generator set to the same seed in each call?"
        ),
    )
    expect(
        got == _drawn(answer, logits.clone()),
        "two generators with the same seed give different draws. Chance must come from `generator` "
        "alone: pass it on, `generator=generator`, or no text can be written twice.",
    )
    mistakes = {
        "The random times are multiplied. They are divided by the probability, so that a probable "
        "character rings early: p / E is what is largest.": lambda p, z, e: (p * e).argmax(),
        "You divide the logits. It is their softmax, the probabilities, that is divided by the "
        "times.": lambda p, z, e: (z / e).argmax(),
        "You take the one that rings last: p / E is largest, not smallest, for the first.": (
            lambda p, z, e: (p / e).argmin()
        ),
        "The probabilities are not in it: all characters come equally often.": (
            lambda p, z, e: (1 / e).argmax()
        ),
    }
    for why, rule in mistakes.items():
        if got == _by_rule(rule, logits):
            raise NotYet(f"the first draws are {got[:8]}. {why}")
    right = _by_rule(lambda p, z, e: (p / e).argmax(), logits)
    shares = torch.bincount(torch.tensor(got), minlength=5) / len(got)
    p = logits.softmax(0)
    if got != right and bool(((shares - p).abs() < 0.07).all()):
        raise NotYet(
            "the characters come as often as they should, but not the same ones as from "
            "`torch.multinomial` with this generator, which the notebook compares with draw by "
            "draw. Take one exponential time for each character, in one tensor of float32."
        )
    expect(
        got == right,
        f"of {len(got)} draws the characters should have about {short(p)}, and yours have "
        f"{short(shares)}. The times are exponential ones: "
        f"`torch.empty(len(logits)).exponential_(generator=generator)`.",
    )
    return "right. Draw by draw it is what `torch.multinomial` gives, and the package's sampling."


def _drawn(answer, logits: torch.Tensor, n: int = 400) -> list[int]:
    generator, drawn = torch.Generator().manual_seed(3), []
    for _ in range(n):
        got = answer(logits, generator)
        expect(
            isinstance(got, int),
            f"one id is asked, a whole number of Python, but you return {shown(got)}. "
            f"`.argmax()` says which place is the largest, `.item()` makes a number of it.",
        )
        expect(0 <= got < len(logits), f"there are ids 0 to {len(logits) - 1}, you return {got}.")
        drawn.append(got)
    return drawn


def _by_rule(rule, logits: torch.Tensor, n: int = 400) -> list[int]:
    """Draws by a rule of probabilities, logits and exponential times."""
    generator, p = torch.Generator().manual_seed(3), logits.softmax(0)
    times = (torch.empty(len(p)).exponential_(generator=generator) for _ in range(n))
    return [int(rule(p, logits, e)) for e in times]
