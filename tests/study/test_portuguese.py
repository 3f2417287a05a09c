"""The study on novels: its arms are the presets, and go the whole way in sub-words."""

from dataclasses import replace

import pytest

from tinygpt.measure import count_parameters, flops_per_token
from tinygpt.presets import PRESETS
from tinygpt.study import carry_out, report
from tinygpt.study.arms import FLOPS, TOTAL
from tinygpt.study.portuguese import NEARLY_FLOPS, NEARLY_TOTAL, PORTUGUESE

WITHIN = {FLOPS: 0.002, TOTAL: 0.002, NEARLY_FLOPS: 0.1, NEARLY_TOTAL: 1 / 6}  # routers, or more


@pytest.mark.parametrize("name", PORTUGUESE.arms)
def test_an_arm_at_full_size_is_the_preset(name):
    preset = PRESETS[f"ptbr-{name}"]
    assert PORTUGUESE.arms[name].config(PRESETS["ptbr-dense"].model) == preset.model
    changed = {"max_steps": 2000, "batch_size": 16, "grad_accum_steps": 1}
    assert replace(preset.train, **changed) == PORTUGUESE.train


def test_what_is_called_equal_is():
    models = {name: arm.build(PORTUGUESE.model) for name, arm in PORTUGUESE.arms.items()}
    total = {name: count_parameters(model).total for name, model in models.items()}
    active = {name: count_parameters(model).active for name, model in models.items()}
    flops = {name: flops_per_token(model) for name, model in models.items()}
    for c in PORTUGUESE.comparisons:
        for figures in (total,) if c.equal in (TOTAL, NEARLY_TOTAL) else (active, flops):
            assert abs(figures[c.first] / figures[c.second] - 1) < WITHIN[c.equal], c


def test_it_is_made_from_nothing_to_its_report(make_study):
    shape = {"block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 24, "n_inner": 48}
    few = replace(PORTUGUESE.train, max_steps=4, batch_size=2, warmup_steps=1)
    small = {"tokenizer": "bpe:300", "looks": 2, "factors": (1.0, 2.0), "sweep_updates": 2}
    model = replace(PORTUGUESE.model, **shape)
    design = replace(PORTUGUESE, model=model, train=few, rounds=2, seeds=2, **small)
    study = make_study(design, arms=())
    carry_out(study)
    runs, samples = study.runs(), study.details("samples")
    assert len(runs) == 2 * 5
    assert set(study.details("experts")["arm"]) == {"moe-4x1", "moe-6x1", "moe-8x2"}
    assert len(samples) == 2 * len(runs)
    assert all(row.text.startswith(row.prompt) for row in samples.itertuples())
    assert len(report(study)[-1].rows) == len(design.comparisons)
