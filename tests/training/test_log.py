import csv
import io
import math
import os
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from tinygpt import MetricsLogger, TinyGPT, TrainConfig, Trainer
from tinygpt.errors import ConfigError, TinyGPTError

from ..tools import interrupt_after, same_state


def log_rows(logger, steps):
    for step in steps:
        logger.log(step=step, epoch=step / 10, train_lm_loss=2.0, val_lm_loss=2.5, lr=1e-3)


def test_rows_and_what_follows_from_the_losses(tmp_path):
    logger = MetricsLogger(tmp_path / "metrics.csv")
    log_rows(logger, [0, 10])
    frame = logger.frame()
    assert list(frame["step"]) == [0, 10]
    assert frame["train_perplexity"][0] == pytest.approx(math.exp(2.0))
    assert frame["val_perplexity"][0] == pytest.approx(math.exp(2.5))
    assert math.isnan(frame["val_bits_per_char"][0])  # the trainer knows the text, the log does not
    assert math.isnan(frame["grad_norm"][0])


def test_pandas_reads_back_what_was_written(tmp_path):

    logger = MetricsLogger(tmp_path / "metrics.csv")
    log_rows(logger, [0, 10, 20])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "metrics.csv"), logger.frame())


def test_every_torn_last_line_is_dropped_and_the_log_goes_on(tmp_path):
    path = tmp_path / "metrics.csv"
    log_rows(MetricsLogger(path), [0, 10, 20])
    whole = path.read_text()
    start = whole[:-1].rfind("\n") + 1  # of the last line
    kept = set()
    for end in range(start, len(whole)):
        path.write_text(whole[:end])
        logger = MetricsLogger(path)
        assert [row["step"] for row in logger.rows] == [0, 10]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            log_rows(logger, [20])
        assert path.read_text() == whole
        kept |= {p.read_text() for p in tmp_path.glob("metrics.csv.*")}
    assert whole[:-1] in kept  # with all its cells it may be a row, so the file is set aside


def test_a_figure_that_is_known_later_is_filled_in(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = MetricsLogger(path)
    log_rows(logger, [0, 10, 20])
    logger.amend(10, whole_val_lm_loss=2.25)
    logger.amend(15, whole_val_lm_loss=9.0)  # a row that was lost
    assert [row["step"] for row in logger.rows] == [0, 10, 20]
    pd.testing.assert_frame_equal(pd.read_csv(path), logger.frame())
    whole = logger.frame()["whole_val_lm_loss"]
    assert (whole[1], whole.isna().sum()) == (2.25, 2)
    with pytest.raises(ConfigError, match="no column accuracy"):
        logger.amend(10, accuracy=1.0)
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_an_older_log_without_the_columns_of_today_goes_on(tmp_path):
    path = tmp_path / "metrics.csv"
    newer = ("val_tokens", "whole_val_lm_loss", "load_cv", "balance_loss", "z_loss")
    older = [name for name in MetricsLogger.COLUMNS if name not in newer]
    path.write_text(",".join(older) + "\n" + "0" + ",4.0" * (len(older) - 1) + "\n")
    logger = MetricsLogger(path)
    logger.log(step=10, train_lm_loss=2.0, val_lm_loss=2.5, val_tokens=96)
    logger.amend(10, whole_val_lm_loss=2.25)
    frame = pd.read_csv(path)
    assert frame["val_lm_loss"].tolist() == [4.0, 2.5]
    assert math.isnan(frame["val_tokens"][0])
    assert frame["val_tokens"][1] == 96
    assert os.listdir(tmp_path) == ["metrics.csv"]  # nothing was lost, nothing set aside


def edited(change):
    """What a program makes of a log, given as its table: a list of rows, each a list of cells."""

    def edit(text):
        table = list(csv.reader(io.StringIO(text)))
        table = change(table) or table
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(table)
        return out.getvalue().encode()

    return edit


def semicolons(text):
    return text.replace(",", ";").replace(".", ",").replace("\n", "\r\n").encode("utf-8-sig")


def quoted_commas(text):
    table = [[cell.replace(".", ",") for cell in row] for row in csv.reader(io.StringIO(text))]
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(table)
    return out.getvalue().encode()


def with_column(where, name="note", cells=("good", "", "bad;\ufffd")):
    return edited(
        lambda t: [
            [*row[:where], cell, *row[where:]]
            for row, cell in zip(t, [name, *cells, *[""] * len(t)], strict=False)
        ]
    )


# edits that change no number: read, and written again in the log's own form
HARMLESS = {
    "nothing": str.encode,
    "byte-order mark": lambda text: text.encode("utf-8-sig"),
    "Windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "old line ends": lambda text: text.replace("\n", "\r").encode(),
    "no last line end": lambda text: text.rstrip("\n").encode(),
    "semicolons and decimal commas": semicolons,
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "quotes": lambda text: "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in text.splitlines()
    ).encode(),
    "quoted decimal commas": quoted_commas,
    "blanks": lambda text: text.replace(",", " , ").encode(),
    "empty lines": lambda text: text.replace("\n", "\n\n ,,\n").encode(),
    "columns reversed": edited(lambda t: [row[::-1] for row in t]),
    "rows reversed": edited(lambda t: [t[0], *t[:0:-1]]),
    "a row twice": edited(lambda t: [*t, t[2]]),
    "nan emptied": lambda text: text.replace("nan", "").encode(),
    "steps as decimals": edited(lambda t: [t[0], *([f"{r[0]}.0", *r[1:]] for r in t[1:])]),
    "an empty column": with_column(3, "", ("",) * 9),
    "commas at the ends": lambda text: text.replace("\n", ",,,\n").encode(),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_spreadsheet_may_save_the_log(tmp_path, name):
    path = tmp_path / "metrics.csv"
    log_rows(MetricsLogger(path), [0, 10, 20, 30])
    whole = path.read_text()
    path.write_bytes(HARMLESS[name](whole))
    logger = MetricsLogger(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.truncate(30)
    assert path.read_text() == whole
    assert os.listdir(tmp_path) == ["metrics.csv"]


def without(table, row, column, cell):
    table[row][column] = cell


# what the log has no place for: the file is set aside. With each, the steps that can be read
HARMFUL = {
    "a column": (with_column(3), [0, 10, 20, 30]),
    "a column at the end": (with_column(99), [0, 10, 20, 30]),
    "a column named twice": (with_column(3, "lr", ("7", "7", "7", "7")), [0, 10, 20, 30]),
    "a cell beyond the columns": (edited(lambda t: t[2].append("!")), [0, 10, 20, 30]),
    "a word for a number": (edited(lambda t: without(t, 2, 4, "#DIV/0!")), [0, 10, 20, 30]),
    "a thousand's comma": (edited(lambda t: without(t, 2, 4, "1,234.5")), [0, 10, 20, 30]),
    "a comma among points": (edited(lambda t: without(t, 2, 4, "1,234")), [0, 10, 20, 30]),
    "a word for a step": (edited(lambda t: without(t, 2, 0, "ten")), [0, 20, 30]),
    "a step beyond all bounds": (edited(lambda t: without(t, 2, 0, "9" * 5000)), [0, 20, 30]),
    "no step": (edited(lambda t: without(t, 2, 0, "")), [0, 20, 30]),
    "a negative step": (edited(lambda t: without(t, 2, 0, "-10")), [0, 20, 30]),
    "another row of a step": (
        edited(lambda t: [*t[:3], [t[2][0], *t[4][1:2], *t[2][2:]], *t[3:]]),
        [0, 10, 20, 30],
    ),
    "half a line": (edited(lambda t: [*t[:3], t[3][:5], t[4]]), [0, 10, 30]),
    "half a last line": (lambda text: text[:-9].rpartition(",")[0].encode(), [0, 10, 20]),
    "lost names": (edited(lambda t: t[1:]), []),
    "another file": (lambda text: b"a shopping list\neggs\n", []),
    "two bytes a character": (lambda text: text.encode("utf-16"), []),
    "a note": (lambda text: text.encode() + b"the best so far", [0, 10, 20, 30]),
    "no text": (lambda text: bytes(range(256)) * 100, []),
    "a page": (lambda text: b"<html>" + text.encode() + b"</html>", []),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_what_the_log_has_no_place_for_is_set_aside(tmp_path, name):
    """Nothing vanishes without a word, and the log goes on with what could be read."""
    path = tmp_path / "metrics.csv"
    log_rows(MetricsLogger(path), [0, 10, 20, 30])
    whole, (change, steps) = path.read_text(), HARMFUL[name]
    theirs = change(whole)
    path.write_bytes(theirs)
    (tmp_path / "metrics.csv.1").write_text("an earlier one")
    logger = MetricsLogger(path)
    assert path.read_bytes() == theirs  # opened, and not touched yet
    with pytest.warns(UserWarning, match="it is kept as metrics.csv.2") as said:
        logger.truncate(30)
    assert len(said) == 1
    assert (tmp_path / "metrics.csv.2").read_bytes() == theirs
    assert (tmp_path / "metrics.csv.1").read_text() == "an earlier one"
    assert [row["step"] for row in MetricsLogger(path).rows] == steps
    log_rows(logger, [40])
    lines = path.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", *map(str, steps), "40"]
    assert len(os.listdir(tmp_path)) == 3


def test_of_two_rows_of_a_step_the_later_counts(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,val_lm_loss\n0,3\n10,2.5\n10,2.25\n5,2\n")
    rows = MetricsLogger(path).rows
    assert [(row["step"], row["val_lm_loss"]) for row in rows] == [(0, 3), (5, 2), (10, 2.25)]
    logger = MetricsLogger(tmp_path / "other.csv")
    log_rows(logger, [0, 10])
    logger.log(step=10, train_lm_loss=1.0, val_lm_loss=1.0)
    assert [row["val_lm_loss"] for row in logger.rows] == [2.5, 1.0]
    assert logger.rows[-1]["step"] == MetricsLogger(tmp_path / "other.csv").rows[-1]["step"] == 10
    assert len((tmp_path / "other.csv").read_text().splitlines()) == 3


def test_rows_after_the_resumed_step_are_replaced_not_doubled(tmp_path):
    path = tmp_path / "metrics.csv"
    log_rows(MetricsLogger(path), [0, 10, 20, 30])
    whole = path.read_text()
    start = whole[:-1].rfind("\n") + 1  # of the last line
    for torn in [*(whole[:end] for end in range(start, len(whole) + 1)), whole + "\0" * 99]:
        path.write_text(torn)  # of a crash while 30 was logged, or of an editor: it comes again
        logger = MetricsLogger(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            logger.truncate(20)
        log_rows(logger, [30])
        assert path.read_text() == whole
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_a_log_that_is_gone_is_said_and_begins_anew(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = MetricsLogger(path)
    with pytest.warns(UserWarning, match="is gone; the log goes on after step 20"):
        logger.truncate(20)
    log_rows(logger, [30])
    assert [row["step"] for row in MetricsLogger(path).rows] == [30]


def test_a_log_changed_while_the_run_goes_on(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = MetricsLogger(path)
    log_rows(logger, [0, 10])
    path.unlink()
    log_rows(logger, [20])
    assert [row["step"] for row in MetricsLogger(path).rows] == [0, 10, 20]
    path.write_bytes(semicolons(path.read_text()))
    log_rows(logger, [30])
    assert [row["step"] for row in MetricsLogger(path).rows] == [0, 10, 20, 30]
    mine = path.read_text() + "7" + ",1.5" * 14 + "\n"
    path.write_text(mine)
    with pytest.warns(UserWarning, match="kept as metrics.csv.1"):
        log_rows(logger, [40])
    assert (tmp_path / "metrics.csv.1").read_text() == mine
    assert [row["step"] for row in MetricsLogger(path).rows] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "unreadable"])
def test_what_is_no_file_is_set_aside(tmp_path, kind, monkeypatch):
    path = tmp_path / "metrics.csv"
    if kind == "a folder":
        path.mkdir()
        (path / "mine").write_text("mine")
    elif kind == "a pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes here")
        os.mkfifo(path)
    else:
        path.write_text("secret")

        def refuse(self):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    logger = MetricsLogger(path)
    with pytest.warns(UserWarning, match="kept as metrics.csv.1"):
        logger.truncate(0)
    monkeypatch.undo()
    assert (tmp_path / "metrics.csv.1").exists()
    log_rows(logger, [10])
    assert [row["step"] for row in MetricsLogger(path).rows] == [10]


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda text: text + b"9" * 50_000_000 + b"\n", [0, 10]),
        (lambda text: text + b'"' * 50_000_000 + b"\n", [0, 10]),
        (lambda text: text + b"\n" * 50_000_000, [0, 10]),
        (lambda text: text + b"1,2\n" * 5_000_000, [0, 10]),
        (lambda text: text + np.random.default_rng(0).bytes(50_000_000), [0, 10]),
        (lambda text: b"step," * 10_000_000, []),
        (lambda text: bytes(1 << 28), []),
    ],
    ids=["a line", "quotes", "empty lines", "short lines", "no text", "names", "too large"],
)
@pytest.mark.full
def test_50_megabytes_take_no_time(tmp_path, make, steps):
    path = tmp_path / "metrics.csv"
    log_rows(MetricsLogger(path), [0, 10])
    path.write_bytes(make(path.read_bytes()))
    start = time.perf_counter()
    logger = MetricsLogger(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.truncate(10)
    assert time.perf_counter() - start < 60  # on a busy machine; a slow way takes hours
    assert [row["step"] for row in logger.rows] == steps
    assert len(path.read_text()) < 1000


@pytest.mark.parametrize("name", [*HARMLESS, "a column", "no text"])
@pytest.mark.full
def test_a_resumed_run_is_bit_equal_whatever_the_log_is(tmp_path, corpus, small, name):
    config = TrainConfig(max_steps=20, batch_size=4, eval_interval=5, warmup_steps=2)

    def model():
        torch.manual_seed(0)
        return TinyGPT(small)

    whole = Trainer(model(), corpus, config, tmp_path / "whole")
    whole.fit(progress=False)
    stopped = Trainer(model(), corpus, config, tmp_path / "run")
    interrupt_after(stopped, 12)
    path = tmp_path / "run" / "metrics.csv"
    change = HARMLESS[name] if name in HARMLESS else HARMFUL[name][0]
    path.write_bytes(change(path.read_text()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resumed = Trainer.resume(tmp_path / "run", corpus)
    resumed.fit(progress=False)
    assert same_state(resumed.model, whole.model)
    kept = [] if name == "no text" else [0, 5, 10]
    assert [row["step"] for row in resumed.metrics.rows] == [*kept, 15, 20]


def test_truncate_forgets_what_comes_again(tmp_path):
    logger = MetricsLogger(tmp_path / "metrics.csv")
    log_rows(logger, [0, 10, 20, 30])
    logger.truncate(10)
    assert [row["step"] for row in MetricsLogger(tmp_path / "metrics.csv").rows] == [0, 10]


def test_numbers_of_other_libraries_are_written_as_numbers(tmp_path):
    logger = MetricsLogger(tmp_path / "metrics.csv")
    logger.log(step=np.int64(3), train_lm_loss=np.float64(2), val_lm_loss=torch.tensor(2.5))
    (row,) = MetricsLogger(tmp_path / "metrics.csv").rows
    assert (row["step"], row["train_lm_loss"], row["val_lm_loss"]) == (3, 2.0, 2.5)


def test_a_log_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TinyGPTError, match="could not write .*metrics.csv"):
        log_rows(MetricsLogger(tmp_path / "file" / "metrics.csv"), [0])


def test_a_hopeless_loss_does_not_overflow():
    logger = MetricsLogger()
    assert logger.log(step=0, train_lm_loss=1e4, val_lm_loss=1e4)["val_perplexity"] > 1e300


def test_unknown_columns_are_named():
    with pytest.raises(ConfigError, match="no column accuracy"):
        MetricsLogger().log(step=0, train_lm_loss=1.0, val_lm_loss=1.0, accuracy=1.0)
