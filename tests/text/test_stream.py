import tracemalloc

import numpy as np
import pytest
import torch

from tests.tools import ByteTokenizer, byte_tokenizer
from tinygpt import load_corpus
from tinygpt.errors import CorpusError
from tinygpt.text import corpus as module
from tinygpt.text import get_batch, stream, tokenizer


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
        assert corpus.val_size == plain.val_size


def test_a_file_is_encoded_by_any_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "PIECE", 10)  # also in the middle of a token
    text, tok = "the cat sat. é😀\n" * 9, byte_tokenizer()
    (tmp_path / "text.txt").write_text(text, encoding="utf-8", newline="\n")
    stream.encode_file(tmp_path / "text.txt", tok, tmp_path / "tokens")
    assert tok.decode(np.fromfile(tmp_path / "tokens", dtype="<u2")) == text


def test_more_tokens_than_sixteen_bits_can_number(tmp_path):
    tok = ByteTokenizer([bytes([i >> 16, i >> 8 & 255, i & 255]) for i in range((1 << 16) + 1)])
    with pytest.raises(CorpusError, match="65537 different tokens, above the 65,536"):
        stream.encode_file(tmp_path / "text.txt", tok, tmp_path / "tokens")


def test_the_size_of_a_large_split_is_counted_without_a_copy(home, monkeypatch):
    root, _ = home
    monkeypatch.setattr(module, "MEMMAP_BYTES", 100)
    monkeypatch.setattr(tokenizer, "CHUNK", 1000)
    (root / "large.txt").write_text("abcdé" * 1_000_000, encoding="utf-8")
    corpus = load_corpus("file:large.txt")
    tracemalloc.start()
    assert corpus.val_size.bytes == 600_000
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
