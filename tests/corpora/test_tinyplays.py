import hashlib
import math
import re
from collections import Counter, defaultdict
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.corpora import STYLES, tinyplays, write_plays
from tinygpt.corpora.tinyplays import Plays, Rule, log_probability, parse

TINY_SHAKESPEARE = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def plays() -> Plays:
    return write_plays(300_000)


def bodies(text: str) -> list[str]:
    """The plays of a text, one by one."""
    return re.findall(r"Here begins.*?Here ends[^\n]*\n\n\n", text, re.DOTALL)


def reachable_rules() -> list[Rule]:
    """Every rule that the grammar's slots lead to, and some of those made for names."""
    starts = {("{scene}", ""), ("{quality} ", ""), ("{thing},", ""), ("{finish}", "")}
    todo = starts | {("{direction}\n\n", ""), ("{exeunt}\n\n", "")}
    todo |= {("{speech}", style) for style in STYLES}
    names = ("Fendon", "Alivera", "Zanric")
    rules = [tinyplays._turn(names[:n], end) for n in (1, 2, 3) for end in (False, True)]
    rules += [tinyplays._next_part(act, scene) for act in (1, 2, 3) for scene in (1, 2, 3)]
    rules += [tinyplays._speech(s) for n in range(1, 6) for s in combinations(STYLES, n)]
    rules += [
        tinyplays._words(", ", " and "),
        tinyplays._words(*tinyplays._sections()[""]["start"].split()),
    ]
    done = set()
    while todo:
        slot, style = todo.pop()
        done.add((slot, style))
        rules.append(tinyplays._rule(slot, style))
        for alternative in rules[-1].alternatives:
            rules += [part for part in alternative.tail if isinstance(part, Rule)]
            rules += [kept for kept in alternative.memory.values() if isinstance(kept, Rule)]
            slots = {(part, style) for part in alternative.tail if isinstance(part, str)}
            todo |= {s for s in slots if s[0] not in ("{you}", "{it}", "{chime}")} - done
    return list(set(rules))


def derivations(template: str, style: str):
    """(text, surprisal) of everything that a template can become, by brute force."""
    todo = [[]]
    while todo:
        path = todo.pop()
        taken, choose = follow(path)
        author = tinyplays._Author(choose)
        author.memory |= {"style": style, "{it}": tinyplays._words("egg")}
        author.write(Rule(tinyplays._template(template, style)))
        for depth, n in enumerate(taken[len(path) :], start=len(path)):
            todo += [path + [0] * (depth - len(path)) + [i] for i in range(1, n)]
        texts, costs, _ = zip(*author.trace, strict=True)
        yield "".join(texts), [cost for each in costs for cost in each]


def follow(path: list[int]):
    """A `choose` that takes the path and then first alternatives; `taken`: how many there were."""
    taken = []

    def choose(rule: Rule) -> int:
        taken.append(len(rule.alternatives))
        return path[len(taken) - 1] if len(taken) <= len(path) else 0

    return taken, choose


def ngram_loss(train: np.ndarray, test: np.ndarray, order: int) -> float:
    """Nats per character of an interpolated (Witten-Bell) n-gram model of this order."""
    p = np.full(len(test) - 4, 1 / 128)
    for n in range(1, order + 1):
        seen, many = np.unique(grams(train, n), return_counts=True)
        context, first = np.unique(seen // 128, return_index=True)
        total, kinds = np.add.reduceat(many, first), np.diff([*first, len(seen)])
        ahead = grams(test, n)[-len(p) :]
        i = np.minimum(np.searchsorted(seen, ahead), len(seen) - 1)
        hits = np.where(seen[i] == ahead, many[i], 0)
        j = np.minimum(np.searchsorted(context, ahead // 128), len(context) - 1)
        known = context[j] == ahead // 128
        p = np.where(known, (hits + kinds[j] * p) / (total[j] + kinds[j]), p)
    return float(-np.log(p).mean())


def grams(ids: np.ndarray, n: int) -> np.ndarray:
    """The n-grams of (T,) ids below 128 as (T - n + 1,) integers, the last id lowest."""
    windows = np.lib.stride_tricks.sliding_window_view(ids.astype(np.int64), n)
    return windows @ 128 ** np.arange(n - 1, -1, -1)


def test_the_same_text_for_a_seed_everywhere(plays):
    text = write_plays(20_000).text
    digest = "269fdbb783af299395f4e87284e7d0fdb331f476d1be333a3b8f81ea949f766c"
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert plays.text.startswith(text)
    assert write_plays(1, seed=1).text != write_plays(1, seed=2).text


def test_whole_plays_in_the_letters_of_tiny_shakespeare(plays):
    assert set(plays.text) <= set(TINY_SHAKESPEARE)
    assert "".join(bodies(plays.text)) == plays.text
    without_last = len(plays.text) - len(bodies(plays.text)[-1])
    assert without_last < 300_000 <= len(plays.text)


def test_lines_have_the_length_of_verse(plays):
    lengths = [len(line) for line in plays.text.split("\n") if line and line[-1] != ":"]
    assert 25 < np.mean(lengths) < 45
    assert max(lengths) < 110


def test_a_play_is_called_the_same_throughout(plays):
    for body in bodies(plays.text):
        names = re.findall(r"(?:tale|ACT I+,) of the ([a-z -]+)[.,]\n", body)
        assert len(names) >= 4
        assert len(set(names)) == 1


def test_speakers_of_a_scene_alternate_and_have_entered(plays):
    for scene in plays.text.split("SCENE ")[1:]:
        present = re.split(", | and ", re.search(r"Enter ([^.]*)\.", scene)[1])
        speakers = re.findall(r"^([A-Z]+):$", scene, re.MULTILINE)
        assert len(speakers) >= 4
        assert set(speakers) <= {name.upper() for name in present}
        assert all(a != b for a, b in pairwise(speakers))


def test_a_question_is_taken_up_in_the_answer(plays):
    questions = re.findall(
        r"Can one \w+ an? [\w-]+ ([\w-]+)\? Discuss\.\n\n[A-Z]+:\n(.*)", plays.text
    )
    about = [thing in answer for thing, answer in questions]
    assert len(about) > 20
    assert np.mean(about) > 0.7  # some ways to begin name no thing


def test_articles_fit(plays):
    assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", plays.text)
    odd_ones = r"\b(uni|use|usu|eu|ewe|one-|once|hono|honest|hour|heir)"
    assert not re.search(rf"\ban? {odd_ones}", plays.text)


def test_styles_are_never_named(plays):
    assert not any(style in plays.text.lower() for style in STYLES)


def test_styles_cover_the_speeches_and_nothing_else(plays):
    assert plays.style.dtype == np.int8
    assert set(plays.style) == {-1, 0, 1, 2, 3, 4}
    for match in re.finditer(r"^([A-Z]+:\n)((?:.+\n)+\n)", plays.text, re.MULTILINE):
        assert set(plays.style[match.start(1) : match.end(1)]) == {-1}
        assert len(set(plays.style[match.start(2) : match.end(2)])) == 1
    outside = re.compile(
        r"^(?:Here|with|ACT|SCENE|Enter|Exeunt|Thunder|All look).*\n", re.MULTILINE
    )
    assert all(plays.style[match.start()] == -1 for match in outside.finditer(plays.text))


def test_a_speaker_keeps_a_style_that_no_other_has(plays):
    start = 0
    for body in bodies(plays.text):
        pairs = {
            (match[1], plays.style[start + match.end()])
            for match in re.finditer(r"^([A-Z]+):\n", body, re.MULTILINE)
        }
        assert len(pairs) == len({name for name, _ in pairs}) == len({style for _, style in pairs})
        start += len(body)


def test_styles_show_in_the_words(plays):
    """Naive Bayes on single words, fitted on one half, tells most speeches of the other half."""
    found = re.finditer(r"^[A-Z]+:\n((?:.+\n)+)", plays.text, re.MULTILINE)
    speeches = [(plays.style[m.start(1)], re.findall(r"[\w-]+", m[1].lower())) for m in found]
    half = len(speeches) // 2

    vocabulary = {word: i for i, word in enumerate({w for _, words in speeches for w in words})}
    table = np.full((len(vocabulary), 5), 0.1)
    for style, words in speeches[:half]:
        np.add.at(table, ([vocabulary[w] for w in words], style), 1)
    table = np.log(table / table.sum(axis=0))

    def guess(words: list[str]) -> int:
        return int(table[[vocabulary[w] for w in words]].sum(axis=0).argmax())

    assert np.mean([guess(words) == style for style, words in speeches[half:]]) > 0.95


def test_surprisal_is_the_log_probability(plays):
    assert plays.surprisal.shape == plays.style.shape == (len(plays.text),)
    assert plays.surprisal.dtype == np.float64
    assert (plays.surprisal >= 0).all()
    assert log_probability(plays.text) == pytest.approx(-plays.surprisal.sum(), rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_the_text_alone_tells_everything(seed):
    written = write_plays(1, seed=seed)
    read = parse(written.text)
    assert read.text == written.text
    np.testing.assert_array_equal(read.style, written.style)
    np.testing.assert_array_equal(read.surprisal, written.surprisal)


def test_log_probabilities_of_plays_add_up(plays):
    one, two = bodies(plays.text)[:2]
    both = log_probability(one + two)
    assert both == pytest.approx(log_probability(one) + log_probability(two), rel=1e-9)


def test_floor_is_the_mean_surprisal_of_a_slice(plays):
    assert plays.floor() == pytest.approx(plays.surprisal.mean())
    assert plays.floor(1000, 3000) == pytest.approx(plays.surprisal[1000:3000].mean())
    with pytest.raises(ValueError, match="no characters in text"):
        plays.floor(5, 5)


def test_n_chars_must_be_positive():
    with pytest.raises(ValueError, match="n_chars=0 must be at least 1"):
        write_plays(0)


@pytest.mark.parametrize("place", range(0, 8000, 97))
def test_a_wrong_character_is_found_where_it_is(plays, place):
    text = bodies(plays.text)[0]
    place %= len(text)
    with pytest.raises(ValueError, match=f"at position {place}$"):
        parse(text[:place] + "#" + text[place + 1 :])


@pytest.mark.parametrize("end", [0, 1, 500, 3210, -1])
def test_a_text_that_breaks_off(plays, end):
    text = bodies(plays.text)[0][:end]
    with pytest.raises(ValueError, match=f"the end at position {len(text)}$"):
        log_probability(text)


def test_a_play_that_contradicts_itself(plays):
    text = bodies(plays.text)[0]
    title = re.match(r"Here begins the tale of the ([\w-]+)", text)[1]
    last = text.rindex(title)
    with pytest.raises(ValueError, match=f"at position {last}$"):
        parse(text[:last] + "X" + text[last:])
    with pytest.raises(ValueError, match=f"at position {len(text)}$"):
        parse(text + "Exeunt.")


def test_every_rule_is_prefix_free_and_sums_to_one(plays):
    rules = reachable_rules()
    assert len(rules) > 500
    for rule in rules:
        heads = [alternative.head for alternative in rule.alternatives]
        proper = {head[:n] for head in heads for n in range(len(head))}
        assert "" not in heads
        assert len(set(heads)) == len(heads)
        assert proper.isdisjoint(heads)
        p = np.exp([-sum(costs) for costs in rule.costs])
        weights = np.array([alternative.weight for alternative in rule.alternatives])
        assert p.sum() == pytest.approx(1)
        np.testing.assert_allclose(p, weights / weights.sum())


def test_an_ambiguous_rule_is_refused():
    with pytest.raises(ValueError, match="'cat' starts 'cattle'"):
        tinyplays._words("dog", "cattle", "cat")


@pytest.mark.parametrize(
    "template", ["{exeunt}//", "{We} like the {rhyme},/not the {chime}.", "3 No {deed}ing!"]
)
def test_all_texts_of_a_template_by_brute_force(template):
    """Texts differ, sum to one, and each letter costs what a sum over the texts says."""
    texts = dict(derivations(template, "riddling"))
    assert len(texts) == len(list(derivations(template, "riddling"))) > 100
    mass = Counter()
    for text, costs in texts.items():
        for n in range(len(text) + 1):
            mass[text[:n]] += math.exp(-sum(costs))
    assert mass[""] == pytest.approx(1)
    for text, costs in texts.items():
        expected = [math.log(mass[text[:n]] / mass[text[: n + 1]]) for n in range(len(text))]
        np.testing.assert_allclose(costs, expected, atol=1e-9)


def test_weights_and_families_are_what_the_grammar_says():
    exeunt = dict(derivations("{exeunt}//", ""))
    assert math.exp(-sum(exeunt["Exeunt, with the egg.\n\n"])) == pytest.approx(2 / 9)
    rhymes = dict(derivations("the {rhyme}, the {chime}", "riddling"))
    assert "the moon, the spoon" in rhymes
    assert "the moon, the moon" not in rhymes
    assert math.exp(-sum(rhymes["the sky, the pie"])) == pytest.approx(1 / 69 / 3)


def test_choices_are_drawn_with_their_probabilities():
    """The surprisal of all decisions is within 4 standard errors of what it should be."""
    draw, visits = tinyplays._sampler(7), defaultdict(list)

    def choose(rule: Rule) -> int:
        visits[rule].append(draw(rule))
        return visits[rule][-1]

    tinyplays._derive(choose, 150_000)
    excess, variance = 0.0, 0.0
    for rule, choices in visits.items():
        cost = np.array([sum(costs) for costs in rule.costs])
        p, entropy = np.exp(-cost), (np.exp(-cost) * cost).sum()
        excess += cost[choices].sum() - len(choices) * entropy
        variance += len(choices) * (p * (cost - entropy) ** 2).sum()
    assert len(visits) > 500
    assert abs(excess) < 4 * math.sqrt(variance)


def test_no_ngram_model_gets_below_the_floor(plays):
    ids = np.frombuffer(plays.text.encode(), dtype=np.uint8)
    cut = 250_000
    losses = [ngram_loss(ids[:cut], ids[cut - 4 :], order) for order in (1, 2, 5)]
    floor = plays.floor(cut)
    assert losses[0] > losses[1] > losses[2] > floor + 0.2
