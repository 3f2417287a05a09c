"""From a folder of transformers, or the hub, to a run, and back."""

import json
from dataclasses import replace

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer

from tinygpt import (
    TrainConfig,
    Trainer,
    generate_greedy,
    load_corpus,
    load_pretrained,
    load_run,
    save_pretrained,
    upcycle,
)
from tinygpt.errors import CheckpointError, ConfigError, NonFiniteError
from tinygpt.hub import COMMITS
from tinygpt.training import pretrained_place, run_names, save_run, with_settings

from ..server import Server, head
from ..tools import LLAMA, same_state, shaken, subword_model, subword_tokenizer


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty checkpoints/."""
    monkeypatch.setattr("tinygpt.training.run.RUNS", tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def gpt2_shaped():
    """A GPT-2 with a tokenizer that was trained."""
    return subword_model(mlp="gelu", norm="layernorm", position="learned", qk_norm=False)


def test_there_and_back_transformers_writes_the_same_text_from_the_same_words(tmp_path):
    model, prompt = gpt2_shaped(), "the cat"
    save_pretrained(model, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.config.eos_token_id == tokenizer.eos_token_id == model.tokenizer.end_of_text
    theirs.generation_config.eos_token_id = None  # ours goes on after a text's end
    idx = torch.tensor([tokenizer.encode(prompt)])
    written = theirs.generate(idx, do_sample=False, max_new_tokens=12, pad_token_id=0)
    back = load_pretrained(tmp_path / "out")
    assert back.tokenizer == model.tokenizer
    assert same_state(back, model)
    assert generate_greedy(back, prompt, 12) == model.tokenizer.decode(written[0])


def test_the_shipped_gpt2_is_one_of_transformers_and_comes_back_to_the_byte(tmp_path):
    shipped, files = load_run("mini-gpt2", device="cpu"), []
    save_pretrained(shipped, tmp_path / "out")
    back = load_pretrained(tmp_path / "out")
    save_pretrained(back, tmp_path / "again")
    for folder in ("out", "again"):
        content = {p.name: p.read_bytes() for p in (tmp_path / folder).iterdir()}
        files.append(content)
    assert files[0] == files[1]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.config.model_type == "gpt2"
    idx = torch.tensor([shipped.tokenizer.encode("Once upon a time, there was a king")])
    with torch.inference_mode():
        assert (theirs(idx).logits - shipped(idx).logits).abs().max() < 1e-4


def test_a_folder_that_exists_is_left_alone_and_nothing_half_is_left(tmp_path):
    model = shaken(LLAMA)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=r"out exists; remove it"):
        save_pretrained(model, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"token_shift is in no class"):
        save_pretrained(shaken(replace(LLAMA, token_shift=True)), tmp_path / "other")
    model.wte.weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"NaN, infinite .* in wte.weight"):
        save_pretrained(model, tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_model_of_the_hub_can_be_a_run_is_upcycled_trained_and_taken_back(tmp_path, runs):
    """The whole way of notebook 08, in small: a run is trained from, and its mixture exported."""
    corpus = load_corpus("tinyplays")
    dense = shaken(replace(LLAMA, vocab_size=corpus.tokenizer.vocab_size))
    dense.tokenizer = corpus.tokenizer
    save_pretrained(dense, tmp_path / "theirs")
    mixture = upcycle(load_pretrained(tmp_path / "theirs"), 4, 2, balance="loss")
    assert save_run(mixture, "mixture") == runs / "mixture"
    assert same_state(load_run("mixture", device="cpu"), mixture)
    assert "mixture" in run_names()
    assert "mixture" not in run_names(shipped=True)  # it has no loss to verify
    config = TrainConfig(max_steps=3, batch_size=2, eval_interval=3, warmup_steps=0)
    Trainer(load_run("mixture"), corpus, config, tmp_path / "tuned").fit(progress=False)
    tuned = load_run(tmp_path / "tuned", device="cpu")
    assert not same_state(tuned, mixture)
    save_pretrained(tuned, tmp_path / "back")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert theirs.config.model_type == "mixtral"
    idx = corpus.val[None, :20]
    torch.testing.assert_close(theirs(idx).logits, tuned(idx).logits, atol=1e-4, rtol=1e-4)


def test_a_path_is_not_taken_for_a_name_on_the_hub(tmp_path, runs, monkeypatch):
    """A run that is not there is said to be missing, without a word from the network."""
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert pretrained_place("openai-community/gpt2") == "openai-community/gpt2"
    for source in ("runs/mine", "./mine", "mine"):
        assert pretrained_place(source) is None
        with pytest.raises(CheckpointError, match=r"no run '.*mine'"):
            load_run(source)


def test_without_a_tokenizer_there_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match=r"has no tokenizer"):
        save_run(shaken(LLAMA), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_of_another_size_is_left_aside(tmp_path):
    model = gpt2_shaped()
    save_pretrained(model, tmp_path / "out")
    other = subword_tokenizer()
    (tmp_path / "out" / "tinygpt_tokenizer.json").unlink()
    content = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    content["added_tokens"].append({"content": "<|pad|>", "id": other.vocab_size})
    (tmp_path / "out" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"tokenizer .* was left aside"):
        assert load_pretrained(tmp_path / "out").tokenizer is None


@pytest.mark.parametrize("training", [True, False])
def test_other_settings_keep_the_mode_the_tokenizer_and_the_weights(training):
    model = gpt2_shaped().train(training)
    other = with_settings(model, replace(model.config, dropout=0.5))
    assert other.training == training
    assert other.tokenizer is model.tokenizer
    pairs = zip(other.parameters(), model.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    short = with_settings(model, replace(model.config, block_size=5))
    assert torch.equal(short.wpe.weight, model.wpe.weight[:5])


# --- the hub -------------------------------------------------------------------------------------


def hub(folder, commit):
    """A server that gives the files of a folder as the hub does, for one commit."""

    def answer(to, start):
        if to.path.startswith("/api/models/"):
            files = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40}
                for p in folder.iterdir()
            ]
            found = {"id": "org/model", "sha": commit, "siblings": []}
            content = json.dumps(files if "/tree/" in to.path else found).encode()
        else:
            content = (folder / to.path.rpartition("/")[2]).read_bytes()
        tag = f'"{hash(content) & 0xFFFFFFFF:040x}"'
        head(to, Content_Length=len(content), ETag=tag, X_Repo_Commit=commit)
        if to.command == "GET":
            to.wfile.write(content)

    return Server(answer)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.mark.parametrize("name", ["org/model", "openai-community/gpt2"])
def test_a_model_comes_from_the_hub_once_and_only_what_it_needs(tmp_path, cache, name):
    model, commit = gpt2_shaped(), COMMITS.get(name, "1" * 40)
    save_pretrained(model, tmp_path / "theirs")
    (tmp_path / "theirs" / "pytorch_model.bin").write_bytes(b"a program")
    with hub(tmp_path / "theirs", commit) as server:
        found = load_pretrained(name, endpoint=server.base)
        assert same_state(found, model)
        assert found.tokenizer == model.tokenizer
        fetched = [path for path, _ in server.visits if "/resolve/" in path]
        assert {path.split("/")[4] for path in fetched} == {commit}
        assert not any("pytorch_model" in path for path in fetched)
    assert same_state(load_pretrained(name, endpoint=server.base), model)  # without the server


def test_without_a_network_the_error_says_what_to_do(cache):
    with pytest.raises(CheckpointError, match=r"org/model is not on this machine.*hf download org"):
        load_pretrained("org/model", endpoint="http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"'gpt2' is no folder, and no name on the hub"):
        load_pretrained("gpt2")
