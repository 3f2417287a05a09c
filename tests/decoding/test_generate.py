import pytest
import torch

from tinygpt import (
    UnknownCharacterError,
    generate,
    generate_batch,
    generate_beam,
    generate_combined,
    generate_greedy,
    generate_nucleus,
    generate_temperature,
    generate_top_k,
    generateV2,
    seed_all,
    stream,
)
from tinygpt.decoding import clean_text, generate_details, generate_lookup
from tinygpt.errors import ConfigError
from tinygpt.text import CharTokenizer

from ..tools import ALPHABET, VARIANTS, gpt2, ready


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {},
        {"temperature": 0.9, "top_k": 12, "top_p": 0.9},
        {"repetition_penalty": 1.5, "frequency": 0.3, "presence": 0.2},
        {"repetition_penalty": 1.5, "repetition_window": 4, "no_repeat_ngram": 2},
        {"stop": ("Z", "ab")},
    ],
)
@pytest.mark.parametrize(
    ("variant", "past_block"),
    [(v, "crop") for v in VARIANTS] + [("llama", "roll"), ("modern", "roll")],
)
def test_each_row_is_what_its_prompt_gives_alone(variant, options, past_block):
    model = ready(VARIANTS[variant])
    prompts = ["ABC", "A", "ABCDEFGHIJKLMNOP", ALPHABET[:30]]
    together = generate_batch(model, prompts, 30, seed=7, past_block=past_block, **options)
    for i, prompt in enumerate(prompts):
        alone = generate(model, prompt, 30, seed=7 + i, past_block=past_block, **options)
        assert together[i] == alone


def test_equal_prompts_in_a_batch_differ():
    texts = generate_batch(gpt2(), ["ABC"] * 8, 20, seed=0)
    assert len(set(texts)) == 8


def test_short_names_are_generate_with_one_option():
    model = gpt2()
    assert generateV2 is generate
    for function, options in (
        (generate_greedy, {"temperature": 0.0}),
        (generate_temperature, {"temperature": 0.8}),
        (generate_top_k, {"top_k": 10}),
        (generate_nucleus, {"top_p": 0.9}),
        (generate_combined, {"temperature": 0.8, "top_k": 20, "top_p": 0.95}),
    ):
        expected = generate(model, "ABC", 30, seed=2, **options)
        assert function(model, "ABC", 30, seed=2) == expected
    assert generate_top_k(model, "ABC", 30, top_k=1, seed=0) == generate_greedy(model, "ABC", 30)


def test_log_probabilities_raw_and_processed():
    model = gpt2()
    (out,) = generate_details(model, ["ABC"], 10, seed=0, temperature=0.5, top_k=3)
    ids = torch.tensor([model.tokenizer.encode(out.text)])
    log_p = model(ids).logits[0, 2:-1].log_softmax(-1)
    assert out.tokens == ids[0, 3:].tolist()
    raw = log_p.gather(1, ids[0, 3:, None])[:, 0]
    assert out.raw_logprobs == pytest.approx(raw.tolist(), abs=1e-4)
    best = (log_p / 0.5).topk(3).values
    drawn = raw / 0.5 - best.logsumexp(-1)
    assert out.logprobs == pytest.approx(drawn.tolist(), abs=1e-4)
    assert not out.stopped


def test_constraint_bans_and_allowed():
    model = gpt2()
    text = generate(model, "0", 40, seed=0, constraint=lambda t: "12" if t[-1] == "0" else "0")
    assert text[::2] == "0" * 21
    assert set(text[1::2]) <= set("12")
    assert set(generate(model, "A", 60, seed=0, allowed="XYZ")[1:]) <= set("XYZ")
    assert not set("abc") & set(generate(model, "A", 200, seed=0, banned="abc")[1:])


def test_a_seed_repeats_and_the_global_state_is_left_alone():
    model, state = gpt2(), torch.get_rng_state()
    first, second = (generate(model, "A", 40, seed=3) for _ in range(2))
    assert first == second
    assert generate(model, "A", 40, seed=4) != first
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_seed_the_global_generator_decides():
    model = gpt2()

    def texts():
        batch = generate_batch(model, ["A", "A"], 20)
        return [generate(model, "A", 20), *batch, "".join(stream(model, "A", 20))]

    seed_all(0)
    first = texts()
    assert len(set(first)) == 4
    assert texts() != first
    seed_all(0)
    assert texts() == first
    state = torch.get_rng_state()
    generate_greedy(model, "A", 20)  # draws nothing
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_follow_the_distribution():
    model = gpt2()
    ids = torch.tensor([model.tokenizer.encode("ABC")])
    expected = (model(ids).logits[0, -1] / 0.7).softmax(0)
    draws = generate_batch(model, ["ABC"] * 3000, 1, seed=0, temperature=0.7)
    drawn = model.tokenizer.encode("".join(text[-1] for text in draws))
    counts = torch.bincount(torch.tensor(drawn), minlength=65)
    error = (counts / 3000 - expected).abs()
    assert (error < 4.5 * (expected * (1 - expected) / 3000).sqrt() + 1e-3).all()


def test_mode_and_nothing_to_write():
    model = gpt2().train()
    assert generate(model, "A", 0) == "A"
    assert generate_batch(model, ["A", "BC"], 0) == ["A", "BC"]
    assert generate_beam(model, "A", 0) == "A"
    generate(model, "A", 3)
    assert model.training


def test_bf16_weights_write_too():
    model = gpt2().bfloat16()
    assert len(generate(model, "ABC", 20, seed=0)) == 23


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("ROMEO:\nAy  me. \n\n\n\nJULIET:\nO Rom", "ROMEO:\nAy me."),
        ("one line", "one line"),
        ("\n\nA:\nwell\n", "A:\nwell"),
        ("A:\nwell\n\nB:\n", "A:\nwell"),
        ("", ""),
    ],
)
def test_clean_text(text, clean):
    assert clean_text(text) == clean


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("",), {}, "prompt is empty"),
        ((["A", "B"],), {}, "must be one text, not a list; .* generate_batch"),
        (("A", -1), {}, "max_new_tokens=-1"),
        (("A", 2.0), {}, "max_new_tokens=2.0 must be a whole number"),
        (("A",), {"temperature": -1}, "temperature=-1 must be between 0 and"),
        (("A",), {"top_k": -1}, "top_k=-1 must be at least 0"),
        (("A",), {"top_p": 0}, "top_p=0 must be above 0"),
        (("A",), {"top_p": 1.5}, "top_p=1.5"),
        (("A",), {"min_p": 2}, "min_p=2"),
        (("A",), {"repetition_penalty": 0}, "repetition_penalty=0 must be between 1e-30"),
        (("A",), {"stop": ("ok", "")}, "stop sequence is empty"),
        (("A",), {"stop": "abc"}, "stop takes several texts"),
        (("A",), {"past_block": "fly"}, "past_block='fly' must be one of crop, roll, stop"),
        (("A",), {"details": True}, "no option details"),
        (("A",), {"top_q": 3}, "no option top_q; there are temp.*; did you mean top_p"),
        (("A",), {"allowed": ""}, "leave no symbol"),
        (("A",), {"constraint": lambda text: ""}, "no symbol is left for row 0 after constraint"),
    ],
)
def test_bad_arguments_are_value_errors_and_say_what_is_valid(arguments, options, words):
    model = gpt2()
    with pytest.raises(ConfigError, match=words):
        generate(model, *arguments, **options)
    assert issubclass(ConfigError, ValueError)


def test_bad_lists_of_prompts():
    for function in (generate_batch, generate_details):
        for prompts in ([], ["A", ""]):
            with pytest.raises(ConfigError, match="prompt is empty"):
                function(gpt2(), prompts)
        with pytest.raises(ConfigError, match="must be a list of texts"):
            function(gpt2(), "ABC")


def test_unknown_characters_and_a_missing_tokenizer():
    model = gpt2()
    for call in (
        lambda: generate(model, "Aé"),
        lambda: generate(model, "A", banned="é"),
        lambda: generate(model, "A", allowed="é"),
        lambda: generate(model, "A", stop=("é",)),
        lambda: generate(model, "A", constraint=lambda text: "é"),
    ):
        with pytest.raises(UnknownCharacterError, match="'é'"):
            call()
    with pytest.raises(ConfigError, match="tokenizer has 3 symbols, the model's vocab_size is 65"):
        generate(model, "A", tokenizer=CharTokenizer("ABC"))
    model.tokenizer = None
    with pytest.raises(ConfigError, match="has no tokenizer"):
        generate(model, "A")


def test_a_tiny_temperature_is_nearly_greedy():
    model = gpt2()
    assert generate_temperature(model, "ABC", 30, 1e-40, seed=0) == generate_greedy(
        model, "ABC", 30
    )


def test_bad_beams_and_drafts():
    model = gpt2()
    with pytest.raises(ConfigError, match="n_beams=0"):
        generate_beam(model, "A", n_beams=0)
    with pytest.raises(ConfigError, match="ngram=0"):
        generate_lookup(model, "A", ngram=0)
