import doctest
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tinygpt import PRESETS, MetricsLogger, TinyGPT, metrics
from tinygpt.errors import ConfigError, TinyGPTError
from tinygpt.metrics import (
    bootstrap_interval,
    count_parameters,
    distinct_n,
    evaluate,
    flops_per_token,
    repetition_rate,
    surprisal,
    valid_word_share,
    words,
)


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


def test_docstrings_show_what_comes_out():
    result = doctest.testmod(metrics)
    assert result.attempted >= 4
    assert result.failed == 0


def test_words_are_small_and_keep_their_inner_apostrophes():
    assert words("Tis't O'er, 'twas -- ROMEO's 3 Ação\nend") == [
        "tis't",
        "o'er",
        "twas",
        "romeo's",
        "ação",
        "end",
    ]
    assert words("") == words("... 12") == []


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_n_counts_runs_of_words(n):
    assert distinct_n("a b c d e f", n) == 1
    assert distinct_n("go Go GO go go go", n) == 1 / (7 - n)
    assert math.isnan(distinct_n("one " * (n - 1), n))


def test_repetition_marks_only_the_later_of_two_equal_runs():
    line = "the cat sat on the mat. "
    assert repetition_rate("abcdefghijklmnopqrstuvwxyz") == 0
    assert repetition_rate(line + "So " + line, n=20) == len(line) / (2 * len(line) + 3)
    assert repetition_rate("x" * 100, n=10) == pytest.approx(0.99)  # all but the first
    assert repetition_rate("short", n=12) == 0
    assert math.isnan(repetition_rate(""))


@pytest.mark.parametrize("n", [1, 3, 8])
def test_repetition_equals_a_plain_search(n):
    generator = torch.Generator().manual_seed(n)
    text = "".join("ab c"[i] for i in torch.randint(4, (60,), generator=generator))
    repeats = [i for i in range(60 - n + 1) if text[i : i + n] in text[: i + n - 1]]
    covered = {t for i in repeats for t in range(i, i + n)}
    assert repetition_rate(text, n) == pytest.approx(len(covered) / 60)


def test_valid_words_leave_out_one_that_may_be_cut_off():
    known = {"the", "sea", "season"}
    assert valid_word_share("The sea, the seax, the sea", known) == 4 / 5
    assert valid_word_share("The sea.", known) == 1
    assert valid_word_share("the seaso", known) == 1
    assert math.isnan(valid_word_share("seaso", known))


@pytest.mark.parametrize("function", [distinct_n, repetition_rate])
def test_runs_of_nothing_are_refused(function):
    with pytest.raises(ConfigError, match="n=0 must be at least 1"):
        function("to be", 0)


def test_bootstrap_interval_holds_the_true_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(400):
        mean, low, high = bootstrap_interval(torch.randn(50, generator=generator) + 3, draws=500)
        assert low < mean < high
        hits += low < 3 < high
    assert 0.90 < hits / 400 < 0.98


def test_bootstrap_interval_has_the_width_of_theory_and_is_repeatable():
    values = torch.randn(200, generator=torch.Generator().manual_seed(1))
    mean, low, high = bootstrap_interval(values, draws=20_000)
    half = 1.96 * values.std().item() / math.sqrt(200)
    assert mean == pytest.approx(values.mean().item(), abs=1e-6)
    assert (mean - low, high - mean) == pytest.approx((half, half), rel=0.05)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(torch.ones(5)) == (1, 1, 1)
    narrow = bootstrap_interval(values, level=0.5)
    assert low < narrow[1] < narrow[2] < high


def test_an_interval_needs_values_and_a_level():
    for values, level in ((torch.ones(1), 0.95), (torch.ones(9), 1.0)):
        with pytest.raises(ConfigError, match="at least 2 values and a level between 0 and 1"):
            bootstrap_interval(values, level)


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
