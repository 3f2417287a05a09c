"""A model beside its dense twins: they have the sizes that are said, and the same work."""

from dataclasses import replace

import pytest

from tinygpt import PRESETS, TinyGPT
from tinygpt.benchmark import dense_twin, dense_twins, model_speed, twins
from tinygpt.measure import count_parameters, flops_per_token
from tinygpt.model import KVCache

from ..tools import LLAMA, SHAPE, moe_config


@pytest.mark.parametrize("shape", [SHAPE, LLAMA], ids=["gelu", "swiglu"])
@pytest.mark.parametrize(
    "moe", [{}, {"top_k": 2, "n_shared": 1, "n_inner": 20}, {"n_experts": 8, "every": 2}]
)
def test_twins_are_as_near_to_the_sizes_as_a_width_can_be(shape, moe):
    config = moe_config(shape, **moe)
    counts = count_parameters(TinyGPT(config))
    found = dense_twins(config)
    assert list(found) == ["dense, equal active", "dense, equal total"]
    for twin, size in zip(found.values(), (counts.active, counts.total), strict=True):
        assert twin == replace(config, moe=None, n_inner=twin.n_inner)
        near = [
            abs(count_parameters(TinyGPT(replace(twin, n_inner=twin.n_inner + d))).total - size)
            for d in (-1, 0, 1)
        ]
        assert near[1] == min(near)


def test_a_dense_model_has_no_twins_and_is_its_own():
    assert dense_twins(SHAPE) == {}
    assert dense_twin(SHAPE, count_parameters(TinyGPT(SHAPE)).total).n_inner == SHAPE.inner_size
    assert dense_twin(SHAPE, 1).n_inner == 1  # there is none so small


def test_twins_take_no_memory(monkeypatch):
    """Of a preset with a thousand million parameters, too: it is counted by shapes alone."""
    built = []
    monkeypatch.setattr(twins, "TinyGPT", lambda config: built.append(TinyGPT(config)) or built[-1])
    dense_twins(PRESETS["laptop-moe"].model)
    assert {p.device.type for model in built for p in model.parameters()} == {"meta"}


def test_each_model_does_the_same_work_and_is_told_by_its_own_figures():
    config = moe_config(top_k=2, n_experts=8)
    model = TinyGPT(config)
    report = model_speed(model, "mixture", batch=3, rounds=2, device="cpu")
    names = ["mixture", "dense, equal active", "dense, equal total"]
    works = ["forward, batch 1", "forward, batch 3", "writing"]
    assert [(r["what"], r["model"]) for r in report.rows] == [(w, n) for w in works for n in names]
    twins = [model, *(TinyGPT(twin) for twin in dense_twins(config).values())]
    for i, row in enumerate(report.rows):
        own, seconds = twins[i % 3], row["ms"] / 1e3
        tokens = {"forward, batch 1": 24, "forward, batch 3": 72, "writing": 23}[row["what"]]
        assert row["tokens_per_s"] == pytest.approx(tokens / seconds)
        flops = flops_per_token(own, training=False)
        assert row["gflop_per_token"] == pytest.approx(flops / 1e9)
        assert row["gflop_per_s"] == pytest.approx(flops * tokens / seconds / 1e9)
        cache = (row["what"] == "writing") * KVCache(own.config).nbytes
        assert row["peak_mb"] > (4 * count_parameters(own).total + cache) / 1e6
        assert row.get("samples_per_s", 0) * seconds == pytest.approx({24: 1, 72: 3, 23: 0}[tokens])
        assert (row["times"] == 1) == (i % 3 == 0)
    counts = count_parameters(model)
    assert f"mixture: {counts.total:,} parameters, {counts.active:,} active, 2 of 8" in str(report)


def test_writing_goes_on_at_the_end_of_a_full_context(monkeypatch):
    from tinygpt.benchmark import model as benchmark

    seen = []

    class Watched(benchmark.Reader):
        def __call__(self, tokens, T):
            start = self.cache.length
            super().__call__(tokens, T)
            seen.append((start, self.cache.length))

    monkeypatch.setattr(benchmark, "Reader", Watched)
    monkeypatch.setattr(benchmark, "WRITTEN", 5)
    work = benchmark._works(TinyGPT(SHAPE).eval(), 2)["writing"]
    work.run()
    work.run()
    assert seen == [(0, 24), (19, 24), (19, 24)]
    assert work.tokens == 5
