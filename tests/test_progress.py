"""Progress is a bar on a console, and one line of text in a notebook, no widget."""

import sys
from types import SimpleNamespace

import nbformat
import pytest

from tinygpt.progress import progress


def test_on_a_console_it_is_tqdm_s_bar(capsys):
    with progress(total=3, unit="step") as bar:
        for _ in range(3):
            bar.update()
    said = capsys.readouterr()
    assert "3/3" in said.err
    assert not said.out


@pytest.fixture
def notebook(monkeypatch):
    """What a notebook shows of a line, one text after the other."""
    shown = []
    place = SimpleNamespace(update=lambda data, raw: shown.append((data, raw)))
    display = SimpleNamespace(display=lambda *args, **kwargs: place)
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=True))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_in_a_notebook_it_is_a_line_that_ends_at_its_end(notebook, capsys):
    with progress(total=3, unit="step") as bar:
        bar.update(2)
        bar.set_postfix_str("loss 1.0", refresh=True)
        bar.update()
    assert all(list(data) == ["text/plain"] and raw for data, raw in notebook)
    first, *_, last = (data["text/plain"] for data, _ in notebook)
    assert first.startswith("  0%|")
    assert last.startswith("100%|")
    assert "3/3" in last
    assert last.endswith("loss 1.0]")
    assert capsys.readouterr() == ("", "")


def test_what_is_switched_off_shows_nothing(notebook, capsys):
    with progress(total=3, disable=True) as bar:
        bar.update(3)
    assert not notebook
    assert capsys.readouterr() == ("", "")


@pytest.mark.full
def test_an_executed_notebook_keeps_the_last_line_alone():
    nbclient = pytest.importorskip("nbclient")
    source = "from tinygpt.progress import progress\nfor i in range(2):\n"
    source += "    with progress(total=9) as bar:\n        for _ in range(9): bar.update()\n"
    cell = nbformat.v4.new_code_cell(source)
    nbclient.execute(nbformat.v4.new_notebook(cells=[cell]), timeout=120)
    texts = [output["data"]["text/plain"] for output in cell.outputs]
    assert [text[:5] for text in texts] == ["100%|", "100%|"]
    assert all(set(output["data"]) == {"text/plain"} for output in cell.outputs)
