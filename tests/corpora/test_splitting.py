"""Duplicates and splits, against brute force."""

import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.corpora.duplicates import alike, joined, sketch
from tinygpt.corpora.splitting import arrange, divide, profile

from .books import prose


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def overlap(a, b):
    return len(shingles(a) & shingles(b)) / min(len(shingles(a)), len(shingles(b)))


def test_the_overlap_of_sketches_is_nearly_that_of_all_runs_of_five_words():
    base = prose(1, 40).split("\n\n")
    for share in (0, 10, 20, 30, 40):
        other = "\n\n".join(base[:share] + prose(2, 40).split("\n\n")[share:])
        a, b = sketch("\n\n".join(base)), sketch(other)
        found = len(a & b) / min(len(a), len(b))
        assert abs(found - overlap("\n\n".join(base), other)) < 0.12


def test_case_punctuation_and_lines_do_not_matter():
    text = prose(5)
    assert sketch(text) == sketch(text.upper().replace(".", "!").replace("\n", "  "))
    assert sketch("too short a text") == frozenset()


def test_texts_that_are_alike_are_found_and_a_part_of_a_book_too():
    texts = {"book": prose(1, 60), "part": prose(1, 60)[:5000], "other": prose(2, 60)}
    assert alike({name: sketch(text) for name, text in texts.items()}) == [("book", "part")]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh"))))
def test_groups_are_those_of_a_walk(pairs):
    group = joined("abcdefgh", pairs)
    for start in "abcdefgh":
        reached, before = {start}, set()
        while reached != before:
            before = set(reached)
            reached |= {x for pair in pairs if reached & set(pair) for x in pair}
        assert {name for name in group if group[name] == group[start]} == reached


@settings(max_examples=30)
@given(st.dictionaries(st.text(min_size=1), st.integers(1, 100), min_size=20, max_size=60))
def test_splits_have_about_their_shares_and_are_never_empty(sizes):
    found = divide(sizes, {"val": 0.1, "test": 0.1})
    total = sum(sizes.values())
    for split in ("val", "test"):
        share = sum(sizes[name] for name in sizes if found[name] == split) / total
        assert 0 < share <= 0.15 + max(sizes.values()) / total
    assert found == divide(dict(reversed(sizes.items())), {"val": 0.1, "test": 0.1})


def test_two_documents_are_one_for_each_split_and_one_is_for_training():
    assert sorted(divide({"a": 5, "b": 9}, {"val": 0.1}).values()) == ["train", "val"]
    assert divide({"a": 5}, {"val": 0.1}) == {"a": "train"}


def test_no_run_of_the_held_out_text_is_in_training():
    draw, parts = random.Random(0), [prose(i, 6) for i in range(30)]
    texts = {f"{i}": parts[i] for i in range(30)}
    texts |= {f"of {i}": f"{parts[i]}\n\n{prose(100 + i, 4)}" for i in range(0, 30, 3)}
    texts |= {f"copy of {i}": parts[i] for i in range(0, 30, 5)}
    split, notes = arrange({name: profile(text) for name, text in texts.items()}, {"val": 0.2})
    train = "\n\n".join(texts[name] for name, s in split.items() if s == "train")
    for name in (name for name, s in split.items() if s == "val"):
        for _ in range(50):
            start = draw.randrange(len(texts[name]) - 64)
            assert texts[name][start : start + 64] not in train
    assert sum("is left out" in note for note in notes) == 6
    assert len(split) == len(texts) - 6


def test_what_is_related_is_on_one_side():
    profiles = {f"{i}": profile(prose(i, 2)) for i in range(30)}
    pairs = [(f"{i}", f"{i + 1}") for i in range(0, 30, 2)]
    split, _ = arrange(profiles, {"val": 0.3, "test": 0.3}, pairs)
    assert all(split[a] == split[b] for a, b in pairs)
    assert set(split.values()) == {"train", "val", "test"}
