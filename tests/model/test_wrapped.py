"""Blocks inside wrappers that hand them copies or call them twice: nothing is lost or doubled."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import distributed
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from tinygpt import TinyGPT
from tinygpt.model import KVCache

from ..tools import LLAMA, close, model_of, random_ids

# router noise and dropout: whoever recomputes must draw the same again
DEEP = replace(LLAMA, n_layer=4, n_kv_head=1, qkv_bias=True, bigrams=99, token_shift=True)
BALANCES = {
    "loss": {"balance": "loss", "balance_weight": 0.5, "z_weight": 0.1},
    "bias": {"balance": "bias", "top_k": 2},
}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A gloo group of this process alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        meeting = tmp_path_factory.mktemp("group") / "meeting"
        distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=0, world_size=1
        )
        yield
        distributed.destroy_process_group()


def found(model: TinyGPT) -> dict[str, torch.Tensor]:
    """All that a forward and a backward pass give."""
    idx = random_ids()
    targets = idx.roll(-1, 1)
    targets[0, 10:] = -100
    torch.manual_seed(7)
    out = model(idx, targets, return_attention=True, return_routing=True)
    out.loss.backward()
    results = {name: getattr(out, name) for name in ("logits", "loss", "lm_loss", "expert_load")}
    for i, routing in enumerate(out.routing):
        fields = ("logits", "probs", "experts", "weights", "dropped")
        results |= {f"routing {i} {name}": getattr(routing, name) for name in fields}
    results |= {f"map {i}": weights for i, weights in enumerate(out.attentions)}
    results |= {f"scores {i}": scores for i, scores in enumerate(out.attention_scores)}
    for name, p in model.named_parameters():
        gradient = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
        results[f"gradient of {name.replace('_checkpoint_wrapped_module.', '')}"] = gradient
    return results


def assert_same(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    assert len([name for name in actual if name.startswith("routing")]) == 4 * 5
    for name in actual:
        assert torch.equal(actual[name], expected[name]), name


@pytest.mark.parametrize("balance", BALANCES)
def test_fully_sharded_block_by_block(one_process, balance):
    plain = model_of(DEEP, **BALANCES[balance]).train()
    sharded = copy.deepcopy(plain)
    for block in sharded.blocks:
        fully_shard(block)
    fully_shard(sharded)
    assert_same(found(sharded), found(plain))


def test_fully_sharded_with_a_precision_policy_loses_no_routing(one_process):
    """The policy copies what is handed down, whether or not anything is cast."""
    plain = model_of(DEEP, **BALANCES["loss"]).train()
    sharded = copy.deepcopy(plain)
    for part in (*sharded.blocks, sharded):
        fully_shard(part, mp_policy=MixedPrecisionPolicy(param_dtype=torch.float32))
    assert_same(found(sharded), found(plain))


@pytest.mark.parametrize("balance", BALANCES)
def test_recomputed_blocks_are_counted_once(balance):
    chance = {"jitter": 0.1, "noisy": True, "expert_dropout": 0.2}
    plain = model_of(replace(DEEP, dropout=0.2), **BALANCES[balance], **chance).train()
    recomputed = copy.deepcopy(plain)
    for i, block in enumerate(recomputed.blocks):
        recomputed.blocks[i] = checkpoint_wrapper(block)
    actual = found(recomputed)
    assert_same(actual, found(plain))
    tokens = 2 * 24 + 10
    assert actual["expert_load"].sum(1).tolist() == [tokens * plain.config.moe.top_k] * 4


def test_a_sharded_model_writes_with_a_cache(one_process):
    plain, idx = model_of(DEEP).eval(), random_ids()
    sharded = copy.deepcopy(plain)
    for part in (*sharded.blocks, sharded):
        fully_shard(part)
    cache = KVCache(DEEP, batch_size=3)
    with torch.no_grad():
        pieces = [sharded(part, cache=cache).logits for part in idx.split([5, 1, 1, 9, 8], dim=1)]
        close(torch.cat(pieces, dim=1), plain(idx).logits)
