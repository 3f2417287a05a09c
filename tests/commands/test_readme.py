"""Every command that a README or a notebook shows works, reduced to a second.

Those of a page are run in their order, in one folder.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tinygpt import cli
from tinygpt.commands import COMMANDS
from tinygpt.commands.arguments import read_arguments
from tinygpt.commands.benchmark import BenchmarkArgs
from tinygpt.files import ROOT
from tinygpt.training import export_run

from ..conftest import LINES
from .conftest import train

NOTEBOOKS = [f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
PAGES = ("README.md", "checkpoints/README.md", "data/README.md", *NOTEBOOKS)
QUICK = PAGES[1:3]
NOT_RUN = {  # by their first words, and why
    "lab": "opens a server; see tests/test_lab.py",
    "benchmark decoding": "takes half a minute; in a reduced form in test_benchmark.py",
    "benchmark moe": "takes ten seconds; in a reduced form in test_benchmark.py",
}
MEANT = {  # what stands for something else, or for what is not on every machine
    "RUN": "other",
    "PROMPT": "the",
    "ROMEO:": "the",
    "Once upon a time": "the",
    "SEED": "1",
    "FOLDER": "other",
    "NAME": "tinyplays",
    "N": "1",
    "openai-community/gpt2": "laptop-dense",
    "…": "",
}
SHAPE = "--n-layer 1 --n-head 2 --n-embd 8 --n-inner 8 --block-size 8"
LOOP = "--max-steps 2 --batch-size 2 --grad-accum 1 --max-eval-tokens 64 --no-compile --device cpu"
REDUCED = {
    "train": f"{SHAPE} {LOOP} --corpus file:my_text.txt --tokenizer char",
    "train --moe": "--moe.n-inner 8",
    "train --init": f"{LOOP} --block-size 8 --corpus file:my_text.txt",
    "train --resume": "--max-steps 3",
    "generate": "--max-new-tokens 3",
    "compare": "--until report",
    "benchmark step": "--rounds 1 --preset tiny",
    "benchmark model": "--rounds 1 --batch-size 1 --preset tiny-moe",
    "benchmark time-to-loss": "--runs speedrun.csv",
    "routing": "--max-tokens 64 --batches 1",
}


def texts(page):
    """What is to be read on a page, and what the cells of a notebook printed, as code."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page not in NOTEBOOKS:
        return text
    cells = json.loads(text)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    found = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    printed = [
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs
    ]
    return "\n\n".join([*found, *(f"```text\n{''.join(lines)}\n```" for lines in printed)])


def commands(page):
    """What follows `-m tinygpt` on a page: in lines of code, or in words of code in its prose."""
    text = texts(page).replace("\\\n", " ")
    blocks = re.findall(r"^```\w+\n(.*?)^```", text, flags=re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    shown = [line for block in blocks for line in block.splitlines()]
    shown += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    found = [re.search(r"(?:-m |^)tinygpt (\w.*)", line) for line in shown]
    return [shlex.split(match[1], comments=True) for match in found if match]


def reduced(words):
    """A command in small: the flags that are added win over those that are there."""
    words = [re.sub(r"/step_\d+$", "", MEANT.get(word, word)) for word in words]
    name = words[0]
    kinds = [name, f"{name} {words[1]}" if len(words) > 1 else name]
    if name == "train":
        flags = [word for word in words if word.startswith("--")]
        kinds = ["train --init"] if "--init" in flags else ["train"]
        kinds = ["train --resume"] if "--resume" in flags else kinds
        kinds += ["train --moe"] if any(word.startswith("--moe.") for word in words) else []
    if name == "compare" and words[1:] and not words[1].startswith("--"):  # runs
        kinds = []
    return [word for word in words if word] + shlex.split(
        " ".join(REDUCED.get(k, "") for k in kinds)
    )


@pytest.fixture
def place(runs, monkeypatch):
    """An empty checkpoints/ beside a text, with small runs that pages take as given."""
    monkeypatch.chdir(runs.parent)
    monkeypatch.setattr("tinygpt.lab.WORK", ROOT / "notebooks")
    shutil.copy(ROOT / "checkpoints" / "speedrun.csv", "speedrun.csv")
    Path("my_text.txt").write_text(LINES * 30, encoding="utf-8")
    for name, flags in (("dense", ""), ("moe", "--moe.n-experts=3"), ("other", ""), ("tiny", "")):
        assert train("file:my_text.txt", runs / name, "--max-steps=1", *flags.split()) == 0
    for name in ("dense", "moe"):
        export_run(name, f"laptop-{name}")
    return runs


def marks(page):
    return [pytest.mark.full] * (page not in QUICK)


@pytest.mark.parametrize("page", [pytest.param(page, marks=marks(page)) for page in PAGES])
def test_the_commands_of_a_page(page, place, capsys):
    shown = commands(page)
    assert shown or page in NOTEBOOKS
    for words in shown:
        if not any(" ".join(words).startswith(start) for start in NOT_RUN):
            code = cli.main(reduced(words))
            assert code == 0, f"{' '.join(words)}: {capsys.readouterr().err}"
        elif words[0] == "benchmark":
            read_arguments(BenchmarkArgs, "benchmark", words[1:])


def test_the_pages_show_every_command():
    shown = {words[0] for page in PAGES for words in commands(page)}
    assert shown == set(COMMANDS)


def test_all_that_is_not_run_is_on_a_page():
    shown = [" ".join(words) for page in PAGES for words in commands(page)]
    assert all(any(each.startswith(start) for each in shown) for start in NOT_RUN)
