"""Figures are shown by a kernel as they are, and saved with what is to be seen in them."""

from tinygpt import plots


def test_a_figure_shows_itself_as_png():
    figure = plots.plot_bars("ab", [1, 2], "count")
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_saved_figure_says_what_is_to_be_seen(tmp_path):
    figure = plots.plot_bars("ab", [1, 2], "count")
    figure.alt = "b is twice as high as a"
    figure.save(tmp_path / "bars.svg")
    assert f"<title>{figure.alt}</title>" in (tmp_path / "bars.svg").read_text(encoding="utf-8")
    figure.save(tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
