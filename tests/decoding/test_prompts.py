"""What is asked for is checked where it enters: one clear error, and nothing foreign."""

import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tinygpt import (
    generate,
    generate_batch,
    generate_beam,
    generate_combined,
    generate_greedy,
    generate_nucleus,
    generate_temperature,
    generate_top_k,
    stream,
)
from tinygpt.decoding import beam_search, generate_details, generate_lookup, stream_tokens
from tinygpt.errors import ConfigError, TinyGPTError, UnknownCharacterError
from tinygpt.text import CharTokenizer

from ..tools import VARIANTS, byte_model, gpt2, ready, subword_model

ONE = (generate, generate_greedy, stream, stream_tokens, generate_beam, beam_search)
EACH = (*ONE, generate_lookup)
SAMPLING = (generate, generate_greedy, stream, stream_tokens)


@pytest.mark.parametrize("function", EACH)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None,), "prompt must be one text, not a NoneType"),
        ((b"A",), "prompt must be one text, not a bytes"),
        (([],), "prompt must be one text, not a list; for a list of texts there are"),
        (("",), "a prompt is empty; give at least one character"),
        (("A", 5.0), "max_new_tokens=5.0 must be a whole number"),
        (("A", True), "max_new_tokens=True must be a whole number"),
        (("A", np.int64(5)), r"max_new_tokens=.* a whole number of Python: int\(...\) makes one"),
        (("A", -1), "max_new_tokens=-1 must be at least 0"),
        (("A", 10**12), "max_new_tokens=1000000000000 for . rows.* at most 134217728 tokens tog"),
        (("A", None), "max_new_tokens=None must be a whole number"),
    ],
)
def test_prompts_and_lengths(function, arguments, words):
    with pytest.raises(ConfigError, match=words):
        function(gpt2(), *arguments)


@pytest.mark.parametrize("function", EACH)
def test_models_tokenizers_and_unknown_options(function):
    model = gpt2()
    for wrong in ("A", None, dict, torch.nn.Linear(2, 2)):
        with pytest.raises(ConfigError, match="model must be a TinyGPT, not a .* it comes first"):
            function(wrong, "A")
    for wrong in ("A", 0, [], CharTokenizer, "", b""):
        with pytest.raises(ConfigError, match="tokenizer must be a Tokenizer, not a "):
            function(model, "A", tokenizer=wrong)
    with pytest.raises(ConfigError, match="no option max_tokens; there are .* mean max_new_tokens"):
        function(model, "A", max_tokens=3)
    with pytest.raises(ConfigError, match=r"no option qqq; there are "):
        function(model, "A", qqq=3)


@pytest.mark.parametrize("function", SAMPLING)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 1.0}, "seed=1.0 must be a whole number, or None"),
        ({"seed": "3"}, "seed='3' must be a whole number"),
        ({"seed": True}, "seed=True must be a whole number"),
        ({"seed": 2**70}, "seed=1180591620717411303424 must be between .* .64 bits"),
        ({"seed": -(2**64)}, "must be between"),
        ({"top_k": 10.0}, "top_k=10.0 must be a whole number"),
        ({"top_p": None}, "top_p=None must be a finite number"),
        ({"min_p": "0.8"}, "min_p='0.8' must be a finite number"),
        ({"stop": "x"}, "stop='x' must be a tuple of texts"),
        ({"stop": None}, "stop=None must be a tuple of texts"),
        ({"banned": None}, "banned=None must be a text"),
        ({"allowed": ""}, "allowed='' and banned='' leave no symbol"),
        ({"banned": gpt2().tokenizer.characters}, "leave no symbol"),
        ({"constraint": "abc"}, "constraint='abc' must be a function"),
        ({"compile": 1}, "compile=1 must be True or False"),
    ],
)
def test_settings(function, options, words):
    """Also where the first piece is not asked for yet."""
    with pytest.raises(ConfigError, match=words):
        function(gpt2(), "A", 5, **options)


@pytest.mark.parametrize("name", ["top_k", "repetition_window", "no_repeat_ngram"])
def test_a_whole_number_of_any_size_is_as_good_as_a_large_one(name):
    options = {"repetition_penalty": 1.5, "constraint": lambda text: "" if len(text) > 9 else "AB"}
    for size in (10**6, 2**70, 10**400):
        assert len(generate(gpt2(), "A", 8, **options, **{name: size})) == 9
        with pytest.raises(ConfigError, match="no symbol is left for row 0 after repetition 1.5"):
            generate(gpt2(), "A", 99, **options, **{name: size})
    for name in ("temperature", "repetition_penalty"):
        assert len(generate(gpt2(), "A", 8, **{name: 2**70})) == 9


def test_the_ends_of_the_seeds():
    model = gpt2()
    for seed in (-(2**63), -1, 0, 2**64 - 1):
        assert generate(model, "A", 5, seed=seed) == generate(model, "A", 5, seed=seed)
    texts = generate_batch(model, ["A", "A"], 9, seed=2**64 - 1)
    assert texts == [generate(model, "A", 9, seed=-1), generate(model, "A", 9, seed=0)]


@pytest.mark.parametrize("answer", [None, 5, [1], ["a", None], b"ab", 1.5])
def test_a_constraint_that_gives_no_characters(answer):
    with pytest.raises(ConfigError, match="the constraint gave no characters after 'A': Type"):
        generate(gpt2(), "A", 5, constraint=lambda text: answer)


@pytest.mark.parametrize("error", [KeyError("q"), StopIteration(), ZeroDivisionError("by 0")])
def test_a_constraint_that_fails(error):
    def constraint(text):
        raise error

    for function in (generate, lambda *a, **o: list(stream(*a, **o))):
        with pytest.raises(ConfigError, match="the constraint gave no characters") as caught:
            function(gpt2(), "A", 5, constraint=constraint)
        assert caught.value.__cause__ is error
    with pytest.raises(UnknownCharacterError, match="'é'"):
        generate(gpt2(), "A", 5, constraint=lambda text: gpt2().tokenizer.encode("é"))


@pytest.mark.parametrize(
    "forced", [[], 5, "ab", {0: 1.0}, {"0": 1}, {-1: 3}, {0: True}, {0: None}, {0: np.int64(1)}]
)
def test_forced_tokens_of_another_type(forced):
    with pytest.raises(ConfigError, match="forced=.* must be a dict"):
        stream_tokens(gpt2(), "A", 5, forced=forced)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_beams": 2.0}, "n_beams=2.0 must be a whole number"),
        ({"n_beams": True}, "n_beams=True must be"),
        ({"n_beams": 0}, "n_beams=0 must be between 1 and 10000"),
        ({"n_beams": 10**9}, "n_beams=1000000000 must be between"),
        ({"length_penalty": math.inf}, "length_penalty=inf must be a finite number"),
        ({"length_penalty": math.nan}, "length_penalty=nan must be a finite number"),
        ({"length_penalty": 1e300}, "length_penalty=1e.300 must be between -30 and 30"),
        ({"length_penalty": "1"}, "length_penalty='1' must be a finite number"),
        ({"stop": "x"}, "stop='x' must be a tuple"),
        ({"stop": ("",)}, "a stop sequence is empty"),
        ({"past_block": "fly"}, "past_block='fly' must be one of"),
        ({"temperature": 0.5}, "no option temperature; there are n_beams, length_penalty"),
    ],
)
def test_beams(options, words):
    for function in (beam_search, generate_beam):
        with pytest.raises(ConfigError, match=words):
            function(gpt2(), "A", 5, **options)


def test_beams_with_a_length_penalty_at_its_ends():
    for penalty in (-30, 30.0):
        scores = [
            score
            for _, score in beam_search(gpt2(), "A", 60, length_penalty=penalty, stop=("Z", "a"))
        ]
        assert all(map(math.isfinite, scores))


def test_lookups_lists_and_doubled_options():
    for name in ("ngram", "draft"):
        for wrong in (0, 2.0, True, "3", None):
            with pytest.raises(ConfigError, match=f"{name}={wrong!r} must be"):
                generate_lookup(gpt2(), "A", **{name: wrong})
    with pytest.raises(ConfigError, match="generate_greedy has temperature=0; for another"):
        generate_greedy(gpt2(), "A", temperature=1.0)
    for function in (generate_batch, generate_details):
        for wrong in (None, 5, "ABC", True):
            with pytest.raises(ConfigError, match="prompts must be a list of texts, not a"):
                function(gpt2(), wrong)
        for wrong in (["A", None], [b"A"], b"A", [["A"]]):
            with pytest.raises(ConfigError, match="prompt must be one text, not a"):
                function(gpt2(), wrong)
        assert function(gpt2(), (text for text in ("A", "B")), 0)


def test_a_cache_without_memory_is_one_clear_error():
    model = ready(VARIANTS["llama"])  # rotary positions: no weight is as long as the block
    model.config = replace(model.config, block_size=10**14)
    for call in (generate, generate_lookup, generate_beam):
        with pytest.raises(ConfigError, match="no memory for the keys and values of . rows of 100"):
            call(model, "A", 5)


@pytest.mark.parametrize("text", ["\ud800", "A\udfff", "e\u0301", "\x00", "\u202e", "\U0010ffff"])
def test_hostile_characters_are_unknown_ones(text):
    model = gpt2()
    for options in ({"stop": (text,)}, {"banned": text}, {"allowed": text}):
        with pytest.raises(UnknownCharacterError):
            generate(model, "A", 5, **options)
    with pytest.raises(UnknownCharacterError):
        generate(model, text, 5)
    with pytest.raises(UnknownCharacterError):
        generate(model, "A", 5, constraint=lambda _: text)


# --- two thousand random calls -----------------------------------------------------------------

JUNK = [
    None, True, False, 0, -1, 3, 1.5, -0.0, math.nan, math.inf, -math.inf, 1e300, 1e-46, 5e-324,
    10**12, -(10**12), 10**400, 2**70, 1j, "x", "", "0.8", "crop", b"x", b"", [], [1], ["A"], (),
    ("A",), {}, {"A": 1}, {0: 1}, set(), object(), len, str, lambda text: None, lambda: "A",
    np.float64(0.5), np.float32(0.5), np.int64(3), np.nan, np.array([1, 2]), np.str_("A"),
    torch.tensor(2), torch.tensor([1.0, 2.0]), "\ud800", "é", "A" * 60, CharTokenizer("AB"),
]  # fmt: skip

TYPED = {
    "temperature": [0, 0.0, 0.5, 1, 2.0, 1e-46, 5e-324, 1e30, 1e31, -1.0, math.inf, math.nan],
    "top_k": [None, 0, 1, 5, 64, 65, 1000, 10**12, -3],
    "top_p": [1, 1.0, 0.5, 1e-9, 5e-324, 0.0, 1.1, 1 - 1e-16],
    "min_p": [0.0, 0.1, 1.0, 5e-324, 1.5],
    "typical": [1.0, 0.3, 5e-324, 0.0],
    "epsilon": [0.0, 0.01, 0.999, 1e-46, 1.0],
    "eta": [0.0, 0.01, 0.999, 1e-46],
    "repetition_penalty": [1.0, 1.3, 0.5, 1e30, 1e-30, 1e-46, 1e300, 0.0],
    "repetition_window": [None, 1, 5, 10**12, 0],
    "frequency": [0.0, 0.5, 100.0, -100, 1e38, -1e300, math.inf],
    "presence": [0.0, 0.5, 100.0, -100, 1e38, math.nan],
    "no_repeat_ngram": [0, 1, 2, 10**12, -1],
    "banned": ["", "0", "ABC", "é", "\ud800"],
    "allowed": [None, "", "ABCD", "0", "A"],
    "stop": [(), ("A",), ["AB", "C"], ("",), ("é",), ("\n\n",), "A"],
    "past_block": ["crop", "roll", "stop", "fly"],
    "seed": [None, 0, 7, -1, 2**63, 2**64 - 1, 2**64],
    "use_cache": [True, False],
    "constraint": [None, lambda text: "ABC0", lambda text: "", lambda text: text[:99]],
    "forced": [None, {}, {0: 5}, {3: 64, 0: 0}, {1: 65}],
    "n_beams": [1, 3, 70, 0, 10**12],
    "length_penalty": [0.0, 1.0, -30.0, 30, 31.0, 1e300, math.inf],
    "ngram": [1, 3, 10**12, 0],
    "draft": [1, 8, 10**12, -1],
}

BEAMS = ("n_beams", "length_penalty", "stop", "past_block")
SETTINGS = [*list(TYPED)[:16], "seed", "constraint"]
SAMPLERS = (
    generate, generate_greedy, generate_temperature, generate_top_k, generate_nucleus,
    generate_combined, generate_batch, generate_details,
)  # fmt: skip
CALLS = {
    **{function: [*SETTINGS, "use_cache"] for function in SAMPLERS},
    stream: SETTINGS,
    stream_tokens: [*SETTINGS, "forced"],
    beam_search: BEAMS,
    generate_beam: BEAMS,
    generate_lookup: ("ngram", "draft"),
}


def random_call(rng: random.Random, model, wild: bool) -> tuple[object, list, dict]:
    """A function, its arguments and its options; `wild`: of any type."""
    function = rng.choice(list(CALLS))
    several = function in (generate_batch, generate_details)
    prompts = ["A", "ABC0", "B" * 30, "0123ABCD"]
    prompt = rng.sample(prompts, rng.randint(1, 3)) if several else rng.choice(prompts)
    arguments = [model, prompt, rng.choice([0, 1, 6, 30])]
    names = rng.sample(CALLS[function], min(len(CALLS[function]), rng.randint(0, 4)))
    if not wild:  # most have one value that is out of its range at most
        options = {name: rng.choice(TYPED[name]) for name in names}
        return function, arguments, options
    options = {name: rng.choice(TYPED[name][:3]) for name in names}
    place = rng.choice([*names, "unknown", "tokenizer", 0, 1, 2])
    junk = rng.choice(JUNK)
    if isinstance(place, int):
        arguments[place] = junk
    else:
        options[place] = junk
    return function, arguments, options


def written(result, prompt, model) -> list[str]:
    """The continuations in whatever a function gives."""
    if isinstance(result, str):
        return [result[len(prompt) :]]
    if not isinstance(result, list):  # a stream
        pieces = list(result)
        tokens = pieces and not isinstance(pieces[0], str)
        return [model.tokenizer.decode(pieces) if tokens else "".join(pieces)]
    if isinstance(prompt, str):  # beams
        return [text[len(prompt) :] for text, _ in result]
    texts = [row if isinstance(row, str) else row.text for row in result]
    return [text[len(start) :] for text, start in zip(texts, prompt, strict=True)]


@pytest.mark.parametrize("wild", [False, True], ids=["typed", "untyped"])
def test_a_thousand_random_calls(wild):
    """Only this package's errors and `ValueError`s, and never a banned symbol."""
    rng, seen = random.Random(wild), Counter()
    models = [
        ready(replace(VARIANTS[name], n_layer=1, n_embd=16)) for name in ("gpt2", "llama", "modern")
    ]
    for _ in range(1000):
        model = rng.choice(models)
        function, arguments, options = random_call(rng, model, wild)
        try:
            texts = written(function(*arguments, **options), arguments[1], model)
        except (TinyGPTError, ValueError):
            seen["error"] += 1
            continue
        except Exception as error:
            pytest.fail(f"{error!r} by {function.__name__}, {arguments[1:]}, {options}")
        seen["text"] += 1
        for text in texts:
            assert not set(text) & set(options.get("banned") or ""), options
            assert set(text) <= set(options.get("allowed") or model.tokenizer.characters), options
    assert min(seen["error"], seen["text"]) > (20 if wild else 200), seen


@pytest.mark.parametrize("model", [byte_model, subword_model])
def test_random_settings_never_write_a_banned_character_of_any_token(model):
    model, rng = model(), random.Random(0)
    for seed in range(60):
        banned = "".join(rng.sample("the cat sat.\né😀", 3))
        names = [name for name in list(TYPED)[:12] if name != "no_repeat_ngram"]
        options = {name: rng.choice(TYPED[name][:3]) for name in rng.sample(names, 4)}
        try:
            text = generate(model, "the cat", 40, seed=seed, banned=banned, **options)
        except ConfigError:
            continue
        assert not set(text[7:]) & set(banned)
