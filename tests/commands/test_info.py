"""The command: python -m tinygpt info."""

import os
import shutil

import psutil
import pytest
from docstring_parser import parse_from_object

from tinygpt import PRESETS, TinyGPT, cli
from tinygpt.commands.completion import FLAGS
from tinygpt.measure import inference_memory, training_memory

from .conftest import one_line, train


def test_a_run_named_as_a_preset(text, runs, capsys, monkeypatch):
    """Both can be had, and info says so."""
    assert train(text, runs / "modern", "--max-steps", "1") == 0
    capsys.readouterr()
    monkeypatch.chdir(runs.parent)
    assert cli.main(["info", "modern"]) == 0
    *preset, note = capsys.readouterr().out.splitlines()
    assert "n_embd                     128" in preset
    command, path = note.split(": ")[1].rsplit(" ", 1)
    assert (command, path) == ("python -m tinygpt info", os.path.join("checkpoints", "modern"))
    assert preset[0].startswith("modern is a preset: ")
    assert cli.main(["info", path]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{path} is a run, in {runs / 'modern'}\n")
    assert "n_embd                     16\n" in said
    monkeypatch.chdir(runs)
    assert cli.main(["info", "modern"]) == 0
    assert str(runs / "modern") in capsys.readouterr().out
    assert cli.main(["info", "tiny"]) == 0
    assert "There is also" not in capsys.readouterr().out
    shutil.copytree(runs / "modern", runs / "tinny")
    said = one_line(["info", "tinnyy"], capsys)
    assert said.startswith(
        "there is no preset 'tinnyy' (python -m tinygpt info lists them), and no"
    )
    assert said.endswith("the run tinny or the preset tiny?")


def line_of(said, name):
    """What stands after a name."""
    return next(line for line in said.splitlines() if line.startswith(name))[len(name) :].strip()


@pytest.mark.parametrize("name", ["tiny", "tiny-moe", "modern"])
def test_info_says_of_a_preset_what_a_model_with_weights_has(name, capsys):
    model, train = TinyGPT(PRESETS[name].model), PRESETS[name].train
    total = sum(p.numel() for p in model.parameters())
    assert cli.main(["info", name]) == 0
    said = capsys.readouterr().out
    assert line_of(said, "parameters").startswith(f"{total:,} (")
    assert line_of(said, "n_embd") == str(PRESETS[name].model.n_embd)
    needed = training_memory(model, train).total / 1e6
    assert line_of(said, "memory to train").startswith(f"{needed:.0f} MB, estimated")
    assert line_of(said, "memory to write").startswith(f"{inference_memory(model).total / 1e6:.0f}")


def test_all_presets_are_listed_with_their_counts_and_without_weights(capsys, monkeypatch):
    made = []
    monkeypatch.setattr(TinyGPT, "__init__", spied(TinyGPT.__init__, made))
    assert cli.main(["info"]) == 0
    said = capsys.readouterr().out
    assert all(p.is_meta for model in made for p in model.parameters())
    listed = said[said.index("presets ") :].splitlines()[1:-1]
    assert [line.split()[0] for line in listed[::2]] == list(PRESETS)
    assert [line.strip() for line in listed[1::2]] == [p.description for p in PRESETS.values()]
    assert line_of(said, "memory  ") == f"{psutil.virtual_memory().total / 1e9:.1f} GB"
    total, active, *_ = line_of(said, "sparse-158m ").split()
    assert (total, active) == ("158,623,744", "70,543,360")
    assert max(map(len, listed[::2])) <= 80


def spied(init, made):
    def watched(self, *arguments):
        init(self, *arguments)
        made.append(self)

    return watched


@pytest.mark.parametrize("name", ["laptop-dense", "laptop-moe"])
def test_a_shipped_run_needs_what_its_preset_does(name, capsys):
    for each in (name, name.removesuffix("-dense")):
        assert cli.main(["info", f"checkpoints/{each}" if each == name else each]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("memory")]
    assert len(said) == 4
    assert said[:2] == said[2:]


def test_without_a_command_the_usage_is_shown(capsys):
    assert cli.main([]) == 0
    assert "benchmark" in capsys.readouterr().out


def test_the_active_weights_between_the_tables_and_the_head(capsys):
    """What is called non-embedding."""
    assert cli.main(["info", "sparse-158m"]) == 0
    assert line_of(capsys.readouterr().out, "without tables and head") == "18,949,120"


def test_no_help_has_lines_of_the_source():
    """What is wrapped there would be broken there in the help."""
    for kind in FLAGS.values():
        for owner in kind.__mro__[:-1]:
            for field in parse_from_object(owner).params:
                assert "\n" not in (field.description or ""), (kind, field.arg_name)
