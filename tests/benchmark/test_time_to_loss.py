import json
import math
from dataclasses import replace
from itertools import combinations

import pandas as pd
import pytest

from tinygpt import TrainConfig
from tinygpt.benchmark import Report
from tinygpt.errors import ConfigError

# the module: the package's attribute of this name is the function
from tinygpt.benchmark.time_to_loss import (  # isort: skip
    ARMS,
    GOAL,
    MOST,
    UPDATES,
    Arm,
    next_updates,
    read_runs,
    seconds_to_goal,
    time_to_loss,
)


def rows(losses: dict[int, list[float]], arm: str = "speedrun", seconds: float = 0.01):
    return [
        {"arm": arm, "updates": n, "seed": seed, "loss": loss, "seconds": n * seconds}
        for n, values in losses.items()
        for seed, loss in enumerate(values, start=1)
    ]


def test_a_recipe_is_trained_until_its_mean_is_known_on_both_sides_of_the_goal():
    near, over, under = UPDATES, round(1.5 * UPDATES), round(UPDATES / 1.5)
    high, low = [GOAL + 0.1] * 2, [GOAL - 0.1] * 2
    mixed = [GOAL - 0.2, GOAL + 0.1]  # the mean counts
    assert next_updates("speedrun", [], 2) == near
    assert next_updates("speedrun", rows({near: high[:1]}), 2) == near  # a seed is missing
    assert next_updates("speedrun", rows({near: high}, "GELU"), 2) == near  # somebody else's
    assert next_updates("speedrun", rows({near: high}), 2) == over
    assert next_updates("speedrun", rows({near: mixed}), 2) == under
    assert next_updates("speedrun", rows({near: high, over: low}), 2) is None
    assert next_updates("speedrun", rows({near: low, under: high}), 2) is None
    assert next_updates("speedrun", rows({near: high, MOST: high}), 2) is None  # gave up
    assert next_updates("nanogpt-cpu", [], 2) == 2000
    assert next_updates("nanogpt-cpu", rows({2000: high}, "nanogpt-cpu"), 2) is None


def test_seconds_to_the_goal_lie_where_a_loss_that_falls_with_the_logarithm_meets_it():
    law = {n: [3.0 - 0.2 * math.log(n)] * 3 for n in (200, 300, 450)}
    meets = math.exp((3.0 - GOAL) / 0.2)
    assert 200 < meets < 450
    assert seconds_to_goal(rows(law)) == pytest.approx(0.01 * meets)
    assert math.isnan(seconds_to_goal(rows({200: law[200]})))


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
    assert said.count("seed 1") == said.count("seed 2") == 2 == len(whole) / 2
    assert isinstance(report, Report)
    json.dumps(report.rows)
    pd.DataFrame(whole).drop(index=2).to_csv(path, index=False)
    assert time_to_loss(path, 2, "cpu").rows[0]["loss"] == report.rows[0]["loss"]
    assert capsys.readouterr().out.count("updates, seed") == 1  # the one that was lost
    key = ["arm", "updates", "seed", "loss"]
    again, before = (pd.DataFrame(r)[key].sort_values(key[:3]) for r in (read_runs(path), whole))
    assert again.values.tolist() == before.values.tolist()
    time_to_loss(path, 2, "cpu")
    assert "seed" not in capsys.readouterr().out


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("step,loss\n1,2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no runs of this benchmark"):
        read_runs(path)


def test_each_recipe_but_the_first_differs_from_it():
    assert all(a != b for a, b in combinations(ARMS.values(), 2))
    assert ARMS["AdamW for Muon"].train.optimizer == TrainConfig().optimizer == "adamw"
