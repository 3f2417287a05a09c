"""The command: python -m tinygpt verify."""

import os
import shutil

from tinygpt import cli
from tinygpt.training import export_run, load_checkpoint, save_checkpoint

from .conftest import one_line, train


def test_runs_that_hold_differ_are_damaged_or_lack_their_text(text, runs, capsys):
    assert one_line(["verify"], capsys).startswith("there is no shipped run here")
    assert train(text, runs / "own", "--max-steps", "10") == 0
    for name in ("holds", "differs", "damaged"):
        export_run("own", name)
    content = load_checkpoint(runs / "differs")
    loss = content.about["summary.json"]["val_lm_loss"]
    content.about["summary.json"]["val_lm_loss"] = loss + 0.01
    shutil.rmtree(runs / "differs")
    save_checkpoint(runs / "differs", content)
    (runs / "damaged" / "tokenizer.json").write_text("{}")
    capsys.readouterr()
    figures = f"validation loss {loss:.4f} nats on the whole split"
    assert cli.main(["verify", "holds", str(runs / "own")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"holds: holds: {figures}, {loss:.4f} in its summary.json"
    assert second == f"{runs / 'own'}: holds: {figures}, {loss:.4f} in its metrics.csv"
    assert cli.main(["verify", "differs", "holds"]) == 1
    line, _ = capsys.readouterr().out.splitlines()
    assert line == f"differs: DIFFERS by 0.0100: {figures}, {loss + 0.01:.4f} in its summary.json"
    assert cli.main(["verify"]) == 2  # all that are shipped
    said = capsys.readouterr()
    assert [each.split(":")[0] for each in said.out.splitlines()] == ["differs", "holds"]
    assert "damaged: " in said.err
    assert "tokenizer.json is damaged" in said.err
    assert len(said.err.splitlines()) == 1
    os.remove(text.removeprefix("file:"))
    assert cli.main(["verify", "holds", "differs"]) == 3
    said = capsys.readouterr()
    assert said.out.startswith("holds: not verified, its text is not here: there is no file")
    assert said.err == ""
    assert cli.main(["verify", "holds", "damaged"]) == 2
    capsys.readouterr()
    assert "no run 'nope'" in one_line(["verify", "nope"], capsys)
