import json
import math
from dataclasses import replace
from itertools import combinations

import pandas as pd
import pytest

from tinygpt import TrainConfig
from tinygpt.benchmark import Report
from tinygpt.errors import ConfigError
from tinygpt.files import ROOT, locked

# the module: the package's attribute of this name is the function
from tinygpt.benchmark.time_to_loss import (  # isort: skip
    ARMS,
    COLUMNS,
    GOAL,
    MOST,
    FIRST_SEED,
    UPDATES,
    Arm,
    next_updates,
    read_runs,
    report_of,
    seconds_to_goal,
    time_to_loss,
)


TWO = range(FIRST_SEED, FIRST_SEED + 2)


def rows(losses: dict[int, list[float]], arm: str = "speedrun", seconds: float = 0.01):
    return [
        {"arm": arm, "updates": n, "seed": seed, "loss": loss, "seconds": n * seconds}
        | {"recipe": ARMS[arm].fingerprint, "parameters": 5, "device": "cpu", "processor": "a"}
        for n, values in losses.items()
        for seed, loss in enumerate(values, start=FIRST_SEED)
    ]


def test_a_recipe_is_trained_until_its_mean_is_known_on_both_sides_of_the_goal():
    near, over, under = UPDATES, round(1.5 * UPDATES), round(UPDATES / 1.5)
    high, low = [GOAL + 0.1] * 2, [GOAL - 0.1] * 2
    mixed = [GOAL - 0.2, GOAL + 0.1]  # the mean counts
    assert next_updates("speedrun", [], TWO) == near
    assert next_updates("speedrun", rows({near: high[:1]}), TWO) == near  # a seed is missing
    assert next_updates("speedrun", rows({near: high}, "GELU"), TWO) == near  # somebody else's
    assert next_updates("speedrun", rows({near: high}), TWO) == over
    assert next_updates("speedrun", rows({near: mixed}), TWO) == under
    assert next_updates("speedrun", rows({near: high, over: low}), TWO) is None
    assert next_updates("speedrun", rows({near: low, under: high}), TWO) is None
    assert next_updates("speedrun", rows({near: high, MOST: high}), TWO) is None  # gave up
    assert next_updates("nanogpt-cpu", [], TWO) == 2000
    assert next_updates("nanogpt-cpu", rows({2000: high}, "nanogpt-cpu"), TWO) is None


def test_changes_are_those_from_the_same_seed():
    """Seeds that differ by far, and a recipe that is worse by 0.01 with each."""
    seeds = [1.7, 1.9, 1.8]
    worse = [loss + more for loss, more in zip(seeds, (0.01, 0.011, 0.009), strict=True)]
    found = rows({UPDATES: seeds}) + list(reversed(rows({UPDATES: worse}, "GELU")))
    base, other = report_of(found).rows
    assert math.isnan(base["change"])
    assert other["change"] == pytest.approx(0.01)
    assert other["half_interval"] < 0.003


def test_a_recipe_is_one_of_many():
    """The chances of three are multiplied by 3, 2 and 1; the base asks no question."""
    found = rows({UPDATES: [1.7, 1.9, 1.8]})
    for name, losses in {
        "GELU": [1.71, 1.911, 1.809],
        "ReLU²": [1.70, 1.88, 1.77],
        "LayerNorm": [1.71, 1.93, 1.82],
    }.items():
        found += rows({UPDATES: losses}, name)
    base, *others = report_of(found).rows
    assert math.isnan(base["p_holm"])
    first, second, third = sorted(others, key=lambda row: row["p"])
    assert first["p_holm"] == pytest.approx(3 * first["p"])
    assert second["p_holm"] == pytest.approx(2 * second["p"])
    assert third["p_holm"] == pytest.approx(max(third["p"], second["p_holm"]))


def test_seconds_to_the_goal_lie_where_a_loss_that_falls_with_the_logarithm_meets_it():
    law = {n: [3.0 - 0.2 * math.log(n)] * 3 for n in (200, 300, 450)}
    meets = math.exp((3.0 - GOAL) / 0.2)
    assert 200 < meets < 450
    assert seconds_to_goal(rows(law)) == pytest.approx(0.01 * meets)
    assert math.isnan(seconds_to_goal(rows({200: law[200]})))
    # of a length that not all seeds have made nothing is known
    assert seconds_to_goal(rows(law | {220: [1.0]})) == pytest.approx(0.01 * meets)


@pytest.fixture
def short(monkeypatch):
    """Two recipes, of few updates each."""
    module = time_to_loss.__globals__
    tiny = replace(Arm().model, n_embd=16, block_size=8)
    train = replace(Arm().train, batch_size=2)
    arms = {"speedrun": Arm(tiny, train), "long": Arm(tiny, train, updates=3)}
    for name, value in {"ARMS": arms, "UPDATES": 4, "MOST": 5}.items():
        monkeypatch.setitem(module, name, value)


def test_it_goes_on_where_it_stopped(tmp_path, short, corpus, monkeypatch, capsys):
    monkeypatch.setitem(time_to_loss.__globals__, "load_corpus", lambda name: corpus)
    path = tmp_path / "runs.csv"
    report = time_to_loss(path, 2, "cpu")
    said, whole = capsys.readouterr().out, read_runs(path)
    assert [row["recipe"] for row in report.rows] == ["speedrun", "long"]
    assert said.count("seed 21") == said.count("seed 22") == 2 == len(whole) / 2
    assert isinstance(report, Report)
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["change"] is None
    pd.DataFrame(whole).drop(index=2).to_csv(path, index=False)
    assert time_to_loss(path, 2, "cpu").rows[0]["loss"] == report.rows[0]["loss"]
    assert capsys.readouterr().out.count("updates, seed") == 1  # the one that was lost
    key = ["arm", "updates", "seed", "loss"]
    again, before = (pd.DataFrame(r)[key].sort_values(key[:3]) for r in (read_runs(path), whole))
    assert again.values.tolist() == before.values.tolist()
    time_to_loss(path, 2, "cpu")
    assert "seed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: "step,loss\n1,2\n", "is not a table with the columns arm, updates, seed"),
        (lambda text: text.replace("1.5", "oops"), "could not convert string"),
        (lambda text: text.replace(",5,", ",,"), "a cell of parameters is empty"),
        (lambda text: text[:-8], "more or fewer cells"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage, words):
    path = tmp_path / "runs.csv"
    text = pd.DataFrame(rows({UPDATES: [1.5, 1.6]}))[list(COLUMNS)].to_csv(index=False)
    path.write_text(damage(text), encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        read_runs(path)


def test_rows_of_a_recipe_that_changed_and_doubled_rows_do_not_count(tmp_path):
    path, good = tmp_path / "runs.csv", rows({UPDATES: [1.5, 1.6]})
    other = [good[0] | {"recipe": "00000000", "seed": 99}, good[0] | {"arm": "gone", "seed": 98}]
    pd.DataFrame([good[0], *good, *other])[list(COLUMNS)].to_csv(path, index=False)
    assert [row["seed"] for row in read_runs(path)] == list(TWO)


def test_two_at_once_are_refused(tmp_path, short):
    path = tmp_path / "runs.csv"
    with locked(tmp_path / ".runs.csv.busy"), pytest.raises(BlockingIOError, match="in use"):
        time_to_loss(path, 2, "cpu")


def test_each_recipe_but_the_first_differs_from_it():
    assert all(a != b for a, b in combinations(ARMS.values(), 2))
    assert ARMS["AdamW for Muon"].train.optimizer == TrainConfig().optimizer == "adamw"


def test_the_stored_runs_are_of_the_recipes_as_they_are():
    """Also after a setting was added that is off in all of them."""
    stored = read_runs(ROOT / "checkpoints" / "speedrun.csv")
    assert {row["arm"] for row in stored} == set(ARMS)


def test_the_readmes_table_is_that_of_the_stored_runs():
    report = report_of(read_runs(ROOT / "checkpoints" / "speedrun.csv"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    head = "| recipe | parameters | updates | loss | seconds | seconds to 1.88 |\n"
    lines = readme.partition(head)[2].partition("\n\n")[0].splitlines()[1:]
    made = {row["recipe"]: row for row in report.rows}
    for line in lines:
        row = made[line.split("|")[1].strip().strip("`")]
        goal = row["seconds_to_goal"]
        assert line.split("|", 2)[2].strip() == (
            f"{row['parameters']:,} | {row['updates']:,} | {row['loss']:.3f} ± {row['sd']:.3f} | "
            f"{row['seconds']:.1f} | {'not reached' if math.isnan(goal) else f'{goal:.1f}'} |"
        )
    assert len(lines) == 11
