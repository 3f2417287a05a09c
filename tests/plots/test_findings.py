"""Every figure says what it shows, and none is taller than the window.

The data are as large as the largest that a notebook draws.
"""

import base64
import re
import struct

import numpy as np
import pandas as pd
import pytest

from tinygpt import plots
from tinygpt.measure import Way

from .test_settling import development

WINDOW = 560  # points of 1366 by 768 that JupyterLab leaves for a cell's output
RANDOM = np.random.default_rng(0)
WORDS = "the expert of a character, and how surely the router chose it: a page\n"
CHARACTERS = [chr(33 + i) for i in range(63)] + [" ", "\n"]


def maps(heads, size):
    rows = np.tril(RANDOM.random((heads, size, size)))
    return rows / rows.sum(-1, keepdims=True)


def training():
    losses = {f"{split}_lm_loss": np.linspace(4, 1.5, 30) for split in ("train", "val")}
    other = {f"{split}_perplexity": np.exp(np.linspace(4, 1.5, 30)) for split in ("train", "val")}
    rates = {"lr": 0.1, "grad_norm": 1.0, "load_cv": 0.3, "step": np.arange(30)}
    return pd.DataFrame({"epoch": np.linspace(0, 3, 30)} | losses | other | rates)


def scaling():
    sizes = {"varied": "context", "what": "step", "size": [64, 128], "us_per_token": [1.0, 2.0]}
    return pd.DataFrame(sizes | {"slope_us_per_token": 0.5, "slope_mflop_per_token": 0.4})


def tricks():
    frame = {"recipe": [f"recipe {i}" for i in range(34)], "change": RANDOM.normal(0, 0.1, 34)}
    frame |= {"half_interval": 0.03, "p_holm": RANDOM.uniform(0, 0.1, 34)}
    return pd.DataFrame(frame | {"seconds_to_goal": np.arange(34) + 2.0})


def differences():
    frame = {"first": "top-1", "second": [f"arm {i}" for i in range(14)], "equal": "parameters"}
    numbers = {"difference": RANDOM.normal(0, 0.1, 14), "low": -0.2, "high": 0.2, "p_holm": 0.1}
    return pd.DataFrame(frame | numbers)


def study():
    rows = [
        {"arm": f"arm {a}", "seed": s, "step": n, "tokens": n, "flops": n, "val_loss": 3 - n / 100}
        for a in range(11)
        for s in (1, 2)
        for n in range(0, 101, 10)
    ]
    return pd.DataFrame(rows)


def heads():
    figures = {name: RANDOM.random(144) for name in plots.HEAD_FIGURES}
    return pd.DataFrame({"arm": "dense", "layer": np.arange(144) // 12} | figures)


def way():
    stream = {name: RANDOM.normal(size=64) for name in ("embedding", "+ attention 0", "+ MLP 0")}
    head, seen = RANDOM.normal(size=(3, 16)), RANDOM.dirichlet(np.ones(9), 2)
    return Way(8, 0, 3, stream, *head, *seen, RANDOM.normal(size=65))


EXAMPLES = {
    "plot_all_heads": lambda: plots.plot_all_heads([maps(12, 64)] * 12),
    "plot_attention": lambda: plots.plot_attention(maps(1, 64), WORDS[:64], ["head 0"], size=6),
    "plot_bars": lambda: plots.plot_bars(CHARACTERS, RANDOM.random(65), "% of the text"),
    "plot_co_activation": lambda: plots.plot_co_activation(RANDOM.random((64, 64))),
    "plot_convergence": lambda: plots.plot_convergence(training()),
    "plot_descent": lambda: plots.plot_descent([0, 1, 2], [3, 2, 3], {"rate 1": [(0, 3)]}, "w"),
    "plot_differences": lambda: plots.plot_differences(differences()),
    "plot_expert_distribution": lambda: plots.plot_expert_distribution(
        RANDOM.random((12, 64)), range(12)
    ),
    "plot_filters": lambda: plots.plot_filters(
        [("model", RANDOM.dirichlet(np.ones(65)))] * 6, CHARACTERS, title="After 'ROMEO:'"
    ),
    "plot_heads": lambda: plots.plot_heads(heads(), dict.fromkeys(plots.HEAD_FIGURES, 0.5)),
    "plot_intervals": lambda: plots.plot_intervals(
        {"surprise": {f"strategy {i}": (i, i - 1, i + 1) for i in range(20)}}, "strategy 3"
    ),
    "plot_lines": lambda: plots.plot_lines(
        range(200), {f"line {i}": RANDOM.random(200) for i in range(9)}, "x", "y", "", {"even": 0.5}
    ),
    "plot_loads": lambda: plots.plot_loads(RANDOM.dirichlet(np.ones(64), 4), "abcd"),
    "plot_page": lambda: plots.plot_page(25 * WORDS, RANDOM.random(25 * len(WORDS)), "surprise"),
    "plot_routing": lambda: plots.plot_routing(
        8 * WORDS, RANDOM.integers(0, 8, 8 * len(WORDS)), RANDOM.random(8 * len(WORDS)), 8
    ),
    "plot_routing_over_training": lambda: plots.plot_routing_over_training(development()),
    "plot_scaling": lambda: plots.plot_scaling(scaling()),
    "plot_seeds": lambda: plots.plot_seeds({f"arm {i}": {1: i, 2: i + 0.5} for i in range(14)}),
    "plot_specialisation": lambda: plots.plot_specialisation(development(), ["class", "style"]),
    "plot_study_curves": lambda: plots.plot_study_curves(study(), {}, "tokens"),
    "plot_table": lambda: plots.plot_table(
        RANDOM.random((65, 65)), CHARACTERS, CHARACTERS, "next", "current", "p(next)", size=7
    ),
    "plot_training": lambda: plots.plot_training(training(), {"bigram": 2.48}),
    "plot_window": lambda: plots.plot_window(CHARACTERS[-33:]),
    "plot_tricks": lambda: plots.plot_tricks(tricks(), 1.88),
    "plot_way": lambda: plots.plot_way(way(), CHARACTERS[:9], CHARACTERS),
}


def test_there_is_an_example_of_every_figure():
    assert set(EXAMPLES) == {name for name in plots.__all__ if name.startswith("plot_")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_figure_says_what_it_shows_and_fits_the_window(name):
    figure = EXAMPLES[name]()
    points = base64.b64decode(figure.image.split(",")[-1])
    width, height = struct.unpack(">II", points[16:24])
    assert height <= WINDOW
    assert width <= 1300 or height < WINDOW  # a viewer would make it smaller still
    assert width / figure.get_figwidth() > 0.6 * figure.dpi  # letters can still be read
    assert re.search(r"\d", figure.alt), "no figure of this run is in it"
    assert figure.alt.endswith(".")
    assert "\n" not in figure.alt
    assert "nan" not in figure.alt
    assert len(figure.alt) < 7000


def test_findings_are_those_of_the_data():
    bars = plots.plot_bars(" \nab", [1, 5, 2, 3], "count", "Letters")
    assert bars.alt == "Letters, count, 4 bars: line end 5, b 3, a 2, space 1."
    table = plots.plot_table(np.array([[1, 9], [3, np.nan]]), "a ", "bc", "next", "now")
    assert table.alt == (
        "Heat map: 2 rows (now) by 2 columns (next): row a column c 9, row space column b 3, "
        "row a column b 1."
    )
    page = plots.plot_page("ab\ncd", [np.nan, 1, 2, 3, 0], "nats")
    assert page.alt == (
        "A page of text: nats, of 4 characters: mean 1.50; c after “ab⏎” 3, line end after “ab” 2, "
        "b after “a” 1, d after “ab⏎c” 0."
    )
    filters = plots.plot_filters([("model", [0.5, 0.25, 0.25]), ("top-k 1", [1, 0, 0])], " ab")
    assert filters.alt == (
        "Next character, after each step. model: 3 characters, entropy 1.04 nats, most probable "
        "space 0.50; top-k 1: 1 characters, entropy 0.00 nats, most probable space 1.00."
    )
    lines = plots.plot_lines([0, 1, 2], {"a": [2, 1, 3], "b": [1, 2, 4]}, "x", "y", "", {"even": 2})
    assert lines.alt == (
        "Lines: y against x from 0 to 2. a from 2 to 3, lowest 1 at 1; b from 1 to 4; dotted: "
        "even 2."
    )
    named = plots.plot_lines(["one", "two"], {"a": [2, 1]}, "x", "y")
    assert named.alt == "Lines: y against x from one to two. a from 2 to 1."
    many = {name: (i, i - 1, i + 1) for i, name in enumerate("abcd")}
    assert plots.plot_intervals({"loss": many}, "b").alt == (
        "Means, with their confidence intervals. loss, highest, lowest: d 3 (2 to 4), a 0 (-1 to "
        "1), b 1 (0 to 2)."
    )
    routed = plots.plot_routing("abcd", [0, 0, 1, 2], [1, 1, 1, 1], 2)
    assert routed.alt == (
        "The expert of each character: of 4 characters as first choice expert 0 50 %, "
        "expert 1 25 %."
    )
    seeds = plots.plot_seeds({"tuned": {1: 3.5, 2: 3.75}, "scratch": {1: 4.5}})
    assert seeds.alt == (
        "Validation loss of each arm, the mean and its runs: tuned 3.625 from 3.500 to 3.750; "
        "scratch 4.500 from 4.500 to 4.500."
    )
    window = plots.plot_window(["a", "b ", "\n", "c"])
    assert window.alt == (
        "A window of 3 inputs and 3 targets: after “a” comes “b␣”, after “ab␣” comes “⏎”, after "
        "“ab␣⏎” comes “c”."
    )
    loads = plots.plot_loads([[0.1, 0.9]], ["layer 0"])
    assert loads.alt == (
        "Share of the choices by expert; an even one is 50 %. layer 0: expert 0 10 %, "
        "expert 1 90 %."
    )
