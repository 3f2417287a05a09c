"""transformers writes and we read, we write and transformers reads: equal logits and tensors."""

import json
import re
import threading
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file, save_model
from transformers import AutoModelForCausalLM

from tinygpt import ModelConfig, TinyGPT
from tinygpt.errors import CheckpointError
from tinygpt.model import read_pretrained, write_pretrained

from ..tools import close, random_ids

GPT2 = {"vocab_size": 65, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 40}
COMMON = {
    "vocab_size": 65,
    "max_position_embeddings": 24,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
SHARED = EXPERTS | {"shared_expert_intermediate_size": 24}
THEIRS = {
    "gpt2": ("GPT2", GPT2),
    "gpt2, untied": ("GPT2", GPT2 | {"tie_word_embeddings": False, "n_inner": None}),
    "llama": ("Llama", COMMON | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    "llama, tied, wide heads": ("Llama", COMMON | {"tie_word_embeddings": True, "head_dim": 6}),
    "llama, biases": ("Llama", COMMON | {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2", COMMON),
    "qwen3": ("Qwen3", COMMON | {"head_dim": 8}),
    "qwen3, biases": ("Qwen3", COMMON | {"head_dim": 4, "attention_bias": True}),
    "mixtral": ("Mixtral", COMMON | {"num_local_experts": 5, "num_experts_per_tok": 2}),
    "mixtral, top-1": ("Mixtral", COMMON | {"num_local_experts": 3, "num_experts_per_tok": 1}),
    "qwen2-moe": ("Qwen2Moe", COMMON | SHARED | {"decoder_sparse_step": 2}),
    "qwen2-moe, normed": (
        "Qwen2Moe",
        COMMON | SHARED | {"norm_topk_prob": True, "qkv_bias": False},
    ),
    "qwen3-moe": ("Qwen3Moe", COMMON | EXPERTS | {"mlp_only_layers": [0], "norm_topk_prob": True}),
    "qwen3-moe, top-1": ("Qwen3Moe", COMMON | EXPERTS | {"num_experts_per_tok": 1}),
}


def theirs(name: str):
    """A random model of a class of transformers, each of its weights away from its start."""
    kind, options = THEIRS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**options)
    kind = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    return model


def tensors(folder) -> dict[str, torch.Tensor]:
    return {n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()}


def loaded(folder):
    """What transformers makes of a folder: with nothing missing, unexpected or mismatched."""
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return model.eval()


def assert_same_logits(ours: TinyGPT, other, atol: float = 2e-5) -> None:
    idx = random_ids()
    with torch.inference_mode():
        close(ours(idx).logits, other(idx).logits, atol)


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
@pytest.mark.parametrize("name", THEIRS)
def test_a_folder_of_transformers_gives_its_logits_and_is_written_as_it_was(tmp_path, name, shard):
    model, written, back = theirs(name), tmp_path / "theirs", tmp_path / "ours"
    model.save_pretrained(written, max_shard_size=shard)
    assert (len(list(written.glob("*.safetensors"))) > 1) == (shard == "20KB")
    ours = read_pretrained(written)
    assert_same_logits(ours, model)
    assert not ours.training
    assert {p.device.type for p in ours.state_dict().values()} == {"cpu"}
    back.mkdir()
    write_pretrained(ours, back)
    before, after = tensors(written), tensors(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)
    idx = random_ids()
    with torch.inference_mode():
        assert torch.equal(loaded(back)(idx).logits, model(idx).logits)


def folder_of(model, path, rename=lambda name: name, **values):
    """A model as transformers writes it, then with other names, and other values in config.json."""
    model.save_pretrained(path)
    held = {rename(name): tensor for name, tensor in load_file(path / "model.safetensors").items()}
    save_file(held, path / "model.safetensors")
    change(path / "config.json", **values)
    return path


def change(path, **values) -> None:
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({n: v for n, v in content.items() if v != "gone"}))


def add(path, **tensors: torch.Tensor) -> None:
    save_file(load_file(path / "model.safetensors") | tensors, path / "model.safetensors")


def test_gpt2_as_the_hub_has_it(tmp_path):
    """Without prefix, with the buffers of its masks, and without a word on the tied head."""
    model = theirs("gpt2")
    bare = folder_of(
        model, tmp_path, lambda n: n.removeprefix("transformer."), tie_word_embeddings="gone"
    )
    mask = {f"h.{i}.attn.{name}": torch.ones(1) for i in (0, 1) for name in ("bias", "masked_bias")}
    add(bare, **mask)
    ours = read_pretrained(bare)
    assert_same_logits(ours, model)
    assert ours.lm_head.weight is ours.wte.weight
    assert ours.config.dropout == 0.1


@pytest.mark.parametrize("alike", [True, False])
def test_a_head_on_disk_beside_a_tied_one_is_its_own_if_it_differs(tmp_path, alike):
    model = theirs("gpt2")
    head = model.lm_head.weight.detach() * (1 if alike else 2)
    add(folder_of(model, tmp_path), **{"lm_head.weight": head.contiguous()})
    ours = read_pretrained(tmp_path)
    assert ours.config.tie_embeddings == alike
    assert_same_logits(ours, AutoModelForCausalLM.from_pretrained(tmp_path).eval())


@pytest.mark.parametrize("name", ["gpt2", "llama, tied, wide heads"])
def test_a_tied_tensor_on_disk_as_the_head_only_is_the_embedding(tmp_path, name):
    model = theirs(name)
    model.save_pretrained(tmp_path)
    save_model(model, str(tmp_path / "model.safetensors"), {"format": "pt"})
    assert not any("wte" in name or "embed" in name for name in tensors(tmp_path))
    ours = read_pretrained(tmp_path)
    assert ours.lm_head.weight is ours.wte.weight
    assert_same_logits(ours, loaded(tmp_path))


ROPE = {
    "transformers 4": {"rope_parameters": "gone", "rope_theta": 5e5},
    "both": {"rope_theta": 3.0},
    "neither": {"rope_parameters": "gone"},
    "scaling": {"rope_scaling": {"rope_type": "default", "rope_theta": 3.0}, "rope_theta": 9.0},
    "scaling only": {"rope_parameters": "gone", "rope_scaling": {"type": "default"}},
}


@pytest.mark.parametrize("rope", ROPE)
@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_the_rotary_base_is_found_where_transformers_finds_it(tmp_path, name, rope):
    folder_of(theirs(name), tmp_path, **ROPE[rope])
    assert_same_logits(read_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path))


WINDOW = {"use_sliding_window": True, "sliding_window": 8, "layer_types": "gone"}
WIDE = {
    "llama": WINDOW,
    "qwen2": WINDOW,
    "qwen2, up to its layers": WINDOW | {"max_window_layers": 3},
    "qwen3, layer by layer": WINDOW
    | {"max_window_layers": 0, "layer_types": ["full_attention"] * 3},
    "qwen2-moe": WINDOW | {"max_window_layers": 0},
    "mixtral": {"sliding_window": 24},
}


@pytest.mark.parametrize("name", WIDE)
def test_a_window_that_no_layer_has_narrows_nothing(tmp_path, name):
    folder_of(theirs(name.split(",")[0]), tmp_path, **WIDE[name])
    assert_same_logits(read_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path))


def test_a_silent_config_means_the_defaults_of_its_class(tmp_path):
    names = ("rms_norm_eps", "attention_bias", "mlp_bias", "tie_word_embeddings", "hidden_act")
    folder_of(theirs("llama"), tmp_path, **dict.fromkeys(names, "gone"))
    assert_same_logits(read_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path))


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_weights_become_the_type_that_is_asked_for(tmp_path, name):
    theirs(name).bfloat16().save_pretrained(tmp_path)
    exact, small = read_pretrained(tmp_path), read_pretrained(tmp_path, torch.bfloat16)
    for wide, narrow in zip(exact.parameters(), small.parameters(), strict=True):
        assert (wide.dtype, narrow.dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(wide.bfloat16(), narrow)
    assert small(random_ids()).logits.isfinite().all()
    (tmp_path / "back").mkdir()
    write_pretrained(small, tmp_path / "back")
    assert loaded(tmp_path / "back").dtype == torch.bfloat16


UNREADABLE = {
    "another class": ({"model_type": "bert"}, "model_type='bert' is none of gpt2, llama"),
    "a list of classes": ({"model_type": ["gpt2"]}, r"model_type=\['gpt2'\] is none of gpt2"),
    "another gelu": ({"activation_function": "gelu"}, "activation_function='gelu' is not built"),
    "no size": ({"n_embd": "gone"}, "does not say n_embd"),
    "text for a number": ({"n_head": "2"}, "n_head='2' must be a whole number"),
    "more layers than tensors": ({"n_layer": 10**9}, "holds 28 tensors, but .* n_layer=1000000000"),
    "numbers beyond torch's": ({"vocab_size": 10**19}, "config.json describes no model"),
    "more numbers than torch counts": ({"n_embd": 10**11}, "config.json describes no model"),
    "fewer layers": ({"n_layer": 1}, "missing are none, unknown are h.1.attn.c_attn.bias, "),
    "a larger vocabulary": ({"vocab_size": 10**12}, r"wte.weight as F32 of the shape \(65, 16\)"),
    "untied, but no head": ({"tie_word_embeddings": False}, "missing are lm_head.weight"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_folder_that_cannot_be_read_is_refused_with_the_reason(tmp_path, case):
    values, message = UNREADABLE[case]
    folder_of(theirs("gpt2"), tmp_path, **values)
    with pytest.raises(CheckpointError, match=message):
        read_pretrained(tmp_path)


LLAMA_3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
NOT_BUILT = {
    "llama": ({"rope_parameters": LLAMA_3}, "rotary positions of the kind .*llama3"),
    "llama, scaled": ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "of the kind .*yarn"),
    "llama, at last": ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "kind .*linear"),
    "llama, old key": ({"rope_parameters": {"type": "linear", "factor": 2.0}}, "kind .*linear"),
    "llama, in part": ({"rope_scaling": {"partial_rotary_factor": 0.5}}, "kind .*partial_rotary"),
    "llama, a word": ({"rope_scaling": "linear"}, "rotary positions of the kind linear are not"),
    "mixtral": ({"sliding_window": 8}, "sliding_window=8 lets no token see all of its context"),
    "qwen2": (WINDOW | {"max_window_layers": 2}, "sliding_window=8"),
    "qwen3, one layer": (
        WINDOW | {"layer_types": ["full_attention"] * 2 + ["sliding_attention"]},
        "sliding_window=8",
    ),
    "qwen2-moe, window": (WINDOW, "sliding_window=8"),
    "qwen3-moe, window": (WINDOW | {"max_window_layers": 9}, "sliding_window=8"),
    "qwen2, the class's window": (
        WINDOW
        | {"sliding_window": "gone", "max_window_layers": 0, "max_position_embeddings": 5000},
        "sliding_window=4096",
    ),
    "qwen2-moe": ({"shared_expert_intermediate_size": 18}, "=18 is no multiple of .*size=12"),
    "qwen3-moe": ({"num_hidden_layers": 10**9}, "but .* num_hidden_layers=1000000000"),
    "qwen3-moe, dense": ({"mlp_only_layers": [1, 2]}, r"in the blocks \[0\] are no pattern"),
    "qwen3": ({"num_key_value_heads": "gone"}, "does not say num_key_value_heads"),
}


@pytest.mark.parametrize("name", NOT_BUILT)
def test_what_is_not_built_here_is_refused(tmp_path, name):
    values, message = NOT_BUILT[name]
    folder_of(theirs(name.split(",")[0]), tmp_path, **values)
    with pytest.raises(CheckpointError, match=message):
        read_pretrained(tmp_path)


def test_experts_in_one_tensor_are_refused_with_the_way_out(tmp_path):
    theirs("mixtral").save_pretrained(tmp_path, save_original_format=False)
    with pytest.raises(CheckpointError, match=r"experts\.gate_up_proj.*save_original_format=True"):
        read_pretrained(tmp_path)


def test_of_a_single_file_and_an_index_the_file_counts_as_for_transformers(tmp_path):
    folder_of(theirs("gpt2"), tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"wte.weight": "x"}}')
    assert_same_logits(read_pretrained(tmp_path), loaded(tmp_path))


def test_broken_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config.json cannot be read"):
        read_pretrained(tmp_path)
    folder_of(theirs("gpt2"), tmp_path)
    file, index = tmp_path / "model.safetensors", tmp_path / "model.safetensors.index.json"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
        read_pretrained(tmp_path)
    file.rename(tmp_path / "pytorch_model.bin")
    index.write_text('{"weight_map": {"wte.weight": "../../secret.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"does not say which file has what"):
        read_pretrained(tmp_path)
    listed = dict.fromkeys(theirs("gpt2").state_dict(), "\ud800")  # is no name of a file
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(CheckpointError, match=r"cannot be read"):
        read_pretrained(tmp_path)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"has no model.safetensors .* can hold programs"):
        read_pretrained(tmp_path)


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_loading_needs_little_memory_beside_the_model(tmp_path):
    """A quarter of a gigabyte; to build a model and then fill it would take it twice."""
    config = ModelConfig(vocab_size=4096, block_size=64, n_layer=16, n_head=8, n_embd=576)
    TinyGPT(config)  # what torch needs once
    write_pretrained(TinyGPT(config), tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    start, peak, done = anonymous(), [0], threading.Event()

    def watch():
        while not done.wait(0.002):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = read_pretrained(tmp_path)
    done.set()
    watcher.join()
    assert model.config.n_layer == 16
    assert peak[0] - start < 1.15 * size


def anonymous() -> int:
    """Bytes of memory that no file stands behind."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024
