"""Figures are shown by a kernel as they are, and saved with what is to be seen in them."""

import base64
import html.parser
import struct

import numpy as np
from IPython.core.formatters import DisplayFormatter

from tinygpt import plots
from tinygpt.plots import base


class Images(html.parser.HTMLParser):
    """The attributes of each image of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        assert tag == "img"
        self.found.append(dict(attributes))


def shown(figure):
    """What a kernel sends of a figure."""
    data, _ = DisplayFormatter().format(figure)
    return data


def test_a_figure_shows_itself_as_an_image_with_its_finding_and_as_words():
    figure = plots.plot_bars("ab", [1, 2], "count")
    figure.alt = 'b is "twice" as high <as> a & more'
    data = shown(figure)
    assert set(data) == {"text/html", "text/plain"}  # a picture is in the file once
    assert data["text/plain"] == figure.alt
    (image,) = Images(data["text/html"]).found
    assert image["alt"] == figure.alt
    kind, points = image["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(points).startswith(b"\x89PNG")
    width, height = struct.unpack(">II", base64.b64decode(points)[16:24])
    assert (width, height) == (900, 280)


def test_a_figure_without_a_finding_is_still_shown():
    data = shown(plots.Picture(figsize=(2, 1)))
    assert data["text/plain"].startswith("<Picture size")
    assert Images(data["text/html"]).found[0]["alt"] == ""


def test_a_saved_figure_says_what_is_to_be_seen(tmp_path):
    figure = plots.plot_bars("ab", [1, 2], "count")
    figure.alt = "b is twice as high as a"
    figure.save(tmp_path / "bars.svg")
    assert f"<title>{figure.alt}</title>" in (tmp_path / "bars.svg").read_text(encoding="utf-8")
    figure.save(tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_extremes_are_the_highest_values_and_the_lowest():
    assert base.extremes("abc", [1, 3, 2]) == "b 3, c 2, a 1"
    assert base.extremes("abcdef", [1, 3, 2, 0, 5, np.nan]) == "highest e 5, b 3, c 2; lowest d 0"
    assert base.extremes("a", [np.nan]) == "no values"
