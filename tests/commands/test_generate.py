"""The command: python -m tinygpt generate."""

import io
import sys
from dataclasses import fields

import pytest
import torch

from tinygpt import DecodingConfig, ModelConfig, TinyGPT, cli, generate, load_run
from tinygpt.commands.generate import GenerateArgs
from tinygpt.text import BPETokenizer
from tinygpt.training import Checkpoint, save_checkpoint

from .conftest import one_line


def written(capsys, *flags, run="laptop"):
    assert cli.main(["generate", run, *flags]) == 0
    return capsys.readouterr().out


def test_without_a_seed_the_text_is_another_each_time_and_with_one_the_same(capsys):
    """As in two new processes, whose global generators start alike."""
    texts = []
    for seed in ((), (), ("--seed", "3"), ("--seed", "3")):
        torch.manual_seed(0)
        texts.append(written(capsys, "--max-new-tokens", "40", *seed))
    assert texts[0] != texts[1]
    assert texts[2] == texts[3]


def test_a_text_is_what_the_function_writes(capsys):
    flags = r"--prompt=ROMEO:\nI --top_k=20 --min-p 0.01 --max_tokens 40 --seed 7 --temperature 1.5"
    options = {"top_k": 20, "min_p": 0.01, "seed": 7, "temperature": 1.5}
    text = generate(load_run("laptop", device="cpu"), "ROMEO:\nI", 40, **options)
    assert written(capsys, *flags.split()) == text + "\n"


def test_every_setting_of_the_decoding_is_a_flag(capsys):
    with pytest.raises(SystemExit):
        cli.main(["generate", "--help"])
    said = capsys.readouterr().out
    for field in fields(DecodingConfig):
        assert f"--{field.name.replace('_', '-')} " in said
    default = GenerateArgs("any").decoding
    assert default == DecodingConfig(temperature=0.8)


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_several_texts_are_those_of_the_seeds_that_are_told(capsys, stream):
    flags = ["--max-tokens=30", "--prompt=JULIET:"]
    said = written(capsys, "--num-samples=3", "--seed=5", *flags, *stream)
    parts = said.split("\n\n--- ")
    heads = [part.removeprefix("--- ").partition("\n") for part in parts]
    assert [head for head, _, _ in heads] == ["1: --seed 5", "2: --seed 6", "3: --seed 7"]
    for seed, (_, _, text) in zip(("5", "6", "7"), heads, strict=True):
        assert written(capsys, *flags, "--seed", seed).rstrip("\n") == text.rstrip("\n")


def test_stop_texts_are_given_one_by_one_also_before_the_run(capsys):
    plain = written(capsys, "--seed=1", "--max-tokens=200", "--prompt=A")
    word = plain[20:24]
    stops = [r"--stop=\n", "--stop", "zzz", "--stop", word]
    assert cli.main(["generate", *stops, "laptop", "--seed=1", "--prompt=A"]) == 0
    first = min(plain.index(word, 1), plain.index("\n"))
    assert capsys.readouterr().out == plain[:first] + "\n"


def test_symbols_that_may_and_may_not_be_written(capsys):
    text = written(capsys, r"--allowed=ab\n", r"--banned=\n", "--prompt=a", "--max-tokens=50")
    assert set(text[:-1]) == {"a", "b"}


class Watched(io.StringIO):
    """What had been written at each flush."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def flush(self):
        self.seen.append(self.getvalue())


@pytest.fixture
def bytewise(tmp_path):
    """A run whose tokens are single bytes, so that most characters need several."""
    text = "coração, ação, não, 你好 🎭 "
    tokenizer = BPETokenizer.train([text], vocab_size=257)
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size, block_size=16, n_layer=1, n_head=1, n_embd=8
    )
    save_checkpoint(tmp_path / "run", Checkpoint(TinyGPT(shape), tokenizer, {}, {}, {}))
    return str(tmp_path / "run")


def test_streamed_characters_come_one_by_one_and_whole(bytewise, monkeypatch, capsys):
    flags = ["--prompt=não ", "--max-tokens=40", "--seed=2"]
    whole = written(capsys, *flags, run=bytewise)
    out = Watched()
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["generate", bytewise, *flags, "--stream"]) == 0
    assert out.getvalue() == whole
    shown = [text for text in dict.fromkeys(out.seen) if text]
    assert len(shown) > 15  # pieces
    assert shown[0] == "não "
    # a character that needs more bytes is not shown before it has them
    assert all(whole.startswith(text) for text in shown)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--num-samples 0", "num_samples=0 must be between 1 and 1000"),
        ("--top-p nan", "top_p=nan must be a finite number"),
        ("--top-k -1", "top_k=-1 must be at least 0"),
        ("--stop=", "a stop sequence is empty"),
        ("--past-block roll --prompt", "Missing value"),
        ("--allowed é", "'é'"),
        ("--stream --prompt=", "a prompt is empty"),
        ("--stream --seed 99999999999999999999", "must be between"),
        ("--tempperature 1", "Perhaps you meant: --temperature FLOAT"),
    ],
)
def test_what_cannot_be_asked_for(flags, words, capsys):
    assert words in one_line(["generate", "laptop", *flags.split(" ")], capsys)
