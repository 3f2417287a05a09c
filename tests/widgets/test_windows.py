from tinygpt import load_corpus
from tinygpt.widgets import window_explorer


def test_window_explorer_shows_inputs_targets_and_examples(corpus):
    explorer = window_explorer(corpus, start=4, block_size=3)
    first = explorer.view.value
    x, y = corpus.train[4:7].tolist(), corpus.train[5:8].tolist()
    for i in x + y:
        assert f"<small>{i}</small>" in first
    assert "3 examples in one window" in first
    explorer.start.value = 5
    assert explorer.view.value != first
    explorer.start.value = 4
    assert explorer.view.value == first
    explorer.block_size.value = 20
    assert "20 examples in one window (the middle left out)" in explorer.view.value


def test_window_explorer_reaches_the_end_of_the_text(corpus):
    explorer = window_explorer(corpus)
    explorer.block_size.value = explorer.block_size.max
    explorer.start.value = explorer.start.max
    assert f"{explorer.block_size.max} examples" in explorer.view.value


def test_characters_are_escaped_and_visible(tmp_path):

    path = tmp_path / "t.txt"
    path.write_text("<b> &\n" * 30, newline="\n")
    shown = window_explorer(load_corpus(f"file:{path}"), block_size=6).view.value
    assert "&lt;" in shown
    assert "&amp;" in shown
    assert "␣" in shown
    assert "⏎" in shown
    assert "<b>" not in shown
