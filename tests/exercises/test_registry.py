"""The exercises of all notebooks: solutions pass, untouched skeletons are no mistakes."""

import functools
import itertools
import linecache
import warnings

import numpy as np
import pytest
import torch

from tinygpt.exercises import check, examine
from tinygpt.exercises.registry import NotYet
from tinygpt.exercises.tools import is_number
from tinygpt.exercises.words import COLUMNS, ROWS, in_one_line, on_a_screen, shown
from tinygpt.files import ROOT

from .answers import define, skeletons, solutions

EXERCISES = {
    "01_char_tokenizer": (
        "logit_gradient",
        "encode_with_unknown",
        "unigram_entropy",
        "make_windows",
        "unknown_share",
    ),
    "02_dense_tinygpt": (
        "causal_attention",
        "transformer_block",
        "loss_without",
        "count_block_parameters",
        "cross_entropy_by_hand",
        "warmup_cosine",
    ),
    "03_decoding_strategies": ("draw", "sharpen", "keep_top_k", "keep_top_p", "cut_at_stop"),
    "04_moe_gate_experts": ("gate", "top_k_gate", "switch_loss", "biased_step", "drop_mask"),
    "05_comparison_attention_heatmaps": (
        "paired_interval",
        "at_equal_budget",
        "seeds_needed",
        "mean_distance",
    ),
    "06_gpt2_vs_qwen_moe_ptbr": (
        "rotate_pairs",
        "expert_capacity",
        "perplexity_alone",
        "tokens_per_second",
    ),
    "07_sparse_moe_tinystories": ("merge_pair", "text_loss", "start_stack", "load_cv"),
    "08_upcycling_gpt2": ("merge_tiles", "safe_weights", "cut_gated", "stay_clones"),
}


EACH = [(notebook, name) for notebook, names in EXERCISES.items() for name in names]


def path(notebook: str):
    return ROOT / "notebooks" / f"{notebook}.ipynb"


@pytest.mark.parametrize("notebook", EXERCISES)
def test_every_exercise_has_a_skeleton_and_a_solution(notebook):
    found = tuple(solutions(path(notebook))), tuple(skeletons(path(notebook)))
    assert found == (EXERCISES[notebook], EXERCISES[notebook])


@pytest.mark.parametrize(("notebook", "name"), EACH)
def test_solution_passes(notebook, name):
    code = solutions(path(notebook))[name]
    passed, said = examine(define(path(notebook), name, code))
    assert passed, said
    assert said.startswith(f"✓ {name}: right.")


@pytest.mark.parametrize(("notebook", "name"), EACH)
def test_untouched_skeleton_is_no_mistake(notebook, name, capsys):
    define(path(notebook), name, skeletons(path(notebook))[name])
    assert capsys.readouterr().out == f"{name}: not attempted yet (it returns ...)\n"


CELLS = itertools.count()


def learner(*codes, name="make_windows"):
    """A function of the cells of a learner's notebook, whose lines Python can look up."""
    names = {"torch": torch}
    for code in codes:
        file = f"<cell {next(CELLS)}>"
        linecache.cache[file] = len(code), None, code.splitlines(keepends=True), file
        exec(compile(code, file, "exec"), names)
    return names[name]


def windows(line):
    return f"def make_windows(tokens, block_size):\n    {line}\n"


def said_of(answer, capsys):
    """What `check` prints: no line and no text is longer than a screen."""
    check(answer)
    said = capsys.readouterr().out
    assert said.count("\n") <= ROWS
    assert max(map(len, said.splitlines())) <= COLUMNS
    return said


HELPER = "def cut(tokens, size):\n    return tokens.view(-1, size + 0.5)\n"


@pytest.mark.parametrize(
    ("codes", "word"),
    [
        ([windows("return tokens.reshape(7, 7), 0")], "«return tokens.reshape(7, 7), 0»"),
        ([HELPER, windows("return cut(tokens, 3), 0")], "«return tokens.view(-1, size + 0.5)»"),
        ([windows("raise SystemExit(3)")], "stopped with SystemExit: 3, in its line"),
        ([windows("raise KeyboardInterrupt")], "was stopped by hand, in its line «raise Keyb"),
        ([windows("return make_windows(tokens, block_size)")], "RecursionError"),
        (["def make_windows(tokens):\n    return 1, 2\n"], "takes 1 positional argument but 2"),
        ([windows("return 'a', 'b'")], "x should be a tensor, and is 'a'."),
        (
            [windows("return [[1], [2]], 0")],
            "x should be a tensor, and is [[1], [2]]. A list becomes one by torch.tens",
        ),
        ([windows("return (tokens,), 0")], "That is a tuple: is there a comma too many?"),
        ([windows("return 7")], "two tensors are asked"),
        ([windows("raise ValueError")], "stopped with ValueError, in its line «raise ValueError»"),
    ],
)
def test_a_wrong_answer_is_shown_its_own_line_and_none_of_the_package(codes, word, capsys):
    said = said_of(learner(*codes), capsys)
    assert word in " ".join(said.split())
    for ours in (" _windows(", "torch.as_tensor", "answer(", "map(", "expect("):
        assert ours not in said


def test_what_cannot_be_checked_is_shown(capsys):
    code = "def encode_with_unknown(text, alphabet):\n    return [None, 1]\n"
    said = said_of(learner(code, name="encode_with_unknown"), capsys)
    assert "returns [None, 1], which cannot be checked (TypeError" in said


def test_a_number_with_a_gradient_is_read_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_number(torch.ones(1, requires_grad=True).sum()) == 1


@pytest.mark.parametrize("result", ["5", [1.0], np.ones(2), {}, len])
def test_what_is_no_number_is_refused_with_what_it_is(result):
    with pytest.raises(NotYet, match="one number is asked, but you return"):
        is_number(result)
    assert is_number(np.float32(0.5)) == 0.5


def test_an_answer_that_stops_is_told_what_it_was_given(capsys):
    code = (
        "def encode_with_unknown(text, alphabet):\n    return [alphabet.index(c) for c in text]\n"
    )
    said = " ".join(said_of(learner(code, name="encode_with_unknown"), capsys).split())
    assert said.endswith("for c in text]». It was given 'a!b?', ' abc'.")
    said = " ".join(said_of(learner(windows("return tokens.view(7), 0")), capsys).split())
    assert said.endswith("It was given a tensor of shape (10,), 3.")


def test_a_wrong_answer_that_reads_the_notebooks_variables_is_told_so(capsys):
    name, head = "unknown_share", "def unknown_share(text, alphabet):\n"
    told = "Your function reads `T` and `known` from the notebook, not"
    wrong = "    return torch.zeros(2, 3).T.numel() / T + sum(c in known for c in text)\n"
    assert told in said_of(learner("T, known = 8, 'ab'", head + wrong, name=name), capsys)
    own = "def letters(text):\n    return torch.ones(1, len(text) + 1).T\n"
    wrong = "    return letters(text).mean()\n"
    assert "notebook" not in said_of(learner(f"T = 8\n{own}", head + wrong, name=name), capsys)
    right = "    return sum(c not in alphabet for c in text) / (len(text) or T)\n"
    assert examine(learner("T = 8", head + right, name=name))[0]


def test_a_function_of_the_package_is_no_answer_whose_lines_are_shown(capsys):
    from tinygpt.exercises.nb01 import make_windows

    said = said_of(make_windows, capsys)
    assert said.startswith("✗ make_windows stopped with TypeError")
    assert "«" not in said


SPITEFUL = """
class Spite(Exception):
    def __str__(self):
        raise SystemExit("no")
    __repr__ = __str__
"""


@pytest.mark.parametrize("line", ["raise Spite", "return Spite()", "return Spite(), Spite()"])
def test_texts_that_fail_are_left_out(line, capsys):
    assert "Spite" in said_of(learner(SPITEFUL, windows(line)), capsys)


class Unhashable:
    __name__ = property(lambda self: [])
    __wrapped__ = property(lambda self: 1 / 0)


@pytest.mark.parametrize(
    "answer",
    [Unhashable(), Unhashable, 3, None, torch.zeros(99), functools.partial(print, "x" * 10**5)],
    ids=lambda answer: type(answer).__name__,
)
def test_what_is_no_function_is_said(answer, capsys):
    assert said_of(answer, capsys).startswith("check takes a function, as in check(make_windows)")


def test_a_decorated_answer_is_an_answer():
    code = solutions(path("01_char_tokenizer"))["make_windows"]
    names = define(path("01_char_tokenizer"), "make_windows", code).__globals__
    assert examine(torch.no_grad()(names["make_windows"]))[0]
    assert examine(functools.cache(names["make_windows"]))[0]


@pytest.mark.parametrize("text", ["words " * 9000, "x" * 9000, "line\n" * 9000, "9" * 300 + " ab"])
def test_no_message_is_longer_than_a_screen_and_no_word_is_broken(text, capsys):
    said = said_of(learner(f"TEXT = {text!r}", windows("raise ValueError(TEXT)")), capsys)
    words = " ".join(said.split()).split(", in its line")[0].split()
    assert words[:4] == ["✗", "make_windows", "stopped", "with"]
    assert all(word in text.split() or word.endswith("…") for word in words[5:])


def test_words_on_a_screen():
    assert on_a_screen("a b\nc") == "a b\nc"
    assert on_a_screen("ab " * 50).splitlines() == [" ".join(["ab"] * n) for n in (33, 17)]
    assert on_a_screen("x\n" * 99).splitlines() == ["x"] * (ROWS - 1) + ["…"]
    assert in_one_line("one two\nthree", 9) == "one two …"
    assert shown("y" * 10**6).endswith("y…")


def test_an_unknown_name_is_said(capsys):
    assert "There is no exercise called '<lambda>'" in said_of(lambda: None, capsys)
    assert "exercise called 'other'" in said_of(learner("def other(): ...", name="other"), capsys)
