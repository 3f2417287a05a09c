"""What the user can mend: one line on stderr and exit code 2, whatever the command."""

import pytest

from tinygpt import cli

from .conftest import LONG, one_line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "no command 'fly'"),
        (["train", "--preset", "huge"], "no preset 'huge'; there are tiny"),
        (["train", "--corpus", "nowhere"], "unknown corpus 'nowhere'"),
        (["train", "--resume", "no-such-run"], "no run 'no-such-run'"),
        (["generate", "no-such-run"], "no run 'no-such-run'"),
        (["data", "file:no-such-file"], "there is no file"),
        (["benchmark", "--rounds", "0"], "rounds=0"),
        (["train", "--corpus", "tinyplays", "--vocab-size", "7"], "follows from the corpus"),
        (["train", "--corpus", "tinyplays", "--device", "meta"], "device='meta' cannot train"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(arguments, words, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "there is no command ''"),
        ("trian", "did you mean train?"),
        (LONG, "there is no command"),
        ("train extra", "Unrecognized options: extra (python -m tinygpt train --help)"),
        ("train --no-such-flag 3", "Unrecognized options: --no-such-flag, 3"),
        ("train --max-step 5", "Perhaps you meant: --max-steps INT"),
        ("train --n-embd", "Missing value for argument '--n-embd'"),
        ("train --n-embd 32.0", "--n-embd: invalid literal"),
        ("train --n-embd 33", "n_embd=33 is not divisible by n_head=4"),
        ("train --optimizer sgd", "Expected one of adamw, muon"),
        ("train --moe.top-k 9", "top_k=9 is more than n_experts=4"),
        ("train --max-steps soon", "--max-steps: invalid literal for int() with base 10: 'soon'"),
        ("train --num-stories few", "--num-stories: 'few' is not {None}|INT (python"),
        ("train --vocab-size 6.5", "--vocab-size: invalid literal"),
        ("train --n-inner wide", "--n-inner: 'wide' is not {None}|INT (python"),
        ("train --schedule cosin", "of constant, cosine, wsd; did you mean cosine? (python"),
        ("train --resume latst", "did you mean --resume latest?"),
        ("train --resume ./laptop-dense/step_7", "no run './laptop-dense/step_7'"),
        ("upcycle laptop-moe --out x", "the model has experts already; take a dense one"),
        ("train --epochs inf", "epochs=inf must be a finite number"),
        ("train --epochs 1e300", "epochs=1e+300"),
        ("train --lr nan", "lr=nan must be a finite number"),
        (
            "train --seed 9223372036854775808",
            "must be between -9223372036854775808 and 92233720368",
        ),
        ("train --seed -9223372036854775809", "must be between -9223372036854775808 and"),
        ("train --preset=", "there is no preset ''"),
        ("train --preset tinny", "did you mean the preset tiny?"),
        ("train --preset laptob", "did you mean the preset laptop or --resume laptop?"),
        (f"train --preset {LONG}", "there is no preset"),
        ("train --out=", "--out is empty"),
        (f"train --out {LONG}", "File name too long"),
        ("train --out README.md/x", "README.md"),
        ("train --corpus=", "unknown corpus ''"),
        (f"train --corpus file:{LONG}", "File name too long"),
        ("train --resume=", "no run ''"),
        ("train --resume ..", "no run '..'"),
        ("train --resume labtop", "did you mean the run laptop?"),
        (f"train --resume {LONG}", "File name too long"),
        ("train --resume a\0b", "NUL"),
        ("train --sample-prompt é --sample-tokens 1", "'é' at position 0"),
        ("train --n-embd 4000000000000 --n-head 1", "this machine cannot hold"),
        ("train --n-embd 99999999999999999999999 --n-head 1", "this machine cannot hold"),
        ("generate", "Missing from python -m tinygpt generate: RUN"),
        ("generate labtop", "did you mean the run laptop?"),
        ("generate tiny-moe", "tiny-moe is a preset; train it: python -m tinygpt train --preset"),
        ("generate ../../etc", "no run '../../etc'"),
        ("generate ./a/b", "no run './a/b'"),
        (f"generate {LONG}", "File name too long"),
        ("generate laptop --prompt ROMÉO\udcff", "'É' at position 3, '\\udcff' at position 5"),
        ("generate laptop --prompt=", "a prompt is empty"),
        ("generate laptop --max-new-tokens -5", "max_new_tokens=-5 must be at least 0"),
        ("generate laptop --max-new-tokens 2.5", "--max-new-tokens: invalid literal"),
        ("generate laptop --temperature inf", "temperature=inf"),
        (
            "generate laptop --seed 99999999999999999999",
            "seed=99999999999999999999 must be between",
        ),
        ("generate laptop --which last", "which='last'"),
        ("generate laptop --device gpu", "device='gpu'"),
        ("data shakespear", "unknown corpus 'shakespear'"),
        ("data file:/", "/ is a folder"),
        ("info tinny", "did you mean the preset tiny?"),
        ("info labtop", "did you mean the run laptop or the preset laptop?"),
        ("info laptop extra", "Unrecognized options: extra"),
        ("compare labtop", "did you mean the run laptop?"),
        ("compare laptop --seeds 3", "leave all flags away"),
        (
            "compare --study huge",
            "Expected one of baby, laptop, notebook, portuguese, stories, upcycling",
        ),
        ("compare --arms dense top-3", "there is no arm top-3 in the study"),
        ("compare --seeds 0", "seeds=0 must be between 1 and 100"),
        ("compare --out=", "--out is empty"),
        ("compare --out README.md", "README.md"),
        (
            "benchmark stepp",
            "of decoding, model, moe, scale, step, time-to-loss; did you mean step?",
        ),
        ("benchmark --preset tinny", "did you mean the preset tiny?"),
        ("benchmark --threads 999999999", "threads=999999999 must be between 1 and 1024"),
        ("benchmark --rounds -1", "rounds=-1 must be between"),
    ],
    ids=lambda value: value[:40].replace("\0", "NUL"),
)
def test_every_fault_is_one_line_and_exit_code_2(command, words, capsys):
    arguments = command.split(" ")
    if arguments[0] == "train" and "--corpus" not in command and "--resume" not in command:
        arguments += ["--corpus", "tinyplays"]  # no text need be on this machine
    assert words in one_line(arguments, capsys)


def test_a_folder_that_may_not_be_read(runs, monkeypatch, capsys):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tinygpt.training.folder.os.listdir", refuse)
    for command in ("generate x", "info x", "train --resume x"):
        assert "Permission denied" in one_line(command.split(), capsys)
    monkeypatch.setattr("tinygpt.commands.data.load_corpus", lambda *_: refuse(f"/{LONG}"))
    error = one_line(["data"], capsys)
    assert error.startswith("cannot read or write /xxx")
    assert error.endswith("xxx: Permission denied")
    assert len(error) < 200
