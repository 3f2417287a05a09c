import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tinygpt import PRESETS, MetricsLogger, TinyGPT
from tinygpt.errors import ConfigError, TinyGPTError
from tinygpt.metrics import count_parameters, evaluate, flops_per_token, surprisal


@pytest.mark.parametrize("length", [2, 16, 17, 18, 100, 4097])
def test_every_token_but_the_first_is_predicted_once(small, length):
    torch.manual_seed(0)
    model = TinyGPT(small)
    tokens = torch.randint(small.vocab_size, (length,))
    losses = []
    for start in range(0, length - 1, small.block_size):
        window = tokens[start : start + small.block_size + 1][None]
        logits = model(window[:, :-1]).logits[0].double()
        losses += torch.nn.functional.cross_entropy(
            logits, window[0, 1:], reduction="none"
        ).tolist()
    assert len(losses) == length - 1
    assert evaluate(model, tokens) == pytest.approx(sum(losses) / len(losses), abs=1e-6)


def test_evaluation_leaves_the_mode_and_ignores_dropout(small):
    model = TinyGPT(replace(small, dropout=0.5)).train()
    tokens = torch.randint(small.vocab_size, (200,))
    assert evaluate(model, tokens) == evaluate(model, tokens)
    assert model.training


def test_a_limit_takes_windows_from_the_whole_split(small):
    model = TinyGPT(small)
    easy, hard = torch.zeros(1000, dtype=torch.long), torch.randint(small.vocab_size, (1000,))
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    tokens = torch.cat([easy, hard])
    whole, part = evaluate(model, tokens), evaluate(model, tokens, max_tokens=400)
    only_easy = evaluate(model, easy)
    assert abs(part - whole) < 0.5 * abs(only_easy - whole)
    assert evaluate(model, tokens, max_tokens=10_000) == whole
    assert evaluate(model, tokens[:10], max_tokens=5) == evaluate(model, tokens[:10])


@pytest.mark.parametrize("length", [1, 2, 16, 17, 30, 100])
def test_surprisal_is_that_of_the_longest_window_at_hand(small, length):
    model = TinyGPT(small).eval()
    tokens = torch.randint(small.vocab_size, (length,))
    nats = surprisal(model, tokens)
    T = small.block_size
    assert math.isnan(nats[0])
    for t in range(1, length):
        start = max(0, T // 2 * math.ceil((t - T) / (T // 2)))
        logits = model(tokens[start:t][None]).logits[0, -1]
        expected = -logits.log_softmax(0)[tokens[t]].item()
        assert nats[t].item() == pytest.approx(expected, abs=1e-5)


def test_a_split_without_a_target_is_refused(small):
    with pytest.raises(ConfigError, match="at least 2 tokens, this split has 1"):
        evaluate(TinyGPT(small), torch.tensor([0]))


def test_parameters_of_the_tiny_model_by_hand():
    V, T, C, layers = 65, 32, 64, 2
    block = 12 * C * C + 13 * C  # weights; biases and two norms
    count = count_parameters(TinyGPT(PRESETS["tiny"].model))
    assert count.embedding == V * C + T * C
    assert count.total == count.active == V * C + T * C + layers * block + 2 * C
    untied = count_parameters(TinyGPT(replace(PRESETS["tiny"].model, tie_embeddings=False)))
    assert untied.total == count.total + V * C


@pytest.mark.parametrize("preset", ["tiny", "modern"])
def test_flops_equal_torchs_own_counter(preset):
    config = PRESETS[preset].model
    model, idx = TinyGPT(config), torch.randint(65, (2, config.block_size))
    with FlopCounterMode(display=False) as forward:
        loss = model(idx, idx, return_attention=True).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert forward.get_total_flops() == idx.numel() * flops_per_token(model, training=False)
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == idx.numel() * flops_per_token(model)


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
    assert frame["val_bits_per_char"][0] == pytest.approx(2.5 / math.log(2))
    assert math.isnan(frame["grad_norm"][0])


def test_pandas_reads_back_what_was_written(tmp_path):
    import pandas as pd

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


def test_plot_draws_both_splits_and_the_baselines():
    logger = MetricsLogger()
    log_rows(logger, [0, 10, 20])
    figure = logger.plot(baselines={"bigram": 2.45})
    left, right = figure.axes
    assert [line.get_label() for line in left.lines[:2]] == ["train", "val"]
    assert list(left.lines[1].get_ydata()) == [2.5] * 3
    assert right.lines[1].get_ydata()[0] == pytest.approx(math.exp(2.5))
    assert "bigram" in [text.get_text() for text in left.texts]
