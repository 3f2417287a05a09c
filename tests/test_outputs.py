"""nbval lets rounding pass in the notebooks' outputs, and finds every digit that is changed."""

import re
from types import SimpleNamespace

import nbformat
import pytest

from tinygpt.files import ROOT

from . import outputs
from .outputs import NUMBER, PICTURE, TAG, lenient, near, settled, tolerance

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize(
    ("found", "printed"),
    [
        ("loss 2.4820 nats", "loss 2.4819 nats"),
        ("-0.50 and 1,003,854", "-0.51 and 1,003,854"),
        ("1.2e-05", "1.3e-05"),
        ("highest 2.5 at 3", "highest 2.49 at 3"),
        ("   10.00", "    9.99"),
        ("51 % of 12", "50 % of 12"),
        ('<img alt="from 0.1" src="data:image/png;base64,AA+1">', '<img alt="from 0.2" src="data:'
         'image/png;base64,BB/2">'),
    ],
)  # fmt: skip
def test_rounding_passes(found, printed):
    assert near(found, printed)
    assert settled([{"data": {"text/plain": found}}], [{"data": {"text/plain": printed}}]) == [
        {"data": {"text/plain": printed}}
    ]


@pytest.mark.parametrize(
    ("found", "printed"),
    [
        ("loss 2.4821 nats", "loss 2.4819 nats"),
        ("4 of 5", "4 of 6"),
        ("1,003,853", "1,003,854"),
        ("0.51", "-0.51"),
        ("loss 2.4819", "loss 2.4819 nats"),
        ("a 1.0", "b 1.0"),
        ('<img alt="0.1" src="data:image/png;base64,AA">', '<img alt="0.3" src="data:image/png;'
         'base64,AA">'),
    ],
)  # fmt: skip
def test_more_than_rounding_is_found(found, printed):
    assert not near(found, printed)
    assert settled({"text": found}, {"text": printed}) == {"text": found}


def test_without_tiny_shakespeare_its_outputs_are_not_compared(monkeypatch):
    def cell(tags):
        return SimpleNamespace(
            cell=SimpleNamespace(metadata={"tags": tags}),
            compare_outputs=lambda found, printed, skip: found == printed,
        )

    its, other = cell([TAG]), cell([])
    lenient(its)
    lenient(other)
    monkeypatch.setattr(outputs, "find", lambda corpus, file: None)
    assert its.compare_outputs(["1"], ["2"])
    assert not other.compare_outputs(["1"], ["2"])
    monkeypatch.setattr(outputs, "find", lambda corpus, file: ROOT)
    assert not its.compare_outputs(["1"], ["2"])
    assert its.compare_outputs(["0.11"], ["0.12"])


def test_a_tag_allows_some_per_cent():
    percent = tolerance(["tinyshakespeare", "tolerance-5"])
    assert percent == 5
    assert near("0.51 [0.42, 0.60]", "0.50 [0.40, 0.61]", percent)
    assert near("105 of them", "100 of them", percent)
    assert not near("0.53", "0.50", percent)
    assert not near("words 1", "word 1", percent)


def compared(path):
    """The texts of the outputs that nbval compares, with their tolerance and their cell."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code" or "nbval-ignore-output" in cell.metadata.get("tags", ()):
            continue
        percent = tolerance(cell.metadata.get("tags", ()))
        for output in cell.outputs:
            data = output.get("data", {})
            for text in (output.get("text"), data.get("text/plain"), data.get("text/markdown")):
                if text:
                    yield cell.source, percent, PICTURE.sub("PICTURE", text)


def changed(text, number):
    """The text with the first digit of a number made another."""
    digit = number.start() + number[0].startswith("-")
    return f"{text[:digit]}{(int(text[digit]) + 5) % 10}{text[digit + 1 :]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_changed_digit_is_found(path):
    for source, percent, text in compared(path):
        assert near(text, text, percent), source
        for number in re.finditer(NUMBER, text):
            assert not near(changed(text, number), text, percent), source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_numbers_that_are_not_compared_are_followed_by_asserts(path):
    code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    for i, cell in enumerate(code):
        said = [out.get("text") or out.get("data", {}).get("text/markdown") for out in cell.outputs]
        numbers = any(text and NUMBER.search(text) for text in said)
        if "nbval-ignore-output" in cell.metadata.get("tags", ()) and numbers:
            assert any("assert " in later.source for later in code[i : i + 4]), cell.source
