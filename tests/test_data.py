import hashlib

import numpy as np
import pytest
import torch

from tinygpt import data, load_corpus
from tinygpt.data import check_tokens, get_batch, take
from tinygpt.errors import ConfigError, CorpusError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A repository root of our own, with one registered corpus, and no network."""
    text = "to be or not to be\n" * 20
    digest = hashlib.sha256(text.encode()).hexdigest()
    remote = data.Remote("input.txt", "http://127.0.0.1:9/input.txt", digest, "none")
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.setattr(data, "REGISTRY", {"hamlet": remote})
    monkeypatch.delenv("TINYGPT_DATA", raising=False)
    return tmp_path, text


def put(folder, text):
    folder.mkdir(parents=True)
    (folder / "input.txt").write_text(text, encoding="utf-8", newline="\n")


def test_split_and_text(home):
    root, text = home
    put(root / "data" / "hamlet", text)
    corpus = load_corpus("hamlet")
    assert corpus.text == text
    assert len(corpus.train) == int(0.9 * len(text))
    decoded = corpus.tokenizer.decode(torch.cat([corpus.train, corpus.val]))
    assert decoded == text
    assert corpus.floor is None
    assert "hamlet" in repr(corpus)


def test_look_up_order_own_folder_then_environment(home, monkeypatch):
    root, text = home
    put(root / "elsewhere" / "hamlet", text)
    monkeypatch.setenv("TINYGPT_DATA", "elsewhere")  # relative to the repository
    assert load_corpus("hamlet").source == "$TINYGPT_DATA/hamlet/input.txt"
    put(root / "data" / "hamlet", text)
    assert load_corpus("hamlet").source == "data/hamlet/input.txt"


def test_nowhere_to_be_had(home, capsys):
    root, _ = home
    with pytest.raises(CorpusError, match=r"hamlet is not on this machine.*--corpus tinyplays"):
        load_corpus("hamlet")
    assert load_corpus("hamlet", fallback="tinyplays").name == "tinyplays"
    assert "Going on with tinyplays" in capsys.readouterr().out
    assert not (root / "data" / "hamlet" / "input.txt").exists()


def test_a_damaged_text_is_refused_unless_there_is_a_good_one(home, monkeypatch):
    root, text = home
    put(root / "data" / "hamlet", text[:-1])
    with pytest.raises(CorpusError, match="is not the text it should be.*Delete it"):
        load_corpus("hamlet")
    put(root / "elsewhere" / "hamlet", text)
    monkeypatch.setenv("TINYGPT_DATA", str(root / "elsewhere"))
    assert load_corpus("hamlet").text == text


def test_unknown_corpus_and_missing_file(home):
    with pytest.raises(CorpusError, match=r"unknown corpus 'macbeth'.*hamlet, tinyplays"):
        load_corpus("macbeth")
    with pytest.raises(CorpusError, match=r"there is no file .*nowhere.txt"):
        load_corpus("file:nowhere.txt")


def test_own_text_byte_order_mark_and_windows_line_ends(home):
    root, _ = home
    (root / "mine.txt").write_bytes("\ufeffolá\r\nmundo\r\n".encode())
    assert load_corpus("file:mine.txt").text == "olá\nmundo\n"


@pytest.mark.parametrize(
    ("content", "words"), [(b"caf\xe9 au lait", "not UTF-8.*byte 3"), (b"", "is empty")]
)
@pytest.mark.parametrize("large", [False, True])
def test_own_text_that_cannot_be_read(home, monkeypatch, content, words, large):
    root, _ = home
    if large and content:
        monkeypatch.setattr(data, "MEMMAP_BYTES", 1)
    (root / "mine.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=words):
        load_corpus("file:mine.txt")


def test_a_large_text_is_memory_mapped_and_the_same(home, monkeypatch):
    root, _ = home
    text = "Zwölf Boxkämpfer 😀\n" * 500
    (root / "large.txt").write_text(text, encoding="utf-8", newline="\n")
    plain = load_corpus("file:large.txt")
    monkeypatch.setattr(data, "MEMMAP_BYTES", 100)
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


def test_batches_are_windows_and_their_successors():
    tokens = torch.arange(100)
    x, y = get_batch(tokens, 64, 8, torch.Generator().manual_seed(3))
    assert x.shape == y.shape == (64, 8)
    assert torch.equal(y, x + 1)
    assert torch.equal(x, x[:, :1] + torch.arange(8))
    again, _ = get_batch(tokens, 64, 8, torch.Generator().manual_seed(3))
    assert torch.equal(x, again)


def test_every_window_can_be_drawn():
    tokens = torch.arange(12)
    x, y = get_batch(tokens, 2000, 8, torch.Generator().manual_seed(0))
    assert set(x[:, 0].tolist()) == {0, 1, 2, 3}
    assert y.max() == 11


def test_splits_that_cannot_be_trained_on():
    with pytest.raises(ConfigError, match="train split has 8 tokens.*block_size=8.*need 9"):
        check_tokens(torch.arange(8), 8, 65, "train")
    with pytest.raises(ConfigError, match="token 65, but the model's vocab_size is 65"):
        check_tokens(torch.tensor([0, 65, 1]), 2, 65, "validation")


def test_tinyplays_is_a_corpus_with_a_floor():
    corpus = load_corpus("tinyplays")
    counts = np.bincount(corpus.val.numpy())
    share = counts[counts > 0] / counts.sum()
    unigram = -(share * np.log(share)).sum()
    assert 0 < corpus.floor < unigram / 2
    assert len(corpus.train) + len(corpus.val) == len(corpus.text)


def test_sixteen_bits_hold_every_id():
    tokens = torch.tensor([0, 1, 32767, 32768, 65535]).to(torch.uint16)
    assert take(tokens, torch.arange(5)).tolist() == [0, 1, 32767, 32768, 65535]


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint16])
def test_batches_are_the_same_on_cuda(dtype):
    tokens = torch.randint(50_000, (1000,)).to(dtype)
    x, y = get_batch(tokens, 4, 8, torch.Generator().manual_seed(0))
    a, b = get_batch(tokens.cuda(), 4, 8, torch.Generator().manual_seed(0))
    assert torch.equal(x, a.cpu())
    assert torch.equal(y, b.cpu())
