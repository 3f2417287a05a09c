import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinygpt import ModelConfig, TinyGPT, load_run
from tinygpt.errors import CheckpointError
from tinygpt.files import ROOT, sweep_temporaries
from tinygpt.text import CharTokenizer, WordPieceTokenizer
from tinygpt.training import (
    Checkpoint,
    checkpoint,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    verify,
)
from tinygpt.training.manifest import write_manifest

from ..tools import MODES, byte_tokenizer, model_of, random_ids, same_state, subword_tokenizer


@pytest.mark.parametrize("mode", ["deepseek", "noisy", "shared"])
def test_a_checkpoint_gives_back_the_same_logits(mode, tmp_path):
    model, idx = model_of(**MODES[mode]), random_ids()
    tokenizer = CharTokenizer("".join(chr(48 + i) for i in range(65)))
    save_checkpoint(tmp_path / "saved", Checkpoint(model, tokenizer, {}, {}, {}))
    loaded = load_checkpoint(tmp_path / "saved").model.eval()
    assert loaded.config == model.config
    assert torch.equal(loaded(idx).logits, model(idx).logits)
    assert same_state(loaded, model)


def test_a_checkpoint_gives_back_the_model(run, corpus):
    loaded = load_checkpoint(latest_checkpoint(run))
    assert loaded.tokenizer == corpus.tokenizer == loaded.model.tokenizer
    assert loaded.state["step"] == 30
    folder = run / "again"
    save_checkpoint(folder, loaded)
    again = load_checkpoint(folder)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    assert again.training.keys() == loaded.training.keys()
    assert all(torch.equal(again.training[k], v) for k, v in loaded.training.items())


def test_a_tied_head_stays_tied(run):
    model = load_run(run)
    assert model.lm_head.weight is model.wte.weight


FILES = ("config.json", "model.safetensors", "tokenizer.json", "training.safetensors", "state.json")


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_and_the_file_named(run, name, damage):
    folder = latest_checkpoint(run)
    path = folder / name
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "flip":
        content[middle] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:middle])
    else:
        path.unlink()
    for reader in (verify, load_checkpoint):
        with pytest.raises(CheckpointError, match=name):
            reader(folder)
    complete = (folder / "manifest.json").exists()  # without it, it is no checkpoint at all
    with pytest.warns(UserWarning, match="damaged") if complete else nullcontext():
        assert load_run(run, which="latest").wte.weight.isfinite().all()


def edit(folder, name, change):
    """Change a JSON file of a checkpoint and mend the manifest: what a user's script would do."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    mend(folder)


def mend(folder):
    (folder / "manifest.json").unlink()
    write_manifest(folder)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("config.json", lambda c: c["model"].update(n_layer=3), "does not fit its config.json"),
        ("config.json", lambda c: c["model"].update(n_embd=17), "n_embd=17 is not divisible"),
        ("config.json", lambda c: c["model"].update(n_expert=4), "has no setting n_expert"),
        ("config.json", lambda c: c.update(format=99), "format 99.*reads up to 1"),
        ("config.json", lambda c: c.update(format="1"), "format '1', this"),
        ("config.json", lambda c: c.update(model=[1]), "does not fit its config.json"),
        ("config.json", lambda c: c.pop("model"), "does not fit its config.json"),
        ("state.json", lambda c: c.pop("best_step"), "state.json says best_step=None"),
        ("state.json", lambda c: c.update(step=True), "state.json says step=True"),
        ("state.json", lambda c: c.update(step="30"), "state.json says step='30'"),
        ("state.json", lambda c: c.update(step=-1), "state.json says step=-1"),
        ("state.json", lambda c: c.update(step=[1]), "state.json says step=.1."),
        ("state.json", lambda c: c.update(best_step=31), "best step, 31, is to come"),
        ("state.json", lambda c: c.update(best_val_loss=float("nan")), "best_val_loss=nan"),
        ("state.json", lambda c: c.update(seconds=10**400), "says seconds=10000"),
        ("state.json", lambda c: c.update(max_steps="9"), "says max_steps='9'"),
        ("state.json", lambda c: c.update(tokens_seen=1.5), "says tokens_seen=1.5"),
        ("state.json", lambda c: c.update(tokens_seen=10**400), "says tokens_seen=10000"),
        ("tokenizer.json", lambda c: c["characters"].pop(), "the tokenizer has"),
        ("tokenizer.json", lambda c: c.update(characters=3), "is not a tokenizer"),
        ("tokenizer.json", lambda c: c.update(characters=[[]]), "is not a tokenizer"),
        ("tokenizer.json", lambda c: c.update(characters=None), "is not a tokenizer"),
        ("tokenizer.json", lambda c: c.update(type="runes"), "tokenizer of the kind 'runes'"),
        ("tokenizer.json", lambda c: c.pop("type"), "is not a tokenizer"),
    ],
)
def test_parts_that_do_not_fit(run, name, change, words):
    folder = latest_checkpoint(run)
    edit(folder, name, change)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(folder)
    with pytest.warns(match="passing over a damaged checkpoint: .*step_0000030"):
        load_run(run, which="latest")


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ("blocks.1.ffn.router.load", None),
        ("blocks.1.ffn.router.loads", "unknown are.*router.loads"),
        ("blocks.1.ffn.load", "unknown are.*ffn.load"),
    ],
)
def test_of_older_checkpoints_the_routers_load_alone_is_left_out(tmp_path, extra, error):
    model, folder, idx = model_of(top_k=2, balance="bias"), tmp_path / "saved", random_ids()
    tokenizer = CharTokenizer("".join(chr(48 + i) for i in range(65)))
    save_checkpoint(folder, Checkpoint(model, tokenizer, {}, {}, {}))
    tensors = load_file(folder / "model.safetensors")
    assert not any(name.endswith("router.load") for name in tensors)
    save_file({**tensors, extra: torch.ones(4)}, folder / "model.safetensors")
    mend(folder)
    if error:
        with pytest.raises(CheckpointError, match=error):
            load_checkpoint(folder)
    else:
        loaded = load_checkpoint(folder).model.eval()
        assert same_state(loaded, model)
        assert torch.equal(loaded(idx).logits, model(idx).logits)


def test_a_missing_weight_is_an_error(tmp_path):
    model, folder = model_of(top_k=2, balance="bias"), tmp_path / "saved"
    tokenizer = CharTokenizer("".join(chr(48 + i) for i in range(65)))
    save_checkpoint(folder, Checkpoint(model, tokenizer, {}, {}, {}))
    tensors = load_file(folder / "model.safetensors")
    del tensors["blocks.1.ffn.router.bias"]
    save_file(tensors, folder / "model.safetensors")
    mend(folder)
    with pytest.raises(CheckpointError, match="missing are.*blocks.1.ffn.router.bias"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "kind", [byte_tokenizer, subword_tokenizer, lambda: subword_tokenizer(WordPieceTokenizer)]
)
def test_a_tokenizer_of_any_kind_is_kept(tmp_path, kind):
    tokenizer = kind()
    model = TinyGPT(ModelConfig(vocab_size=tokenizer.vocab_size, n_embd=16, n_head=2))
    save_checkpoint(tmp_path / "saved", Checkpoint(model, tokenizer, {}, {}, {}))
    loaded = load_checkpoint(tmp_path / "saved")
    assert loaded.tokenizer == loaded.model.tokenizer == tokenizer


def test_no_space_keeps_the_old_checkpoint_and_leaves_nothing(run, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(p.name for p in run.iterdir())
    content = load_checkpoint(latest_checkpoint(run))
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"could not write .*No space left.*GB free.*make r"):
        save_checkpoint(run / "step_0000040", content)
    assert sorted(p.name for p in run.iterdir()) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_real_limit_on_file_size(run):
    """The kernel refuses the write, not a mock."""
    code = f"""
        import resource, signal
        from pathlib import Path
        from tinygpt.training import latest_checkpoint, load_checkpoint, save_checkpoint
        from tinygpt.errors import CheckpointError
        run = Path({str(run)!r})
        content = load_checkpoint(latest_checkpoint(run))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            save_checkpoint(run / "step_0000040", content)
        except CheckpointError as error:
            print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "refused: could not write" in done.stdout
    assert [p.name for p in checkpoints(run)] == ["step_0000020", "step_0000030"]
    assert not list(run.glob(".tmp-*"))


KILLED = """
    import sys, torch
    from pathlib import Path
    from tinygpt import ModelConfig, TinyGPT
    from tinygpt.training import Checkpoint, Run
    from tinygpt.text import CharTokenizer
    run = Run(Path(sys.argv[1]))
    model = TinyGPT(ModelConfig())
    tokenizer = CharTokenizer(map(chr, range(48, 113)))
    print("ready", flush=True)
    for step in range(1, 100_000):
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(step)
        state = {"step": step, "best_step": 1, "bad_evaluations": 0}
        state |= dict.fromkeys(["best_val_loss", "seconds", "grad_norm"], 1.0)
        content = Checkpoint(model, tokenizer, {}, {}, state)
        run.save(step, content, keep_last=2)
        print(step, flush=True)
"""


def kill_while_saving(run, rounds):
    for number in range(rounds):
        shutil.rmtree(run, ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(run)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        for _ in range(4):  # "ready", and three checkpoints
            process.stdout.readline()
        time.sleep(0.15 * number / rounds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert checkpoints(run)[-1].name >= "step_0000003"
        sweep_temporaries(run)
        assert not list(run.glob(".tmp-*"))
        for folder in checkpoints(run):
            loaded = load_checkpoint(folder)  # raises if anything is torn
            step = loaded.state["step"]
            assert all((p == step).all() for p in loaded.model.parameters())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_kill_while_saving_never_leaves_a_torn_checkpoint(tmp_path):
    kill_while_saving(tmp_path / "run", 2)


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_many_kills(tmp_path):
    kill_while_saving(tmp_path / "run", 25)
