"""The exercises of all notebooks: solutions pass, untouched skeletons are no mistakes."""

import pytest

from tinygpt.exercises import check, examine
from tinygpt.files import ROOT

from ..tools import define, skeletons, solutions

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
    "03_decoding_strategies": ("sharpen", "keep_top_k", "keep_top_p", "cut_at_stop"),
    "04_moe_gate_experts": ("top_k_gate", "switch_loss", "biased_step", "drop_mask"),
    "05_comparison_attention_heatmaps": (
        "paired_interval",
        "at_equal_budget",
        "seeds_needed",
        "mean_distance",
    ),
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


def test_an_unknown_name_is_said(capsys):
    check(lambda: None)
    assert "There is no exercise called '<lambda>'" in capsys.readouterr().out
