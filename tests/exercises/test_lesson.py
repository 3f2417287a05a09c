"""A lesson goes on with what passes its check, and shows a guess beside the result."""

import torch

from tinygpt.exercises import beside, solved


def test_a_lesson_goes_on_with_a_right_answer_and_says_so(capsys):
    def sharpen(p, temperature):
        powers = p ** (1 / temperature)
        return powers / powers.sum()

    assert solved(sharpen)
    assert capsys.readouterr().out == "sharpen passes its check: the notebook goes on with it\n"


def test_a_lesson_goes_on_with_the_solution_otherwise(capsys):
    def sharpen(p, temperature):
        return ...

    assert not solved(sharpen)
    sharpen_wrong = torch.softmax
    assert not solved(sharpen_wrong)
    assert capsys.readouterr().out.count("the notebook goes on with the shown solution") == 2


def test_a_guess_stands_beside_the_result(capsys):
    beside(..., 0.0456789)
    beside(0.2, 0.0456789)
    beside(12, 10)
    beside("greedy", "beam search")
    assert capsys.readouterr().out.splitlines() == [
        "your guess: none yet (write it in place of ...) · this run: 0.0457",
        "your guess: 0.2 · this run: 0.0457 · off by 0.154",
        "your guess: 12 · this run: 10 · off by 2",
        "your guess: greedy · this run: beam search",
    ]
