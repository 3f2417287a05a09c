import json
import time
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinygpt import ModelConfig, TinyGPT
from tinygpt.errors import CheckpointError, NonFiniteError
from tinygpt.training.tensors import load_tensors, load_weights, not_finite, save_weights

from ..tools import LLAMA, MODES, SHAPE, model_of, random_ids, same_state, shaken


@pytest.mark.parametrize("mode", ["deepseek", "noisy", "shared"])
def test_the_same_weights_and_buffers(mode, tmp_path):
    model = model_of(**MODES[mode])
    save_weights(model, tmp_path / "w")
    loaded = load_weights(asdict(model.config), tmp_path / "w")
    assert same_state(loaded, model)
    assert all(t.device.type == "cpu" for t in loaded.state_dict().values())
    assert all(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("shape", [SHAPE, LLAMA])
def test_loading_draws_no_random_numbers_and_ties_what_is_tied(shape, tmp_path):
    model, idx = shaken(shape), random_ids()
    save_weights(model, tmp_path / "w")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    loaded = load_weights(asdict(shape), tmp_path / "w").eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(loaded(idx).logits, model(idx).logits)
    assert (loaded.lm_head.weight is loaded.wte.weight) == shape.tie_embeddings
    loaded(idx, idx).loss.backward()
    assert all(p.grad is not None for p in loaded.parameters())
    (tmp_path / "w").unlink()  # on Windows: it is not in use


@pytest.mark.parametrize("name", ["wte.weight", "lm_head.weight"])
def test_a_tied_tensor_may_have_either_name(name, tmp_path):
    model = shaken(SHAPE)
    tensors = {k: v for k, v in model.state_dict().items() if k not in ("lm_head.weight",)}
    tensors[name] = tensors.pop("wte.weight")
    save_file(tensors, tmp_path / "w")
    assert same_state(load_weights(asdict(SHAPE), tmp_path / "w"), model)


def test_weights_of_16_bits_become_those_of_the_model(tmp_path):
    model = shaken(SHAPE).bfloat16()
    save_weights(model, tmp_path / "w")
    loaded = load_weights(asdict(SHAPE), tmp_path / "w")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.wte.weight, model.wte.weight.float())


HOSTILE = [
    {"n_layer": 100_000},
    {"n_layer": 10**12, "moe": {"every": 10**12 + 1}},  # to look which block has experts: for ever
    {"n_embd": 20_000, "n_head": 4},
    {"n_embd": 10**15, "n_head": 1},
    {"n_embd": 10**30, "n_head": 1},
    {"head_dim": 10**15},
    {"head_dim": 10**30},
    {"n_kv_head": 1},
    {"vocab_size": 10**12},
    {"vocab_size": 10**18},
    {"block_size": 10**12},
    {"n_inner": 10**12},
    {"moe": {"n_experts": 10**12}},
    {"moe": {"n_experts": 10**30}},
    {"moe": {"n_shared": 10**12}},
]


@pytest.mark.parametrize("changes", HOSTILE)
def test_sizes_are_compared_before_anything_is_made(changes, tmp_path, monkeypatch):
    save_weights(shaken(SHAPE), tmp_path / "w")
    settings = json.loads(json.dumps(asdict(SHAPE) | changes))
    monkeypatch.setattr(
        "tinygpt.training.tensors.load_tensors", lambda path: pytest.fail("the tensors were read")
    )
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match="does not fit its config.json"):
        load_weights(settings, tmp_path / "w")
    assert time.perf_counter() - start < 60  # not for ever


@pytest.mark.parametrize("settings", [None, [], "x", 3, {"n_layer": "2"}, {"n_layer": [2]}, {}])
def test_settings_that_are_none(settings, tmp_path):
    save_weights(shaken(SHAPE), tmp_path / "w")
    with pytest.raises(CheckpointError, match="does not fit its config.json"):
        load_weights(settings, tmp_path / "w")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 7,
        b"\xff" * 8 + b"{}",
        b"\x02" + bytes(7) + b"{}",
        b"\x02" + bytes(7) + b"[]",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        b"\x40" + bytes(7) + b'{"a":{"dtype":"F32","shape":[9,9],"data_offsets":[0,4]}}        ',
        b"\x40" + bytes(7) + b'{"a":{"dtype":"X32","shape":[1],"data_offsets":[0,4]}}          ',
    ],
)
def test_files_of_no_tensors(content, tmp_path):
    (tmp_path / "w").write_bytes(content + bytes(4))
    with pytest.raises(CheckpointError, match="does not fit|cannot be read"):
        load_weights(asdict(SHAPE), tmp_path / "w")
    with pytest.raises(CheckpointError, match="cannot be read"):
        assert load_tensors(tmp_path / "w") == {}, "a file may well hold no tensors"
        raise CheckpointError("cannot be read")


BAD = [float("nan"), float("inf"), -float("inf"), 1e38]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["wte.weight", "blocks.1.ln_1.bias", "blocks.1.ffn.router.bias"])
def test_ruined_weights_are_neither_written_nor_read(bad, name, tmp_path):
    model = model_of(balance="bias")
    model.state_dict()[name].view(-1)[3] = bad
    assert name in not_finite(model)
    with pytest.raises(NonFiniteError, match=f"{name}; they were not saved"):
        save_weights(model, tmp_path / "w")
    assert not (tmp_path / "w").exists()
    tensors = dict(model.state_dict())
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "w")
    with pytest.raises(CheckpointError, match=f"NaN or infinite, in .*{name}"):
        load_weights(asdict(model.config), tmp_path / "w")


def test_large_weights_that_can_be_computed_with_are_kept(tmp_path):
    model = TinyGPT(replace(ModelConfig(), n_embd=16, n_head=2))
    model.wte.weight.data.fill_(1e15)
    save_weights(model, tmp_path / "w")
    assert load_file(tmp_path / "w")["lm_head.weight"].max() == 1e15
