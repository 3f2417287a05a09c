import copy
import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from tinygpt import ModelConfig, MoEConfig, TinyGPT
from tinygpt.errors import ConfigError
from tinygpt.model import Bigrams, KVCache, rotary_table, rotate

from ..tools import VARIANTS, ids, shaken


def test_shapes(config):
    idx = ids(config)
    out = shaken(config)(idx, idx, return_attention=True)
    assert out.logits.shape == (3, 24, config.vocab_size)
    assert out.logits.dtype == torch.float32
    assert out.loss.shape == ()
    assert len(out.attentions) == len(out.attention_scores) == config.n_layer
    assert {m.shape for m in out.attentions} == {(3, config.n_head, 24, 24)}


def test_what_was_not_asked_for_is_none(config):
    out = shaken(config)(ids(config))
    assert out.loss is out.lm_loss is out.attentions is out.attention_scores is None


def test_fast_attention_equals_the_explicit_softmax(config):
    model, idx = shaken(config), ids(config)
    fast, explicit = model(idx), model(idx, return_attention=True)
    torch.testing.assert_close(fast.logits, explicit.logits, atol=1e-5, rtol=1e-5)


def test_attention_maps_are_causal_distributions(config):
    model, idx = shaken(config), ids(config)
    out = model(idx, return_attention=True)
    for weights, scores in zip(out.attentions, out.attention_scores, strict=True):
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, config.n_head, 24))
        assert weights.triu(diagonal=1).abs().max() == 0
        torch.testing.assert_close(weights, scores.softmax(-1))


def test_later_tokens_never_change_earlier_logits(config):
    model, idx = shaken(config), ids(config)
    changed = idx.clone()
    changed[:, 10:] = (changed[:, 10:] + 7) % config.vocab_size
    before, after = model(idx).logits, model(changed).logits
    torch.testing.assert_close(before[:, :10], after[:, :10], atol=1e-6, rtol=1e-6)
    assert (before[:, 10:] - after[:, 10:]).abs().max() > 0.1


def test_rows_of_a_batch_are_independent(config):
    model, idx = shaken(config), ids(config)
    together, alone = model(idx).logits[1:2], model(idx[1:2]).logits
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_position_matters(config):
    """In one layer without positions, swapping two earlier tokens would change nothing."""
    config = replace(config, n_layer=1)
    model, idx = shaken(config), ids(config)
    swapped = idx.clone()
    swapped[:, [2, 5]] = idx[:, [5, 2]]
    assert (model(idx).logits[:, -1] - model(swapped).logits[:, -1]).abs().max() > 1e-3


@pytest.mark.parametrize(("allowed", "rows"), [(10, 10), (89, 89), (90, 90), (10**6, 90)])
def test_bigrams_add_a_vector_for_each_pair(allowed, rows):
    """Pair by pair, by hand; 9 symbols and none before them: 90 pairs."""
    plain = shaken(ModelConfig(vocab_size=9, block_size=8))
    model = shaken(replace(plain.config, bigrams=allowed))
    model.load_state_dict(plain.state_dict(), strict=False)
    table, idx = model.bigrams.weight, ids(plain.config, length=8)
    assert len(table) == rows
    plain.wpe.register_forward_hook(lambda *_: added)  # instead of the positions' vectors
    added = torch.zeros(3, 8, 64)
    for b, t in product(range(3), range(8)):
        before = 9 if t == 0 else int(idx[b, t - 1])
        added[b, t] = model.wpe.weight[t] + table[(9 * before + int(idx[b, t])) % rows]
    torch.testing.assert_close(model(idx).logits, plain(idx).logits)


@pytest.mark.parametrize(("V", "allowed", "rows"), [(512, 1024, 1023), (6, 9, 7), (5, 1, 1)])
def test_pairs_share_vectors_evenly(V, allowed, rows):
    """A common factor of V and the rows would leave few vectors for all that stands before."""
    bigrams = Bigrams(ModelConfig(vocab_size=V, bigrams=allowed))
    assert bigrams.num_embeddings == rows
    before = torch.arange(V)[None]
    vectors = bigrams(torch.zeros_like(before), before, torch.ones(1))[0]
    assert len(vectors.unique(dim=0)) == min(V, rows)


@pytest.mark.parametrize("moe", [None, MoEConfig()])
def test_token_shift_lets_feed_forward_layers_read_the_position_before(moe):
    config = replace(VARIANTS["modern"], token_shift=True, moe=moe)
    block, x = shaken(config).blocks[1], torch.randn(2, 5, 32)
    table, seen, ffn = rotary_table(torch.arange(5), 8, 10_000.0), [], block.ffn.forward
    block.ffn.forward = lambda h: seen.append(h) or ffn(h)
    block(x, table)
    h = block.ln_2(x + block.attn(block.ln_1(x), table)[0])
    for t in range(5):
        before = h[:, t - 1] if t else torch.zeros(2, 32)
        torch.testing.assert_close(seen[0][:, t], h[:, t] + block.shift.mu * before)


@pytest.mark.parametrize("variant", ["modern", "llama", "gpt2", "qwen"])
def test_equals_a_forward_pass_written_out(variant):
    """Head by head, position by position, from the formulas alone."""
    config = VARIANTS[variant]
    model, idx = shaken(config), ids(config, batch=1, length=9)
    D, T = config.head_size, 9

    def norm(x, module, eps=config.norm_eps):
        if isinstance(module, torch.nn.RMSNorm):
            return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * module.weight
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        return scaled * module.weight + module.bias

    def turned(x):  # (T, D), complex numbers x_i + i x_{i + D/2} times exp(i angle)
        frequency = 1 / config.rope_theta ** (torch.arange(0, D, 2) / D)
        angle = torch.arange(T)[:, None] * frequency
        z = torch.complex(x[:, : D // 2], x[:, D // 2 :]) * torch.polar(torch.ones(()), angle)
        return torch.cat([z.real, z.imag], dim=1)

    x = model.wte.weight[idx[0]]
    if config.position == "learned":
        x = x + model.wpe.weight[:T]
    for block in model.blocks:
        sizes = [n * D for n in (config.n_head, config.kv_heads, config.kv_heads)]
        q, k, v = block.attn.c_attn(norm(x, block.ln_1)).split(sizes, dim=-1)
        heads = []
        for part in range(config.n_head):
            cut = slice(part * D, (part + 1) * D)
            shared = part * config.kv_heads // config.n_head  # the keys' and values' head
            read = slice(shared * D, (shared + 1) * D)
            qh, kh = q[:, cut], k[:, read]
            if config.qk_norm:
                qh, kh = norm(qh, block.attn.q_norm), norm(kh, block.attn.k_norm)
            if config.position == "rope":
                qh, kh = turned(qh), turned(kh)
            rows = [
                ((qh[t] @ kh[: t + 1].T) / math.sqrt(D)).softmax(0) @ v[: t + 1, read]
                for t in range(T)
            ]
            heads.append(torch.stack(rows))
        x = x + block.attn.c_proj(torch.cat(heads, dim=1))
        h = block.ffn.c_fc(norm(x, block.ln_2))
        if config.mlp == "gelu":
            h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        elif config.mlp == "relu2":
            h = h.clamp(min=0) ** 2
        else:
            gate, value = h.chunk(2, dim=-1)
            h = gate * gate.sigmoid() * value
        x = x + block.ffn.c_proj(h)
    expected = model.lm_head(norm(x, model.ln_f))
    torch.testing.assert_close(model(idx).logits[0], expected, atol=1e-5, rtol=1e-5)


def test_output_projections_start_smaller_the_deeper_the_model():
    torch.manual_seed(0)
    model = TinyGPT(ModelConfig(n_embd=128, n_layer=8))
    for block in model.blocks:
        assert block.attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.05)
        for layer in (block.attn.c_proj, block.ffn.c_proj):
            assert layer.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)


def test_initial_loss_is_that_of_guessing(config):
    torch.manual_seed(0)
    idx = ids(config, batch=16)
    loss = TinyGPT(config)(idx[:, :-1], idx[:, 1:]).lm_loss.item()
    assert loss == pytest.approx(math.log(config.vocab_size), abs=0.05)


def test_zero_init_starts_as_the_identity():
    config = replace(VARIANTS["modern"], zero_init=True, tie_embeddings=True)
    model, idx = TinyGPT(config), ids(config)
    expected = model.lm_head(model.ln_f(model.wte(idx)))
    torch.testing.assert_close(model(idx).logits, expected)


def test_ignored_targets_do_not_count(config):
    model, idx = shaken(config), ids(config)
    targets = idx.clone()
    targets[:, 5:] = -100
    logits = model(idx).logits[:, :5].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, idx[:, :5].flatten())
    torch.testing.assert_close(model(idx, targets).lm_loss, expected)


def test_dropout_acts_in_training_only():
    model, idx = shaken(replace(VARIANTS["gpt2"], dropout=0.3)), ids(VARIANTS["gpt2"])
    assert torch.equal(model(idx).logits, model(idx).logits)
    model.train()
    assert not torch.equal(model(idx).logits, model(idx).logits)
    explicit = [model(idx, return_attention=True).logits for _ in range(2)]
    assert not torch.equal(*explicit)


def test_dropout_acts_in_each_of_its_places():
    config = replace(VARIANTS["gpt2"], dropout=0.5)
    x = torch.ones(1, 8, config.n_embd)
    model = shaken(config).train()
    block = model.blocks[0]
    for part in (model.dropout, lambda x: block.attn(x)[0], block.ffn):
        assert not torch.equal(part(x), part(x))


def test_attention_weights_are_not_dropped():
    """So the fast kernel serves in training, too, and draws what the explicit softmax draws."""
    model, idx = shaken(replace(VARIANTS["gpt2"], dropout=0.5)).train(), ids(VARIANTS["gpt2"])
    results = []
    for explicit in (False, True):
        torch.manual_seed(0)
        results.append(model(idx, return_attention=explicit).logits)
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_too_long_a_sequence_names_both_lengths(config):
    with pytest.raises(ConfigError, match="25 tokens is longer than block_size=24"):
        shaken(config)(ids(config, length=25))


def test_overfits_one_batch(config):
    torch.manual_seed(0)
    model, idx = TinyGPT(config), ids(config, batch=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = model(idx[:, :-1], idx[:, 1:]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_rotary_dot_products_depend_on_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 8)
    products = []
    for start in (0, 5, 100):
        cos, sin = rotary_table(torch.tensor([start, start + 3]), 8, 10_000.0)
        products.append((rotate(q, cos[:1], sin[:1]) * rotate(k, cos[1:], sin[1:])).sum().item())
    assert products[0] == pytest.approx(products[1], abs=1e-5)
    assert products[0] == pytest.approx(products[2], abs=1e-4)
    assert products[0] != pytest.approx((q * k).sum().item(), abs=1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("traced", [False, True])
def test_half_weights_run_in_every_shape(config, dtype, traced):
    """Close to float32 up to the digits that 16 bits hold; a rotary table has all of them."""
    model, idx = shaken(config), ids(config)
    expected = model(idx, idx, return_attention=traced)
    half = copy.deepcopy(model).to(dtype)
    actual = half(idx, idx, return_attention=traced)
    assert actual.logits.dtype == torch.float32
    assert (actual.logits - expected.logits).abs().max() < 0.05 * expected.logits.abs().max()
    actual.loss.backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in half.parameters())
    cache = KVCache(config, batch_size=3, dtype=dtype, padding=torch.tensor([0, 2, 4]))
    with torch.inference_mode():
        pieces = [half.eval()(part, cache=cache).logits for part in idx.split([5, 1, 18], dim=1)]
    assert torch.cat(pieces, dim=1).isfinite().all()


@pytest.mark.cuda
def test_cuda_equals_cpu(config):
    model, idx = shaken(config), ids(config)
    expected = model(idx).logits
    actual = model.cuda()(idx.cuda()).logits.cpu()
    torch.testing.assert_close(actual, expected, atol=2e-3, rtol=2e-3)
