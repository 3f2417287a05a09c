"""A lesson goes on with what passes its check."""

import torch

from tinygpt.exercises import solved


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
