import re

import matplotlib
import numpy as np

from tinygpt.widgets import attention_chart as chart


def test_colours_from_the_lowest_to_the_highest():
    cividis = matplotlib.colormaps["cividis"]
    weights, scores = chart.Scale(0, 1, root=True), chart.Scale(-4, 4)
    assert weights.shares(np.array([0, 0.01, 0.25, 1])).tolist() == [0, 0.1, 0.5, 1]
    assert scores.shares(np.array([-4, 0, 2, 9])).tolist() == [0, 0.5, 0.75, 1]
    assert weights.colours(np.array([0.25])).tolist() == [list(cividis(0.5, bytes=True))]
    assert scores.colours(np.array([-4.0, np.nan])).tolist() == [
        list(cividis(0.0, bytes=True)),
        [0, 0, 0, 0],
    ]
    assert scores.ticks() == [-4, -2, 0, 2, 4]
    assert chart.Scale(3, 3).shares(np.array([3.0])).tolist() == [0]  # one token alone


def luminance(colour):
    """As WCAG 2 defines it."""
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_letters_can_be_read_on_every_colour():
    for value in np.linspace(0, 1, 101):
        style = chart.Scale(0, 1).style(value)
        background = luminance(list(map(int, re.findall(r"\d+", style)[:3])))
        letters = luminance([0x11] * 3 if "#111" in style else [255] * 3)
        bright, dark = max(background, letters), min(background, letters)
        assert (bright + 0.05) / (dark + 0.05) > 4


def test_thumbnails_fit_their_wall_and_names_where_there_is_room():
    scale = chart.Scale(0, 1, root=True)
    for L, H in ((1, 1), (4, 4), (6, 6), (12, 12), (40, 3)):
        maps = np.full((L, H, 5, 5), 0.2)
        page = chart.wall(maps, scale, (0, 0), [], {(0, 0): -0.25})
        sizes = set(map(int, re.findall(r"width:(\d+)px", page)))
        (size,) = sizes
        assert chart.TINY <= size <= chart.SMALL
        assert H * (size + 4) <= chart.WALL
        assert ("head 0</b>" in page) == (size >= chart.ROOMY)
        assert "layer 0, head 0: −0.250 nats without it" in page
        assert ("−0.250</div>" in page) == (size >= chart.ROOMY)
