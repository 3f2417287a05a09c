"""The cost of a token: the slope of made-up costs, and the rows of small sizes."""

import pytest

from tinygpt.benchmark import scale


@pytest.mark.parametrize("exponent", [-0.5, 0, 1, 2.25])
def test_the_slope_is_the_exponent(exponent):
    sizes = (4, 8, 64, 1000)
    assert scale.slope(sizes, [3 * size**exponent for size in sizes]) == pytest.approx(exponent)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(scale, "TOKENS", 128)
    monkeypatch.setattr(scale, "CONTEXTS", (64, 128))
    monkeypatch.setattr(scale, "EXPERTS", (2, 4))
    monkeypatch.setattr(scale, "BATCHES", (1, 3))


def test_each_size_grows_alone(small):
    report = scale.token_cost(rounds=1, device="cpu")
    lines = {}
    for row in report.rows:
        lines.setdefault((row["varied"], row["what"]), []).append(row)
    kinds = ("training step", "forward pass", "decoding")
    assert list(lines) == [(v, what) for v in ("context", "experts", "batch") for what in kinds]
    for (varied, what), (first, last) in lines.items():
        tokens = {"context": [128, 128], "experts": [128, 128], "batch": [64, 192]}[varied]
        if what == "decoding":
            tokens = [32, 96] if varied == "batch" else [32, 32]
        assert [first["tokens"], last["tokens"]] == tokens
        assert first["ms"] > 0
        assert first["us_per_token"] == pytest.approx(1000 * first["ms"] / first["tokens"])
        assert "slope_ms" not in first
        grows = last["slope_ms"] - last["slope_us_per_token"]
        assert grows == pytest.approx(float(varied == "batch"), abs=1e-6)
        assert (last["slope_mflop_per_token"] > 0) == (varied != "batch")
    assert "from context 64 to 128 alone" in report.notes[0]


def test_decoding_reads_its_last_tokens_over_a_full_cache(small, monkeypatch):
    """One token at a time, all up to the end of the context, and the same each time."""
    seen = []

    class Watched(scale.Reader):
        def __call__(self, tokens, T):
            start = self.cache.length
            logits = super().__call__(tokens, T)
            seen.append((start, self.cache.length, logits))
            return logits

    monkeypatch.setattr(scale, "Reader", Watched)
    *_, decoding = scale._works(scale.SHAPE, 2, 2, scale.pick_device("cpu"))
    decoding.run()
    decoding.run()
    assert [places for *places, _ in seen] == [[0, 64], [32, 64], [32, 64]]
    assert seen[1][2].allclose(seen[0][2], atol=1e-4)
    assert seen[1][2].equal(seen[2][2])
