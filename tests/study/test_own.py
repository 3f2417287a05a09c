"""Runs of anybody's own."""

from dataclasses import replace

import pandas as pd
import pytest

from tinygpt import MetricsLogger, MoEConfig, TinyGPT, TrainConfig, Trainer, load_run, seed_all
from tinygpt.corpora import load_corpus
from tinygpt.errors import CheckpointError, ConfigError
from tinygpt.measure import evaluate
from tinygpt.study import compare_runs
from tinygpt.training import Run

TRAIN = TrainConfig(max_steps=4, batch_size=2, warmup_steps=1, eval_interval=2, max_eval_tokens=64)


@pytest.fixture
def trained(tmp_path, corpus, small):
    """A run of few updates, by name."""

    def train(name: str, seed: int = 1, text=corpus, moe: MoEConfig | None = None, **train) -> str:
        seed_all(seed)
        model = TinyGPT(replace(small, moe=moe, vocab_size=text.tokenizer.vocab_size))
        folder = tmp_path / name
        Trainer(model, text, replace(TRAIN, seed=seed, **train), folder).fit(progress=False)
        return str(folder)

    return train


def test_runs_that_differ_in_their_seed_form_an_arm(trained, corpus, capsys):
    dense = [trained(f"dense-{seed}", seed, lr=1e-9) for seed in (1, 2, 3)]
    others = [trained(f"moe-{seed}", seed, moe=MoEConfig(), lr=1e-2) for seed in (4, 5)]
    arms, differences = compare_runs([*dense, *others])
    assert [(row["arm"], row["runs"]) for row in arms.rows] == [(dense[0], 3), (others[0], 2)]
    losses = [evaluate(load_run(name), corpus.val) for name in dense]
    assert arms.rows[0]["loss"] == pytest.approx(sum(losses) / 3)
    assert f"{dense[0]}: {dense[0]} (seed 1) {losses[0]:.4f}, {dense[1]} (seed 2)" in str(arms)
    assert "moe=null, lr=1e-09" in str(arms)
    assert "moe.n_experts=4, moe.top_k=1, lr=0.01" in str(arms)
    assert "one run" not in str(arms)
    (row,) = differences.rows
    assert row["difference"] == pytest.approx(arms.rows[0]["loss"] - arms.rows[1]["loss"])
    assert f"{others[0]} is better than {dense[0]}: by " in str(differences)
    assert "3 and 2 seeds" in str(differences)
    assert capsys.readouterr().out == ""  # nothing was measured anew


def test_what_changes_nothing_makes_no_arm_of_its_own(trained):
    runs = [trained("a", 1), trained("b", 2, keep_last=1, activation_checkpointing=True)]
    assert len(compare_runs(runs)[0].rows) == 1


def test_a_single_run_of_an_arm_gets_no_interval(trained):
    (report,) = compare_runs([trained("a", 1), trained("b", 1, lr=0.1)])
    assert "there is one run, and one run has no interval" in str(report)


def test_a_loss_that_the_log_does_not_have_is_measured(trained, corpus, capsys):
    name = trained("a")
    whole = MetricsLogger(Run.open(name).log).frame()["whole_val_lm_loss"].dropna()
    Run.open(name).log.unlink()
    (report,) = compare_runs([name])
    assert "a: its log has no loss of the whole split" in capsys.readouterr().out
    assert report.rows[0]["loss"] == pytest.approx(whole.min(), abs=0.01)
    assert report.rows[0]["loss"] == pytest.approx(evaluate(load_run(name), corpus.val))


def test_the_loss_is_that_of_the_weights_that_are_compared(trained, corpus):
    """Also where the log has a lower one: of an easier part, read before the run was resumed."""
    run = Run.open(trained("a"))
    saved, log = run.load("best"), pd.read_csv(run.log)
    other = log["step"] != saved.state["step"]
    log.loc[other, ["val_lm_loss", "whole_val_lm_loss"]] = 0.5
    log.to_csv(run.log, index=False)
    (report,) = compare_runs([str(run.folder)])
    assert report.rows[0]["loss"] == pytest.approx(evaluate(saved.model, corpus.val))


def test_a_text_that_is_another_by_now_is_refused(trained, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("to be or not to be\n" * 60, encoding="utf-8")
    name = trained("a", text=load_corpus(f"file:{path}"))
    path.write_text("to be or not to bo\n" * 60, encoding="utf-8")
    compare_runs([name])  # the log knows
    Run.open(name).log.unlink()
    with pytest.raises(ConfigError, match="was trained on another text than file:"):
        compare_runs([name])


def test_what_cannot_be_compared(trained, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("to be or not to be\n" * 60, encoding="utf-8")
    first = trained("a")
    with pytest.raises(ConfigError, match="on several texts"):
        compare_runs([first, trained("b", text=load_corpus(f"file:{path}"))])
    with pytest.raises(ConfigError, match="same settings and seed=1: that is one run, made twice"):
        compare_runs([first, trained("c")])
    for again in (first, f"{first}/../a"):
        (report,) = compare_runs([first, again])
        assert [row["runs"] for row in report.rows] == [1]
    with pytest.raises(CheckpointError, match="no run"):
        compare_runs([str(tmp_path / "nowhere")])
