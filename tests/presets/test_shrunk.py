"""Each preset is made small by overrides, and goes the way of the large one in a moment."""

from dataclasses import replace

import pytest

from tinygpt import TinyGPT, Trainer, generate, load_run, upcycle
from tinygpt.presets import PRESETS
from tinygpt.runtime import seed_all

from .conftest import shrunk


@pytest.mark.parametrize("name", PRESETS)
def test_it_trains_is_saved_loaded_and_writes(name, plays, tmp_path):
    model, train = shrunk(PRESETS[name], plays.tokenizer.vocab_size)
    seed_all(0)
    corpus = replace(plays, val=plays.val[:600])
    trainer = Trainer(TinyGPT(model), corpus, train, tmp_path / "run")
    trainer.fit(progress=False)
    assert trainer.step == 4
    loaded = load_run(tmp_path / "run", which="latest")
    assert loaded.config == model
    text = generate(loaded, "The ", 20, seed=0)
    assert len(text) == 24
    assert text == generate(trainer.model, "The ", 20, seed=0)


def test_gpt2_moe_is_gpt2_upcycled():
    dense, _ = shrunk(PRESETS["gpt2"], 50)
    mixture, _ = shrunk(PRESETS["gpt2-moe"], 50)
    # experts as wide as the layer that they are copies of, which `shrunk` makes narrower
    mixture = replace(mixture, moe=replace(mixture.moe, n_inner=dense.inner_size))
    assert upcycle(TinyGPT(dense), n_experts=8, top_k=2).config == mixture
    assert PRESETS["gpt2-moe"].model.moe.n_inner == PRESETS["gpt2"].model.inner_size
