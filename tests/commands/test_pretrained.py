"""The commands that take trained models in and out: upcycle, export, and train --init."""

import re
import shlex
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tinygpt import cli, load_pretrained, load_run, save_pretrained
from tinygpt.files import ROOT
from tinygpt.training import latest_checkpoint, load_checkpoint

from ..tools import LLAMA, SHAPE, same_state, shaken
from .conftest import one_line

SHORT = [
    "--max-steps",
    "3",
    "--batch-size",
    "2",
    "--eval-interval",
    "3",
    "--warmup-steps",
    "0",
    "--lr",
    "1e-3",
]


@pytest.fixture
def source(tmp_path, corpus):
    """A folder of transformers with a Llama that writes in the corpus's characters."""
    model = shaken(replace(LLAMA, vocab_size=corpus.tokenizer.vocab_size, block_size=32))
    model.tokenizer = corpus.tokenizer
    save_pretrained(model, tmp_path / "theirs")
    return tmp_path / "theirs"


def test_a_folder_is_upcycled_trained_on_and_taken_back(source, runs, text, tmp_path, capsys):
    out = str(tmp_path / "back")
    experts = ["--n-experts", "4", "--top-k", "2"]
    assert cli.main(["upcycle", str(source), *experts, "--out", "mixture"]) == 0
    assert "parameters" in capsys.readouterr().out
    mixture, dense = load_run("mixture"), load_pretrained(source)
    idx = torch.arange(20)[None]
    torch.testing.assert_close(mixture(idx).logits, dense(idx).logits, atol=1e-5, rtol=1e-5)
    assert cli.main(["generate", "mixture", "--prompt", "the", "--max-new-tokens", "9"]) == 0
    assert capsys.readouterr().out.startswith("the")

    flags = ["--corpus", text, "--block-size", "24", "--dropout", "0.1", *SHORT]
    assert cli.main(["train", "--init", "mixture", *flags, "--out", "tuned"]) == 0
    capsys.readouterr()
    first = load_checkpoint(runs / "tuned" / "step_0000000").model
    assert (first.config.block_size, first.config.dropout) == (24, 0.1)
    assert same_state(first, mixture)
    said = one_line(["train", "--init", "mixture", "--corpus", text, "--no-moe"], capsys)
    assert "moe.n_experts 4 -> None" in said
    assert cli.main(["train", "--resume", "tuned", "--max-steps", "6"]) == 0
    assert load_checkpoint(latest_checkpoint(runs / "tuned")).state["step"] == 6
    assert f"init: {runs / 'mixture'}\n" in (runs / "tuned" / "config.yaml").read_text()

    assert cli.main(["export", "tuned", "--out", out]) == 0
    theirs, best = AutoModelForCausalLM.from_pretrained(out), load_run("tuned")
    assert theirs.config.model_type == "mixtral"
    torch.testing.assert_close(theirs(idx).logits, best(idx).logits, atol=1e-4, rtol=1e-4)
    words = AutoTokenizer.from_pretrained(out)
    assert words.encode("the") == best.tokenizer.encode("the")


def test_the_readmes_commands_do_what_they_say(tmp_path, runs, text, corpus, monkeypatch):
    """With a small GPT-2 of this machine in the place of the hub's, and few updates."""
    model = shaken(replace(SHAPE, vocab_size=corpus.tokenizer.vocab_size))
    model.tokenizer = corpus.tokenizer
    save_pretrained(model, tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Models in and out")[2]
    commands = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].splitlines()
    smaller = {"openai-community/gpt2": "./gpt2", "256": "16", "file:my_text.txt": text}
    for line in commands:
        _, _, _, *words = shlex.split(line, comments=True)
        short = SHORT if words[0] == "train" else []
        assert cli.main([smaller.get(word, word) for word in words] + short) == 0
    assert len(commands) == 4
    assert load_run("tuned-moe").config.moe.n_experts == 8
    assert AutoModelForCausalLM.from_pretrained("tuned-for-transformers").config.n_positions == 16


def test_a_folder_writes_and_is_described_as_it_is(source, capsys):
    assert cli.main(["generate", str(source), "--prompt", "the", "--max-new-tokens", "9"]) == 0
    assert capsys.readouterr().out.startswith("the")
    assert cli.main(["info", str(source)]) == 0
    assert "rmsnorm" in capsys.readouterr().out


def test_an_init_keeps_its_shape_and_its_symbols(source, runs, tmp_path, capsys):
    init = ["train", "--init", str(source)]
    assert "n_layer 2 -> 3" in one_line([*init, "--n-layer", "3"], capsys)
    assert "block_size 32 -> 33" in one_line([*init, "--block-size", "33"], capsys)
    assert "leave --init away" in one_line([*init, "--resume", "mine"], capsys)
    (tmp_path / "text.txt").write_text("ÀÈ" * 999, encoding="utf-8")
    said = one_line([*init, "--corpus", f"file:{tmp_path / 'text.txt'}"], capsys)
    assert "not in this tokenizer's alphabet" in said
    (source / "tinygpt_tokenizer.json").unlink()
    (source / "tokenizer.json").unlink()
    assert "there is no tokenizer" in one_line(init, capsys)
    assert "there is no tokenizer" in one_line(["upcycle", str(source), "--out", "new"], capsys)
    assert list(runs.iterdir()) == []


def test_what_is_there_is_not_written_over_and_what_cannot_be_is_refused(
    source, runs, tmp_path, capsys
):
    taken = ["--out", str(source)]
    assert "exists; remove it" in one_line(["upcycle", str(source), *taken], capsys)
    assert "exists; remove it" in one_line(["export", str(source), *taken], capsys)
    free = ["--out", str(tmp_path / "free")]
    said = one_line(["upcycle", str(source), "--n-experts", "3", "--top-k", "4", *free], capsys)
    assert "top_k=4 is more than n_experts=3" in said
    said = one_line(["upcycle", str(source), "--seed", str(2**64), *free], capsys)
    assert "seed=18446744073709551616 must be a whole number of" in said
    said = one_line(["upcycle", "nobody/nothing", "--reinit", "2", *free], capsys)
    assert "reinit=2.0 must be between 0 and 1" in said  # before anything is fetched
    assert "no run 'mnie'" in one_line(["export", "mnie", *free], capsys)
    assert cli.main(["upcycle", str(source), "--balance", "bias", "--out", "biased"]) == 0
    assert cli.main(["export", "biased", *free]) == 0  # they are zeros still
    assert cli.main(["upcycle", "biased", "--out", "again"]) == 2
    assert "has experts already" in capsys.readouterr().err


def test_the_shipped_gpt2_shape_is_exported_and_the_shifted_one_refused(tmp_path, capsys):
    said = one_line(["export", "laptop-dense", "--out", str(tmp_path / "x")], capsys)
    assert "token_shift is in no class of transformers" in said
    assert not (tmp_path / "x").exists()
