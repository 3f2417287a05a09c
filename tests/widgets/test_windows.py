import re
from dataclasses import replace

import torch

from tinygpt import load_corpus
from tinygpt.widgets import window_explorer

from ..tools import byte_tokenizer


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


def test_tokens_of_several_characters_and_parts_of_one(corpus):
    tokenizer = byte_tokenizer()
    tokens = torch.tensor(tokenizer.encode("the cat sat é\n\n" * 9))
    explorer = window_explorer(replace(corpus, tokenizer=tokenizer, train=tokens), block_size=4)
    shown = explorer.view.value
    tiles = re.findall(r">([^<>]+)</span><br><small>(\d+)<", shown)
    x, y = ["the", "␣cat", "␣sat", "&lt;20&gt;&lt;C3&gt;"], "&lt;A9&gt;"
    assert [piece for piece, _ in tiles] == [*x, *x[1:], y]
    assert [int(i) for _, i in tiles] == [*tokens[:4], *tokens[1:5]]
    assert "4 examples in one window" in shown
    explorer.start.value, explorer.block_size.value = explorer.start.max, 9
    assert "⏎⏎" in explorer.view.value
