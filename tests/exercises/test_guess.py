"""A guess stands beside the result, whatever the learner has guessed."""

import pytest

from tinygpt.exercises import reveal


@pytest.mark.parametrize(
    ("guess", "result", "unit", "said"),
    [
        (..., 2.4819, "nats", "no guess yet (put one in place of ...); the run: 2.482 nats"),
        (3, 2.4819, "nats", "your guess: 3; the run: 2.482 nats, 0.518 lower. Why?"),
        (2.0, 2.4819, "nats", "your guess: 2; the run: 2.482 nats, 0.482 higher. Why?"),
        (2.45, 2.4819, "nats", "your guess: 2.45; the run: 2.482 nats. Close!"),
        (6, 6, "is best", "your guess: 6; the run: 6 is best. Right!"),
        (" MLP 0", "mlp 0", "", "your guess:  MLP 0; the run: mlp 0. Right!"),
        ("mlp 1", "mlp 0", "", "your guess: mlp 1; the run: mlp 0. Another one: why?"),
        ("about 3", 2.4819, "nats", "your guess: about 3; the run: 2.482 nats"),
        (None, 1.0, "", "your guess: None; the run: 1"),
        (float("nan"), 1.0, "", "your guess: nan; the run: 1, nan higher. Why?"),
    ],
)
def test_a_guess_beside_the_result(guess, result, unit, said, capsys):
    reveal(guess, result, unit)
    assert capsys.readouterr().out == f"{said}\n"


@pytest.mark.parametrize(
    ("guess", "said"),
    [
        (6, "your guess: 6; the run: 6 is best. Right!"),
        ("6", "your guess: 6; the run: 6 is best. Right!"),
        (20, "your guess: 20; the run: 6 is best. Another one: why?"),
        (7, "your guess: 7; the run: 6 is best. Your guess is none of 1, 6, 20."),
        (..., "no guess yet (put one in place of ...); the run: 6 is best"),
    ],
)
def test_a_guess_among_some(guess, said, capsys):
    reveal(guess, 6, "is best", among=(1, 6, 20))
    assert capsys.readouterr().out == f"{said}\n"


def test_a_name_may_be_written_with_a_space(capsys):
    reveal("mlp 0", "MLP-0", among={"MLP-0": 3.2, "MLP-1": 0.1})
    assert capsys.readouterr().out == "your guess: mlp 0; the run: MLP-0. Right!\n"
