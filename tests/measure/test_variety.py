import doctest
import math

import pytest
import torch

from tinygpt.errors import ConfigError
from tinygpt.measure import distinct_n, repetition_rate, valid_word_share, variety, words


def test_docstrings_show_what_comes_out():
    result = doctest.testmod(variety)
    assert result.attempted >= 4
    assert result.failed == 0


def test_words_are_small_and_keep_their_inner_apostrophes():
    assert words("Tis't O'er, 'twas -- ROMEO's 3 Ação\nend") == [
        "tis't",
        "o'er",
        "twas",
        "romeo's",
        "ação",
        "end",
    ]
    assert words("") == words("... 12") == []


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_n_counts_runs_of_words(n):
    assert distinct_n("a b c d e f", n) == 1
    assert distinct_n("go Go GO go go go", n) == 1 / (7 - n)
    assert math.isnan(distinct_n("one " * (n - 1), n))


def test_repetition_marks_only_the_later_of_two_equal_runs():
    line = "the cat sat on the mat. "
    assert repetition_rate("abcdefghijklmnopqrstuvwxyz") == 0
    assert repetition_rate(line + "So " + line, n=20) == len(line) / (2 * len(line) + 3)
    assert repetition_rate("x" * 100, n=10) == pytest.approx(0.99)  # all but the first
    assert repetition_rate("short", n=12) == 0
    assert math.isnan(repetition_rate(""))


@pytest.mark.parametrize("n", [1, 3, 8])
def test_repetition_equals_a_plain_search(n):
    generator = torch.Generator().manual_seed(n)
    text = "".join("ab c"[i] for i in torch.randint(4, (60,), generator=generator))
    repeats = [i for i in range(60 - n + 1) if text[i : i + n] in text[: i + n - 1]]
    covered = {t for i in repeats for t in range(i, i + n)}
    assert repetition_rate(text, n) == pytest.approx(len(covered) / 60)


def test_valid_words_leave_out_one_that_may_be_cut_off():
    known = {"the", "sea", "season"}
    assert valid_word_share("The sea, the seax, the sea", known) == 4 / 5
    assert valid_word_share("The sea.", known) == 1
    assert valid_word_share("the seaso", known) == 1
    assert math.isnan(valid_word_share("seaso", known))


@pytest.mark.parametrize("function", [distinct_n, repetition_rate])
def test_runs_of_nothing_are_refused(function):
    with pytest.raises(ConfigError, match="n=0 must be at least 1"):
        function("to be", 0)
