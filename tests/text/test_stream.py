import torch

from tinygpt import load_corpus
from tinygpt.text import corpus as module
from tinygpt.text import get_batch


def test_a_large_text_is_memory_mapped_and_the_same(home, monkeypatch):
    root, _ = home
    text = "Zwölf Boxkämpfer 😀\n" * 500
    (root / "large.txt").write_text(text, encoding="utf-8", newline="\n")
    plain = load_corpus("file:large.txt")
    monkeypatch.setattr(module, "MEMMAP_BYTES", 100)
    for corpus in (load_corpus("file:large.txt"), load_corpus("file:large.txt")):  # made, reused
        assert corpus.train.dtype == torch.uint16
        assert corpus.tokenizer == plain.tokenizer
        assert torch.equal(corpus.train.long(), plain.train)
        assert torch.equal(corpus.val.long(), plain.val)
        x, y = get_batch(corpus.train, 4, 8, torch.Generator().manual_seed(0))
        a, b = get_batch(plain.train, 4, 8, torch.Generator().manual_seed(0))
        assert torch.equal(x, a)
        assert torch.equal(y, b)
        assert x.dtype == torch.int64
