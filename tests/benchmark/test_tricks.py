from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tinygpt import PRESETS, TinyGPT, TrainConfig, Trainer
from tinygpt.benchmark import tricks
from tinygpt.training import NEWTON_SCHULZ, orthogonalize

from ..tools import ids

CONFIG = replace(PRESETS["speedrun"].model, n_layer=2, n_embd=16, block_size=12, vocab_size=9)
MUON = TrainConfig(max_steps=6, batch_size=4, optimizer="muon", warmup_steps=0, weight_decay=0.0)
MODELS = [tricks.TokenShift, tricks.ValueEmbeddings, tricks.SoftCap, tricks.TwoTokens]


def made(kind: type[TinyGPT], config=CONFIG) -> TinyGPT:
    """A model whose every weight is away from its start."""
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_with_a_trick_stays_causal(kind):
    model, idx = made(kind), ids(CONFIG, length=12)
    changed = idx.clone()
    changed[:, 7:] = (changed[:, 7:] + 4) % 9
    before, after = model(idx).logits, model(changed).logits
    torch.testing.assert_close(before[:, :7], after[:, :7], atol=1e-5, rtol=1e-5)
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 0.1


@pytest.mark.parametrize("kind", MODELS)
def test_a_trick_changes_the_model_by_what_it_says(kind):
    """With the same weights and the trick's own at zero, it is the plain model, or its bound."""
    plain, model, idx = made(TinyGPT), kind(CONFIG).eval(), ids(CONFIG, length=12)
    own = set(model.state_dict()) - set(plain.state_dict())
    model.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for name in own:
            model.get_parameter(name).zero_()
    expected = plain(idx, idx)
    if kind is tricks.SoftCap:
        expected.logits = 15 * torch.tanh(expected.logits / 15)
    else:
        torch.testing.assert_close(model(idx, idx).loss, expected.loss)
    torch.testing.assert_close(model(idx).logits, expected.logits)
    if kind in (tricks.TokenShift, tricks.ValueEmbeddings):
        with torch.no_grad():
            for name in own:
                model.get_parameter(name).fill_(0.5)
        assert (model(idx).logits - expected.logits).abs().max() > 0.01


def test_token_shift_adds_the_vector_before():
    model = made(tricks.TokenShift)
    norm, x = model.blocks[1].ln_2, torch.randn(2, 5, 16)
    y = F.rms_norm(x, [16], norm.weight, norm.eps)
    for t in range(5):
        before = y[:, t - 1] if t else torch.zeros(2, 16)
        torch.testing.assert_close(norm(x)[:, t], y[:, t] + norm.mu * before)


def test_value_embeddings_are_those_of_the_tokens():
    model, idx = made(tricks.ValueEmbeddings), ids(CONFIG, length=12)
    model(idx)
    attn, x = model.blocks[1].attn, torch.randn(3, 12, 16)
    expected = x @ attn.c_attn.weight.T
    expected[..., 32:] += model.tables[1].weight[idx]
    torch.testing.assert_close(attn.c_attn(x), expected)


def test_the_second_head_learns_the_token_after_the_next():
    model, text = made(tricks.TwoTokens), ids(CONFIG, length=13)
    x, y = text[:, :-1], text[:, 1:]
    out, hidden = model.train()(x, y), model.last
    logits = hidden[:, :-1] @ model.second.weight.T
    second = F.cross_entropy(logits.flatten(0, 1), text[:, 2:].flatten())
    torch.testing.assert_close(out.loss, out.lm_loss + 0.3 * second)


def trained(kind: type[Trainer], corpus, steps: int = 6, config: TrainConfig = MUON) -> Trainer:
    torch.manual_seed(0)
    shape = replace(CONFIG, vocab_size=corpus.tokenizer.vocab_size, zero_init=False)
    model = TinyGPT(shape)
    trainer = kind(model, corpus, config)
    for _ in range(steps):
        trainer.train_step()
    return trainer


def test_the_averaged_weights_are_the_running_mean(corpus):
    plain, mean = trained(Trainer, corpus, 0), None
    for _ in range(6):
        plain.train_step()
        weights = plain.model.wte.weight.detach().clone()
        mean = weights if mean is None else 0.95 * mean + 0.05 * weights
    torch.testing.assert_close(trained(tricks.Averaged, corpus).model.wte.weight.detach(), mean)


def test_cautious_decay_pulls_where_the_update_does(corpus):
    start, plain = (trained(Trainer, corpus, n).model for n in (0, 1))
    cautious = trained(tricks.CautiousDecay, corpus, 1).model
    for name, lr in (("wte.weight", MUON.lr), ("blocks.0.attn.c_attn.weight", MUON.muon_lr)):
        was, now = start.get_parameter(name), plain.get_parameter(name)
        shrinks = (was - now) * was > 0
        expected = torch.where(shrinks, now - 0.1 * lr * was, now)
        torch.testing.assert_close(cautious.get_parameter(name).detach(), expected.detach())
        assert 0 < shrinks.float().mean() < 1


@pytest.mark.parametrize(
    ("kind", "early", "late"),
    [(tricks.GrowingBatch, (2, 12), (4, 12)), (tricks.GrowingContext, (8, 6), (4, 12))],
)
def test_what_grows_does_so_in_the_middle(kind, early, late, corpus):
    trainer, shapes = trained(kind, corpus, 0), []
    draw = trainer.batches.draw

    def watched():
        x, y = draw()
        shapes.append(tuple(x.shape))
        return x, y

    trainer.batches.draw = watched
    for _ in range(6):
        trainer.train_step()
    assert shapes == [early] * 3 + [late] * 3


def test_other_steps_reach_muon(corpus):
    class OneStep(tricks.PolarExpress):
        steps = NEWTON_SCHULZ[:1]

    start, few, usual = (
        trained(kind, corpus, n).model.blocks[0].attn.c_attn.weight
        for kind, n in ((Trainer, 0), (OneStep, 1), (Trainer, 1))
    )
    spread = [torch.linalg.svdvals((w - start).detach()).std() for w in (few, usual)]
    assert spread[0] > 1.2 * spread[1]
    assert [len(kind.steps) for kind in (tricks.FourSteps, tricks.ThreeSteps)] == [4, 3]


def test_polar_express_levels_singular_values_better():
    matrix = torch.randn(8, 40, 24, generator=torch.Generator().manual_seed(0))
    off = [
        (torch.linalg.svdvals(orthogonalize(matrix, steps)) - 1).abs().max()
        for steps in (tricks.POLAR_EXPRESS, NEWTON_SCHULZ)
    ]
    assert off[0] < 0.15 < 0.25 < off[1]
