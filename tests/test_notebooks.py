"""The rules that every notebook keeps: shape, blocks, honest outputs. nbval runs them."""

import ast
import base64
import html
import re
import statistics
import subprocess
import sys

import nbformat
import pytest

from tinygpt.files import ROOT

PATHS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
LESSONS = [path for path in PATHS if not path.name.startswith("00")]

lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
all_notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    return notebook, code, prose


@all_notebooks
def test_executed_in_order_on_the_course_kernel(path):
    notebook, code, _ = read(path)
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size < 1_500_000


@all_notebooks
def test_outputs_are_clean(path):
    _, code, _ = read(path)
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source
            text = str(output)
            machine = re.search(r"/(work|root|home|tmp|Users)/\w+", text)
            assert not machine, f"{machine} in the output of: {cell.source}"
            text = output.get("data", {}).get("text/plain", "")
            assert not text.startswith(("<Figure", "<Axes")), f"no picture: {cell.source}"


@all_notebooks
def test_no_window_breaks_a_printed_line_inside_a_word(path):
    """JupyterLab breaks anywhere; how far a wait has come, and what chance writes, may be."""
    _, code, _ = read(path)
    for cell in code:
        told = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
        if " · " not in told and "nbval-ignore-output" not in cell.metadata.get("tags", []):
            assert max(map(len, told.splitlines()), default=0) <= WIDEST, cell.source


# What a notebook that is not run cannot show well: pictures without words, and widgets.
UNTOLD = {"image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json"}
OLD: set[str] = set()
WIDEST = 140  # characters of a line there, in a window of 1366
TALLEST = 560  # points that JupyterLab shows at once in a window of 1366 by 768


def images(cell):
    """The alternative text, the text/plain and the height of each picture that a cell shows."""
    for output in cell.outputs:
        data = output.get("data", {})
        for alt, points in re.findall(
            r'<img alt="([^"]*)" src="data:image/png;base64,([^"]+)"', data.get("text/html", "")
        ):
            height = int.from_bytes(base64.b64decode(points[:64])[20:24], "big")
            yield html.unescape(alt), data["text/plain"], height


@all_notebooks
def test_pictures_say_what_they_show_and_fit_the_window(path):
    _, code, _ = read(path)
    for cell in code:
        for output in cell.outputs:
            assert not set(output.get("data", {})) & (UNTOLD - OLD), cell.source
        for alt, text, height in images(cell):
            assert alt, f"a picture without words: give it .alt: {cell.source}"
            assert alt in text, cell.source
            assert height <= TALLEST, f"{height} points high: {cell.source}"


@all_notebooks
def test_a_cell_that_checks_something_says_so(path):
    _, code, _ = read(path)
    silent = [cell.source for cell in code if _checks(cell.source) and not cell.outputs]
    assert not silent, silent[0]


def _checks(source: str) -> bool:
    """Whether the cell itself asserts, not a function that it defines."""
    own = [node for node in ast.parse(source).body if not isinstance(node, ast.FunctionDef)]
    return any(isinstance(node, ast.Assert) for part in own for node in ast.walk(part))


@all_notebooks
def test_cells_are_short(path):
    _, code, _ = read(path)
    lengths = [len(cell.source.splitlines()) for cell in code]
    assert statistics.median(lengths) <= 7
    assert max(lengths) <= 30
    assert all(lengths)


@all_notebooks
def test_nothing_that_hides_or_flickers(path):
    _, code, _ = read(path)
    for cell in code:
        for words in ("KeyboardInterrupt", "Output()", "interact(", "%matplotlib", "plt."):
            assert words not in cell.source, cell.source
        for line in cell.source.splitlines():
            assert not line.rstrip().endswith(";"), line


@all_notebooks
def test_no_table_needs_a_style_sheet(path):
    _, code, _ = read(path)
    for cell in code:  # a viewer that does not trust the page drops it, and the table is another
        assert ".style" not in cell.source, cell.source


@all_notebooks
def test_every_function_that_is_defined_is_used(path):
    _, code, _ = read(path)
    tree = ast.parse("\n".join(cell.source for cell in code))
    defined = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    defined -= {n for n in defined if n.startswith("__") or n == "forward"}
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    used |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert defined <= used


BLOCKS = ["Play", "Exercises", "Break it", "Quiz", "Recap", "Further reading", "Next"]


@lessons
def test_the_blocks_are_there_and_in_order(path):
    notebook, _, prose = read(path)
    text = "\n".join(cell.source for cell in prose)
    first = notebook.cells[0].source
    assert first.startswith(f"# {path.name[:2]} · ")
    assert re.search(r"^\*[^*]+\?\*$", first, flags=re.M), "a question in italics"
    for label in ("You will be able to", "You need", "Time"):
        assert f"**{label}" in text
    assert "](../imgs/" in text
    headings = re.findall(r"^## (.+)$", text, flags=re.M)
    sections = [h for h in headings if re.match(r"\d\. ", h)]
    assert 3 <= len(sections) <= 6
    others = [h for h in headings if h not in sections and not h.startswith("Appendix: ")]
    assert others == BLOCKS


EXERCISE = r"### (Exercise \d|Write it yourself) · .+ [★☆]{3} · \d+ min"


@lessons
def test_exercises_have_a_check_a_hint_and_a_solution(path):
    notebook, _, _ = read(path)
    cells = notebook.cells
    kinds = re.compile(r"^### (Exercise |Write it yourself)", re.M)
    starts = [i for i, c in enumerate(cells) if kinds.search(c.source)]
    assert sum("### Exercise " in cells[i].source for i in starts) >= 3
    for start in starts:
        assert re.search(EXERCISE, cells[start].source)
        skeleton = next(c for c in cells[start:] if c.cell_type == "code")
        assert re.search(r"^    return \.\.\.", skeleton.source, flags=re.M)
        assert skeleton.source.splitlines()[-1].startswith("check(")
        assert "not attempted yet" in str(skeleton.outputs)
        folded = cells[cells.index(skeleton) + 1].source
        for summary in ("Hint", "Solution"):
            assert f"<summary>{summary}</summary>" in folded


@lessons
def test_the_quiz_has_five_questions_with_folded_answers(path):
    _, _, prose = read(path)
    text = "\n".join(cell.source for cell in prose)
    quiz = text[text.index("## Quiz") : text.index("## Recap")]
    assert quiz.count("<summary>Answer</summary>") == 5


@lessons
def test_prose_is_neither_thin_nor_long(path):
    _, _, prose = read(path)
    text = "\n".join(cell.source for cell in prose)
    text = re.sub(r"```.*?```|<[^>]+>", "", text, flags=re.S)  # solutions are not prose
    assert 1500 <= len(text.split()) <= 3500


@lessons
def test_the_header_says_how_long_the_exercises_take_together(path):
    _, _, prose = read(path)
    text = "\n".join(cell.source for cell in prose)
    minutes = sum(map(int, re.findall(r"^###.*★.* · (\d+) min$", text, re.M)))
    assert f"exercises {minutes} minutes" in text


@all_notebooks
def test_spelling(path, tmp_path):
    """Of what was written by hand; samples in the outputs may be gibberish."""
    notebook, _, _ = read(path)
    text = tmp_path / "cells.txt"
    text.write_text("\n\n".join(cell.source for cell in notebook.cells), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", str(text)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@all_notebooks
def test_links_between_notebooks_lead_somewhere(path):
    _, _, prose = read(path)
    for cell in prose:
        for target in re.findall(r"\]\(([\w-]+\.ipynb)", cell.source):
            assert (path.parent / target).is_file(), target


def glossary():
    """The words of notebook 00's glossary, each with the notebook that explains it."""
    _, _, prose = read(PATHS[0])
    table = next(cell.source for cell in prose if cell.source.startswith("## Glossary"))
    rows = [re.split(r" *\| *", row)[1:4] for row in table.splitlines() if row.startswith("| ")]
    return [(term, where) for term, _, where in rows[1:]]


def test_the_glossary_is_sorted_and_leads_to_where_a_word_is_explained():
    terms = glossary()
    assert [term for term, _ in terms] == sorted((term for term, _ in terms), key=str.lower)
    for term, where in terms:
        link = re.search(r"\((\S+\.ipynb)\)", where)
        _, _, prose = read(PATHS[0].parent / (link[1] if link else PATHS[0].name))
        text = "\n".join(cell.source for cell in prose if "## Glossary" not in cell.source).lower()
        for word in term.lower().removesuffix(" parameters").split(", "):
            assert word in text, f"{word} does not stand in {where}"


@pytest.mark.parametrize("path", LESSONS[:2], ids=lambda p: p.stem)
def test_words_that_a_lesson_introduces_are_in_the_glossary(path):
    _, _, prose = read(path)
    known = ", ".join(term.lower() for term, _ in glossary()).replace("-", " ")
    text = "\n".join(cell.source for cell in prose if "## Quiz" not in cell.source)
    marked = set(re.findall(r"\*\*([a-z][\w -]+)\*\*", text, re.I))
    for word in marked - {"You will be able to", "You need", "Time", "Guess before you run"}:
        assert word.lower().replace("-", " ").removesuffix("s") in known, word
    assert "00_start_here.ipynb#Glossary" in text
