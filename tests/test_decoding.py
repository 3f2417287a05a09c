"""Writing text: against transformers' generate, against plain recomputation, and by its rules."""

from dataclasses import replace

import pytest
import torch

import tinygpt
from tinygpt import (
    ModelConfig,
    TinyGPT,
    UnknownCharacterError,
    generate,
    generate_beam,
    generate_combined,
    generate_greedy,
    generate_nucleus,
    generate_temperature,
    generate_top_k,
    generateV2,
    stream,
)
from tinygpt.decoding import Writer, _speculate, clean_text, generate_lookup
from tinygpt.errors import ConfigError
from tinygpt.layers import FixedCache, KVCache
from tinygpt.tokenizer import CharTokenizer

from .test_model import VARIANTS, as_gpt2, as_llama, shaken

ALPHABET = "".join(chr(48 + i) for i in range(65))


@pytest.fixture(params=VARIANTS)
def model(request):
    """A model with block_size 24 and a distribution that is neither flat nor certain."""
    return ready(VARIANTS[request.param])


def ready(config: ModelConfig) -> TinyGPT:
    model = shaken(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.tokenizer = CharTokenizer(ALPHABET)
    return model


def gpt2():
    return ready(replace(VARIANTS["gpt2"], block_size=64))


@pytest.fixture(params=["gpt2", "llama"])
def pair(request):
    """Our model and transformers' with the same weights."""
    model = ready(replace(VARIANTS[request.param], block_size=64))
    theirs = {"gpt2": as_gpt2, "llama": as_llama}[request.param](model)
    theirs.generation_config.eos_token_id = None  # ours has no end symbol
    return model, theirs


def their_text(pair, prompt, new, seed=0, **options):
    model, theirs = pair
    idx = torch.tensor([model.tokenizer.encode(prompt)])
    torch.manual_seed(seed)
    options = {"top_k": 0, "pad_token_id": 0, "max_new_tokens": new} | options
    return [model.tokenizer.decode(row) for row in theirs.generate(idx, **options)]


# --- the same as transformers --------------------------------------------------------------------


def test_greedy_equals_transformers(pair):
    assert [generate_greedy(pair[0], "ABC", 40)] == their_text(pair, "ABC", 40, do_sample=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"repetition_penalty": 1.3},
        {"temperature": 0.8, "top_k": 10, "top_p": 0.9},
        {"temperature": 1.5, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2},
    ],
)
def test_samples_equal_transformers_token_for_token(pair, options):
    for seed in range(3):
        ours = generateV2(pair[0], "ABC", 40, seed=seed, **options)
        assert [ours] == their_text(pair, "ABC", 40, seed, do_sample=True, **options)


def test_typical_epsilon_eta_and_ngrams_equal_transformers(pair):
    for ours, theirs in (
        ({"typical": 0.7}, {"typical_p": 0.7}),
        ({"epsilon": 0.01}, {"epsilon_cutoff": 0.01}),
        ({"eta": 0.01}, {"eta_cutoff": 0.01}),
        ({"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
    ):
        text = generateV2(pair[0], "ABC", 40, seed=1, **ours)
        assert [text] == their_text(pair, "ABC", 40, 1, do_sample=True, **theirs)


@pytest.mark.parametrize("n_beams", [1, 2, 5])
def test_beam_search_equals_transformers(pair, n_beams):
    expected = their_text(
        pair, "ABC", 30, do_sample=False, num_beams=n_beams, num_return_sequences=n_beams
    )
    best = generate_beam(pair[0], "ABC", 30, n_beams=n_beams, n_best=n_beams)
    if n_beams == 1:
        assert [best] == expected
    else:
        assert [text for text, _ in best] == expected
        assert [score for _, score in best] == sorted((s for _, s in best), reverse=True)


# --- the cache -----------------------------------------------------------------------------------


def test_the_cache_changes_no_logit(model):
    idx = torch.randint(65, (2, 24), generator=torch.manual_seed(0))
    expected = model(idx).logits
    cache = KVCache(model.config, batch_size=2)
    parts = [model(part, cache=cache).logits for part in idx.split([7, 1, 5, 1, 10], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}, {"seed": 4, "top_p": 0.9}])
def test_with_and_without_the_cache_the_same_text(model, options):
    for new in (15, 60):  # inside the block, and beyond it
        cached = generateV2(model, "ABCDE", new, **options)
        assert cached == generateV2(model, "ABCDE", new, use_cache=False, **options)


def test_crop_equals_recomputing_the_last_block(model):
    ids = model.tokenizer.encode("ABC")
    for _ in range(50):
        window = torch.tensor([ids[-24:]])
        ids.append(int(model(window).logits[0, -1].argmax()))
    assert generate_greedy(model, "ABC", 50) == model.tokenizer.decode(ids)


@pytest.mark.parametrize("prompt", ["ABC", ALPHABET[:40]])
def test_roll_equals_a_sliding_window_mask(prompt):
    model = ready(VARIANTS["modern"])
    T = model.config.block_size
    long = TinyGPT(replace(model.config, block_size=200)).eval()
    long.load_state_dict(model.state_dict())
    ids = model.tokenizer.encode(prompt)
    for _ in range(60):
        ids.append(int(sliding_window_logits(long, torch.tensor([ids]), T)[0, -1].argmax()))
    assert generate_greedy(model, prompt, 60, past_block="roll") == model.tokenizer.decode(ids)
    assert generate_greedy(model, prompt, 60) != model.tokenizer.decode(ids)  # crop is another


def sliding_window_logits(model, idx, T):
    """One forward pass in which each token sees itself and the T - 1 before it."""
    from tinygpt.layers import Context, rotary_table

    n = idx.shape[1]
    distance = torch.arange(n)[:, None] - torch.arange(n)
    table = rotary_table(torch.arange(n), model.config.head_size, model.config.rope_theta)
    context = Context(rotary=table, mask=(distance >= 0) & (distance < T))
    x = model.wte(idx)
    for block in model.blocks:
        x = block(x, context)
    return model.lm_head(model.ln_f(x))


def test_stop_fills_the_block_and_one_token_more(model):
    text = generate_greedy(model, "ABC", 100, past_block="stop")
    assert len(text) == 25  # the last token is written, never read
    assert generate_greedy(model, "ABC", 100).startswith(text)
    assert len(generate_greedy(model, ALPHABET[:24], 100, past_block="stop")) == 25


def test_a_prompt_longer_than_the_block(model):
    prompt = ALPHABET[:40]
    assert generate_greedy(model, prompt, 5)[40:] == generate_greedy(model, prompt[-24:], 5)[24:]
    with pytest.raises(ConfigError, match="40 tokens is longer than block_size=24.*'crop'"):
        generate(model, prompt, 5, past_block="stop")


def test_roll_is_refused_for_learned_positions():
    with pytest.raises(ConfigError, match="'roll' needs rotary positions"):
        generate(ready(VARIANTS["gpt2"]), "A", 5, past_block="roll")


# --- the compiled step ---------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch):
    """Run what would be compiled as it is; the list has an entry per step."""
    taken = []

    def counting(run):
        return lambda: taken.append(run) or run()

    monkeypatch.setattr("tinygpt.decoding._compiled", counting)
    return taken


WAYS = [(v, "crop") for v in VARIANTS] + [("gpt2", "stop"), ("llama", "roll"), ("modern", "roll")]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {},
        {"temperature": 0.9, "top_k": 12, "top_p": 0.9, "repetition_penalty": 1.3},
        {"stop": ("Z", "ab")},
    ],
)
@pytest.mark.parametrize(("variant", "past_block"), WAYS)
def test_the_fixed_step_writes_the_same_text(steps, variant, past_block, options):
    model, options = ready(VARIANTS[variant]), {"seed": 7, "past_block": past_block, **options}
    prompts = ["ABC", ["ABC", "A", "ABCDEFGHIJKLMNOP"]]
    if past_block == "roll":
        prompts.append(["ABC", ALPHABET[:40]])  # where padding, too, is read token by token
    for prompt in prompts:
        for new in (8, 60):  # inside the block, and beyond it
            expected = generateV2(model, prompt, new, **options)
            steps.clear()
            assert generateV2(model, prompt, new, compile=True, **options) == expected
            assert len(steps) >= 7 or "stop" in options


def test_the_fixed_step_gives_the_logits_whatever_the_memory_held_before(model):
    idx = torch.randint(65, (2, 24), generator=torch.manual_seed(0))
    cache = KVCache(model.config, batch_size=2)
    cache.buffer.fill_(torch.nan)
    fixed = FixedCache(cache)
    with torch.no_grad():
        expected = model(idx).logits
        model(idx[:, :7], cache=cache)
        fixed.follow(cache)
        logits = [model(idx[:, [t]], cache=fixed).logits for t in range(7, 24)]
    torch.testing.assert_close(torch.cat(logits, dim=1), expected[:, 7:], atol=1e-5, rtol=1e-5)


def test_the_fixed_mask_by_hand():
    fixed = FixedCache(KVCache(VARIANTS["llama"], 2), torch.tensor([0, 5]))

    def seen():
        return [row.nonzero().flatten().tolist() for row in fixed.mask(1, "cpu")[:, 0, 0]]

    fixed.length.fill_(3)  # padding sees itself: a row of nothing is NaN on some devices
    assert seen() == [[0, 1, 2, 3], [3]]
    fixed.length.fill_(26)  # 24 slots: the first three hold tokens 24 to 26
    assert seen() == [[*range(24)], [0, 1, 2, *range(5, 24)]]


def test_details_and_streams_of_the_fixed_step(steps):
    model = gpt2()
    plain = generateV2(model, "ABC", 30, seed=2, details=True)
    fixed = generateV2(model, "ABC", 30, seed=2, details=True, compile=True)
    assert fixed.tokens == plain.tokens
    assert fixed.raw_logprobs == pytest.approx(plain.raw_logprobs, abs=1e-4)
    assert "ABC" + "".join(stream(model, "ABC", 30, seed=2, compile=True)) == plain.text
    assert len(steps) == 2 * 29  # the last token is not read
    with pytest.raises(ConfigError, match="leave use_cache=True"):
        generateV2(model, "ABC", 5, use_cache=False, compile=True)


@pytest.mark.full
def test_compiled_once_it_serves_all_texts_and_follows_the_weights():
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    for number, (variant, past_block) in enumerate([("gpt2", "crop"), ("modern", "roll")], start=1):
        model = ready(VARIANTS[variant])
        for scale in (1.0, 1.0, 1.1):
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(scale)
            options = {"seed": 5, "past_block": past_block}
            expected = generateV2(model, ["ABC", "A"], 60, **options)
            assert generateV2(model, ["ABC", "A"], 60, compile=True, **options) == expected
        assert counters["stats"]["unique_graphs"] == number
    assert not counters["graph_break"]


@pytest.mark.full
def test_a_missing_compiler_is_one_clear_error(monkeypatch, tmp_path):
    from torch._inductor import config

    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = ready(replace(VARIANTS["gpt2"], n_embd=24, n_layer=1))  # nobody compiled this before
    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(ConfigError, match="compile=True needs a C.. compiler; use compile=False"),
    ):
        generate(model, "ABC", 3, compile=True)


# --- batches -------------------------------------------------------------------------------------


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
    together = generateV2(model, prompts, 30, seed=7, past_block=past_block, **options)
    for i, prompt in enumerate(prompts):
        alone = generateV2(model, prompt, 30, seed=7 + i, past_block=past_block, **options)
        assert together[i] == alone


def test_equal_prompts_in_a_batch_differ():
    texts = generate(gpt2(), ["ABC"] * 8, 20, seed=0)
    assert len(set(texts)) == 8


# --- stop sequences and streaming ----------------------------------------------------------------


def scripted(monkeypatch, model, text):
    """Let the model write `text`, whatever it is asked."""
    ids = iter(model.tokenizer.encode(text))
    monkeypatch.setattr("tinygpt.decoding.pick", lambda logits, noise: torch.tensor([next(ids)]))


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("aab", ("ab",), "a"),  # a counter that starts anew after a mismatch misses these
        ("aaab", ("aab",), "a"),
        ("XXXQ", ("XXQ",), "X"),
        ("abcd", ("d", "bcd"), "a"),  # both end here: the longer one is cut off
        ("abcd", ("b", "abc"), "a"),  # the first to end wins
        ("abcd", ("Q",), "abcd"),
    ],
)
def test_stop_sequences(monkeypatch, text, stop, expected):
    model = gpt2()
    scripted(monkeypatch, model, text)
    assert generate(model, "ZZ", len(text), stop=stop) == "ZZ" + expected
    scripted(monkeypatch, model, text)
    pieces = list(stream(model, "ZZ", len(text), stop=stop))
    assert "".join(pieces) == expected


def test_a_stop_sequence_does_not_count_the_prompt(monkeypatch):
    model = gpt2()
    scripted(monkeypatch, model, "bcab")
    assert generate(model, "Xa", 4, stop=("ab",)) == "Xabc"


def test_streaming_gives_text_as_it_comes_and_holds_back_what_may_be_a_stop(monkeypatch):
    model = gpt2()
    scripted(monkeypatch, model, "nENDmENDE")
    assert list(stream(model, "Z", 9, stop=("ENDE",))) == ["n", "ENDm"]
    scripted(monkeypatch, model, "nEN")
    assert list(stream(model, "Z", 3, stop=("END",))) == ["n", "EN"]  # the end: nothing to wait for


def test_streams_equal_generate_with_the_same_seed():
    model = gpt2()
    whole = generateV2(model, "ABC", 80, seed=5, temperature=0.8, stop=("Z",))
    assert "ABC" + "".join(stream(model, "ABC", 80, seed=5, temperature=0.8, stop=("Z",))) == whole


def test_who_takes_a_stream_computes_as_they_please():
    model, threads = gpt2(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for _ in stream(model, "ABC", 3, seed=0):
            assert torch.get_num_threads() == 3
            assert not torch.is_inference_mode_enabled()
    finally:
        torch.set_num_threads(threads)


# --- more ways -----------------------------------------------------------------------------------


def test_short_names_are_generateV2_with_one_option():
    model = gpt2()
    for function, options in (
        (generate, {}),
        (generate_greedy, {"temperature": 0.0}),
        (generate_temperature, {"temperature": 0.8}),
        (generate_top_k, {"top_k": 10}),
        (generate_nucleus, {"top_p": 0.9}),
        (generate_combined, {"temperature": 0.8, "top_k": 20, "top_p": 0.95}),
    ):
        expected = generateV2(model, "ABC", 30, seed=2, **options)
        assert function(model, "ABC", 30, seed=2) == expected
    assert generate_top_k(model, "ABC", 30, top_k=1, seed=0) == generate_greedy(model, "ABC", 30)


@pytest.mark.parametrize(("ngram", "draft"), [(1, 1), (1, 8), (2, 4), (3, 20)])
def test_prompt_lookup_equals_greedy(model, ngram, draft):
    for prompt in ("ABCABCAB", "A", ALPHABET[:30]):
        expected = generate_greedy(model, prompt, 45)
        assert generate_lookup(model, prompt, 45, ngram=ngram, draft=draft) == expected


def test_prompt_lookup_needs_fewer_passes_where_text_repeats():
    model = ready(replace(VARIANTS["gpt2"], block_size=200))
    with torch.no_grad():
        for block in model.blocks:  # nearly a bigram model: its greedy text soon loops
            block.attn.c_proj.weight.zero_()
        model.wpe.weight.zero_()
    writer = Writer(model, ["ABC"], 150, None, tinygpt.DecodingConfig(temperature=0.0))
    passes = _speculate(writer, ngram=2, draft=8)
    assert writer.text(0) == generate_greedy(model, "ABC", 150)
    assert passes < 100


def test_beam_search_finds_what_greedy_misses():
    model = gpt2()

    def logprob(text):
        ids = torch.tensor([model.tokenizer.encode(text)])
        log_p = model(ids).logits[0, :-1].log_softmax(-1)
        return log_p.gather(1, ids[0, 1:, None])[2:].sum().item()

    (best, score), *_ = generate_beam(model, "ABC", 20, n_beams=8, n_best=8)
    assert score == pytest.approx(logprob(best) / 20, abs=1e-4)
    assert logprob(best) > logprob(generate_greedy(model, "ABC", 20))


def test_beam_search_with_stop_and_length_penalty():
    model = gpt2()
    plain = generate_beam(model, "ABC", 30, n_beams=4)
    stop = plain[3 + 5]
    texts = generate_beam(model, "ABC", 30, n_beams=4, n_best=4, stop=(stop,))
    assert all(stop not in text[3:] for text, _ in texts)
    long = generate_beam(model, "ABC", 30, n_beams=4, stop=(stop,), length_penalty=3.0)
    short = generate_beam(model, "ABC", 30, n_beams=4, stop=(stop,), length_penalty=-3.0)
    assert len(long) >= len(short)


def test_log_probabilities_raw_and_processed():
    model = gpt2()
    out = generateV2(model, "ABC", 10, seed=0, temperature=0.5, top_k=3, details=True)
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
    assert generate(model, "A", 40) != generate(model, "A", 40)
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_follow_the_distribution():
    model = gpt2()
    ids = torch.tensor([model.tokenizer.encode("ABC")])
    expected = (model(ids).logits[0, -1] / 0.7).softmax(0)
    draws = generate_temperature(model, ["ABC"] * 3000, 1, 0.7, seed=0)
    drawn = model.tokenizer.encode("".join(text[-1] for text in draws))
    counts = torch.bincount(torch.tensor(drawn), minlength=65)
    error = (counts / 3000 - expected).abs()
    assert (error < 4.5 * (expected * (1 - expected) / 3000).sqrt() + 1e-3).all()


def test_mode_and_nothing_to_write():
    model = gpt2().train()
    assert generate(model, "A", 0) == "A"
    assert generate(model, ["A", "BC"], 0) == ["A", "BC"]
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


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("",), {}, "prompt is empty"),
        ((["A", ""],), {}, "prompt is empty"),
        (([],), {}, "prompt is empty"),
        (("A", -1), {}, "max_new_tokens=-1"),
        (("A",), {"temperature": -1}, "temperature=-1 must be at least 0"),
        (("A",), {"top_k": -1}, "top_k=-1 must be at least 0"),
        (("A",), {"top_p": 0}, "top_p=0 must be above 0"),
        (("A",), {"top_p": 1.5}, "top_p=1.5"),
        (("A",), {"min_p": 2}, "min_p=2"),
        (("A",), {"repetition_penalty": 0}, "repetition_penalty=0 must be above 0"),
        (("A",), {"stop": ("ok", "")}, "stop sequence is empty"),
        (("A",), {"stop": "abc"}, "stop takes several texts"),
        (("A",), {"past_block": "fly"}, "past_block='fly' must be one of crop, roll, stop"),
        (("A",), {"top_q": 3}, "no option top_q; there are temperature"),
        (("A",), {"allowed": ""}, "leave no symbol"),
        (("A",), {"constraint": lambda text: ""}, "no symbol is left for row 0 after constraint"),
    ],
)
def test_bad_arguments_are_value_errors_and_say_what_is_valid(arguments, options, words):
    model = gpt2()
    with pytest.raises(ConfigError, match=words):
        generateV2(model, *arguments, **options)
    assert issubclass(ConfigError, ValueError)


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
    with pytest.raises(ConfigError, match="n_best=5 must be between 1 and n_beams=4"):
        generate_beam(model, "A", n_best=5)
    with pytest.raises(ConfigError, match="ngram=0"):
        generate_lookup(model, "A", ngram=0)


@pytest.mark.cuda
def test_cuda_writes_the_same_greedy_text():
    model = gpt2()
    expected = generate_greedy(model, ["ABC", "A"], 40)
    assert generate_greedy(model.cuda(), ["ABC", "A"], 40) == expected


@pytest.mark.cuda
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}])
@pytest.mark.parametrize(("variant", "past_block"), WAYS)
def test_cuda_a_recorded_step_writes_the_same_text(variant, past_block, options):
    model = ready(VARIANTS[variant]).cuda()
    long = ALPHABET[: 40 if past_block == "roll" else 16]
    for prompt in ("ABC", ["ABC", "A", long]):
        options = options | {"past_block": past_block}
        expected = generateV2(model, prompt, 60, **options)
        for _ in range(2):
            assert generateV2(model, prompt, 60, compile=True, **options) == expected


@pytest.mark.cuda
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "typical": 0.95},
        {"epsilon": 0.001, "eta": 0.001, "banned": "abc", "repetition_penalty": 1.2},
        {"frequency": 0.2, "presence": 0.1},
    ],
)
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_cuda_no_token_waits_for_the_gpu(variant, compile, options):
    model = ready(replace(VARIANTS[variant], block_size=256)).cuda()
    for prompts in (["ABC"], ["ABC", "A"]):
        writer = Writer(model, prompts, 200, None, tinygpt.DecodingConfig(**options))
        writing = writer.run(seed=0, compile=compile)
        for _ in range(3):  # set-up, first reading, recording
            next(writing)
        torch.cuda.set_sync_debug_mode("error")
        try:
            assert sum(1 for _ in writing) == 197  # noise is copied anew within
        finally:
            torch.cuda.set_sync_debug_mode("default")
