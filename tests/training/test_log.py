import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from tinygpt import MetricsLogger
from tinygpt.errors import ConfigError, TinyGPTError


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
    for end in range(start, len(whole)):
        path.write_text(whole[:end])
        logger = MetricsLogger(path)
        assert [row["step"] for row in logger.rows] == [0, 10]
        log_rows(logger, [20])
        assert path.read_text() == whole


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


def test_unknown_columns_and_missing_loggers_are_named(monkeypatch):
    with pytest.raises(ConfigError, match="no column accuracy"):
        MetricsLogger().log(step=0, train_lm_loss=1.0, val_lm_loss=1.0, accuracy=1.0)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        MetricsLogger(tensorboard=True)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        MetricsLogger(wandb="project")
