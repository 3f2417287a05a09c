"""Rows side by side: each is what its prompt gives alone, under every setting."""

import random
from dataclasses import replace

import pytest
import torch

from tinygpt import generate, generate_batch, stream
from tinygpt.config import DecodingConfig
from tinygpt.decoding import Writer, generate_details, stream_tokens
from tinygpt.errors import ConfigError, NonFiniteError

from ..tools import (
    ALPHABET,
    VARIANTS,
    byte_model,
    gpt2,
    moe_config,
    opinionated,
    ready,
    shaken,
    subword_model,
)

MODELS = {
    **{name: lambda config=config: ready(config) for name, config in VARIANTS.items()},
    "bytes": byte_model,
    "bpe": subword_model,
    "experts": lambda: experts(),
}


def experts():
    model = opinionated(shaken(moe_config(replace(VARIANTS["modern"], n_layer=2), top_k=2)))
    model.tokenizer = gpt2().tokenizer
    return model


def random_case(rng: random.Random, name: str) -> tuple[list[str], dict]:
    """Prompts of different lengths, and settings of which any may be on."""
    alphabet = "the cat sat.\né" if name in ("bytes", "bpe") else ALPHABET
    past_block = rng.choice(["crop", "stop"] if name == "gpt2" else ["crop", "roll", "stop"])
    longest = 10 if past_block == "stop" and name == "bytes" else 24  # characters of two tokens
    lengths = rng.choices([1, 2, 5, 12, longest], k=rng.randint(1, 4))
    if past_block != "stop" and rng.random() < 0.3:
        lengths.append(40)
    prompts = ["".join(rng.choices(alphabet, k=n)) for n in lengths]
    few = "".join(rng.sample(alphabet, 4))
    choices = {
        "temperature": [0.0, 0.7, 1.5, 1e-40],
        "top_k": [3, 20],
        "top_p": [0.5, 0.95],
        "min_p": [0.05],
        "typical": [0.8],
        "epsilon": [0.01],
        "eta": [0.01],
        "repetition_penalty": [1.3, 0.8, 1e30],
        "repetition_window": [1, 4, 30],
        "frequency": [0.5, -0.2, 100],
        "presence": [0.4],
        "no_repeat_ngram": [1, 2, 3],
        "banned": [few],
        "allowed": [few, few + "ca"],
        "stop": [tuple(few), (few[:2],), (few[0], few[1:3])],
        "use_cache": [False],
        "constraint": [lambda text: alphabet if len(text) % 3 else few],
    }
    on = rng.sample(sorted(choices), k=rng.randint(0, 5))
    options = {name: rng.choice(choices[name]) for name in on}
    return prompts, options | {"past_block": past_block}


def outcome(function, *arguments, **options):
    """What a call returns; None if it leaves no symbol."""
    try:
        return function(*arguments, **options)
    except ConfigError as error:
        if "no symbol is left" in str(error) or "leave no symbol" in str(error):
            return None
        raise


@pytest.mark.parametrize("name", MODELS)
def test_each_row_is_what_its_prompt_gives_alone_under_random_settings(name):
    """Its text, its details, its stream; and there is an error exactly if one alone has it."""
    model, rng, errors, ended = MODELS[name](), random.Random(name), 0, 0
    for _ in range(40):
        prompts, options = random_case(rng, name)
        new, seed = rng.choice([0, 1, 8, 45]), rng.randrange(1000)
        alone = [
            outcome(generate, model, prompt, new, seed=seed + i, **options)
            for i, prompt in enumerate(prompts)
        ]
        together = outcome(generate_batch, model, prompts, new, seed=seed, **options)
        case = prompts, options, new, seed
        if None in alone:
            assert together is None, case
            errors += 1
            continue
        assert together == alone, case
        details = generate_details(model, prompts, new, seed=seed, **options)
        assert [row.text for row in details] == alone, case
        options.pop("use_cache", None)
        for i, row in enumerate(details):
            assert len(row.logprobs) == len(row.raw_logprobs) == len(row.tokens)
            own = {"seed": seed + i, **options}
            assert prompts[i] + "".join(stream(model, prompts[i], new, **own)) == row.text, case
            assert list(stream_tokens(model, prompts[i], new, **own)) == row.tokens, case
            ended += row.stopped or len(row.tokens) < new
    assert errors < 20
    assert ended >= 5


def test_a_short_prompt_beside_a_long_one_fills_its_own_block(model):
    """block_size is 24: after 3 tokens it has room for 21, and one that is never read."""
    long, short = generate_batch(model, [ALPHABET[:20], "ABC"], 100, seed=1, past_block="stop")
    assert (len(long), len(short)) == (25, 25)
    assert short == generate(model, "ABC", 100, seed=2, past_block="stop")


def test_a_row_that_has_ended_is_asked_nothing_more():
    """Neither a constraint, nor a filter that would leave nothing of it."""
    model, asked = gpt2(), []
    follows = {"A": "B", "B": "Z", "C": "D", "D": "E", "E": "F"}

    def constraint(text):
        asked.append(text)
        return follows[text[-1]]  # after a Z nothing is known

    texts = generate_batch(model, ["A", "C"], 4, constraint=constraint, stop=("Z", "F"))
    assert texts == ["AB", "CDE"]
    assert asked == ["A", "C", "AB", "CD", "CDE"]
    options = {"no_repeat_ngram": 1, "allowed": "ABCDZ", "temperature": 0.0}
    model = ready(replace(VARIANTS["gpt2"], block_size=4))  # the long row ends after 3 + 2
    with pytest.raises(ConfigError, match="no symbol is left for row 0 after no repeated 1-gram"):
        generate_batch(model, ["ABC", "A"], 9, past_block="crop", **options)
    both = generate_batch(model, ["ABC", "A"], 9, past_block="stop", **options)
    assert [len(text) for text in both] == [5, 5]


@pytest.mark.parametrize("damage", [torch.nan, torch.inf])
def test_damaged_weights_write_nothing(damage):
    for options in ({}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5, "banned": "0"}):
        for place in (0, 7):  # of the symbol whose logit is no number
            model = gpt2()
            with torch.no_grad():
                model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
                model.lm_head.weight[place] = damage
            for call in (
                lambda m, o: generate(m, "A", 5, **o),
                lambda m, o: generate_batch(m, ["A", "BC"], 5, **o),
                lambda m, o: next(stream(m, "A", 5, **o)),
                lambda m, o: next(stream_tokens(m, "A", 5, stop=("Z",), **o)),
            ):
                with pytest.raises(NonFiniteError, match="logits for row 0 are NaN or infinite"):
                    call(model, options)


def test_damage_is_found_where_it_comes_late_and_in_which_row():
    model = ready(VARIANTS["llama"])
    with torch.no_grad():
        model.wte.weight[60] = torch.nan
    prompts = ["A", "B" + ALPHABET[60]]
    with pytest.raises(NonFiniteError, match="for row 1 are"):
        generate_batch(model, prompts, 5, seed=0)
    writing = stream_tokens(model, "A", 5, seed=0, forced={2: 60})
    assert next(writing) < 60
    with pytest.raises(NonFiniteError, match="for row 0 are"):
        list(writing)


def test_on_a_gpu_the_look_comes_at_the_end():
    """As if on one: no look on the way, and still no text."""
    model = ready(VARIANTS["llama"])
    with torch.no_grad():
        model.wte.weight[60] = torch.nan
    writer = Writer(model, ["A", "B" + ALPHABET[60]], 5, None, DecodingConfig())
    writer.looks = False
    writing = writer.run(seed=0)
    for _ in range(5):
        next(writing)
    with pytest.raises(NonFiniteError, match="for row 1 are"):
        next(writing)


@pytest.mark.parametrize("stop", [(), ("Z", "ab")])
@pytest.mark.parametrize("at_once", [1, 4, 7, 1000])
def test_tokens_written_at_once_are_those_written_one_by_one(stop, at_once):
    model, prompts = gpt2(), ["ABC", "A", "0123"]
    model.train()
    writer = Writer(model, prompts, 30, None, DecodingConfig(stop=stop))
    lengths = []
    for _ in writer.run(seed=0, at_once=at_once):
        assert model.training
        assert not torch.is_inference_mode_enabled()
        lengths.append(writer.length - 4)
    if not stop:
        assert lengths == [min(at_once * n, 30) for n in range(1, len(lengths) + 1)]
    assert lengths[-1] <= 30
    expected = [generate(model, prompt, 30, seed=i, stop=stop) for i, prompt in enumerate(prompts)]
    assert [writer.text(row) for row in range(3)] == expected
