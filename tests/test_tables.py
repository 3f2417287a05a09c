"""Tables to which several processes add."""

import subprocess
import sys
import textwrap

import pytest

from tinygpt.errors import ConfigError
from tinygpt.files import ROOT
from tinygpt.tables import Table

COLUMNS = {"run": str, "step": int, "loss": float}


@pytest.fixture
def table(tmp_path):
    return Table(tmp_path / "new" / "losses.csv", COLUMNS, ["run", "step"], ["run"])


def rows(run: str, *losses: float) -> list[dict]:
    return [{"run": run, "step": step, "loss": loss} for step, loss in enumerate(losses)]


def test_what_is_added_is_read(table):
    assert table.read().empty
    table.add([])
    assert not table.path.exists()
    table.path.parent.mkdir()
    table.path.write_text("run,step,loss\n")
    assert table.read().empty
    table.add(rows("a", 1 / 3, float("nan"), float("inf")))
    found = table.read()
    assert found["loss"][0] == 1 / 3
    assert found["loss"].isna().tolist() == [False, True, False]
    assert found["loss"][2] == float("inf")
    assert found["step"].tolist() == [0, 1, 2]
    assert [found[name].dtype.kind for name in ("step", "loss")] == ["i", "f"]


def test_a_unit_replaces_what_was_there_of_it_and_nothing_else(table):
    table.add(rows("a", 1.0, 2.0, 3.0) + rows("b", 4.0))
    by_hand = table.path.read_text().replace("4.0", "4.000")
    table.path.write_text(by_hand)
    table.add(rows("a", 5.0))
    assert table.path.read_text() == "run,step,loss\nb,0,4.000\na,0,5.0\n"


def test_of_doubled_rows_the_later_counts(table):
    table.add(rows("a", 1.0))
    table.path.write_text(table.path.read_text() + "a,0,2.0\n")
    assert table.read()["loss"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not enough values"),
        ("step,loss\n1,2\n", "run"),
        ("run,step,loss\na,oops,1\n", "invalid literal"),
        ("run,step,loss\na,1.5,1\n", "invalid literal"),
        ("run,step,loss\na,1,oops\n", "could not convert"),
        ("run,step,loss\na,,1\n", "a cell of step is empty"),
        ("run,step,loss\n,1,1\n", "a cell of run is empty"),
        ("run,step,loss\na,1\n", "more or fewer cells"),
        ("run,step,loss\na,1,2,3,4\n", "more or fewer cells"),
        ("run,step,loss\na,1,1.8", "its last row may be cut off"),
        ('run,step,loss\n"a,1,1.8\n', "losses.csv"),
        ("run,step,loss\n\xff\xfe,1,2\n", "losses.csv"),
    ],
)
def test_a_damaged_table_is_refused_and_left_as_it_is(table, content, words):
    table.path.parent.mkdir()
    table.path.write_bytes(content.encode("latin-1"))
    for act in (table.read, lambda: table.add(rows("b", 1.0))):
        with pytest.raises(ConfigError, match=words) as error:
            act()
        assert "mend or remove it" in str(error.value)
    assert table.path.read_bytes() == content.encode("latin-1")


def test_nothing_is_lost_when_several_add(tmp_path):
    path = tmp_path / "losses.csv"
    code = f"""
        import sys
        from pathlib import Path
        from tinygpt.tables import Table
        table = Table(Path({str(path)!r}), {{"run": str, "step": int}}, ["run"])
        for i in range(20):
            table.add([{{"run": sys.argv[1] + str(i), "step": i}}])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    started = [subprocess.Popen([*command, name], cwd=ROOT) for name in "abc"]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert len(Table(path, {"run": str, "step": int}, ["run"]).read()) == 60
    assert list(tmp_path.iterdir()) == [path]
