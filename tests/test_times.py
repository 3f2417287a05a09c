"""One table of times: the README, notebook 00 and the headers say what was measured."""

import json

import pytest

from . import execute as times

PATHS = [times.README, *times.notebooks()]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_page_says_the_times_of_the_table(path):
    assert times.pages()[path] == path.read_text(encoding="utf-8")


def test_the_table_has_every_notebook():
    assert set(times.measured()) == {path.stem for path in times.notebooks()}


@pytest.mark.parametrize("path", times.notebooks(), ids=lambda path: path.stem)
def test_a_header_says_a_time(path):
    said = times.said(times.measured()[path.stem], ("seconds", "minutes"))
    assert f"run {said} on two CPU cores" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "5 s"), (15, "15 s"), (15.1, "20 s"), (120, "120 s"), (121, "3 min"), (600, "10 min")],
)
def test_times_are_rounded_up(seconds, words):
    assert times.said(seconds, ("s", "min")) == words


def test_all_places_of_a_page_are_written(tmp_path, monkeypatch):
    kept = {"machine": "two cores", "seconds": {"01_first": 61.2, "02_second": 500.0}}
    monkeypatch.setattr(times, "TIMES", tmp_path / "times.json")
    times.TIMES.write_text(json.dumps(kept))
    page = (
        "| [01 first](notebooks/01_first.ipynb) | a | 9 s |\n"
        "| [02](02_second.ipynb) | b | c | 1 min |\n\nTimes on one, without a GPU. More\n"
    )
    assert times.with_times(page, "README") == (
        "| [01 first](notebooks/01_first.ipynb) | a | 65 s |\n"
        "| [02](02_second.ipynb) | b | c | 9 min |\n\nTimes on two cores, without a GPU. More\n"
    )
    header = "read 5 min · run 20 s on two CPU cores · exercises 30 minutes"
    assert times.with_times(header, "02_second") == header.replace("20 s", "9 minutes")
    assert times.with_times(header, "03_third") == header
