"""The exercises of notebook 01: typical mistakes are named."""

import pytest

from tinygpt.exercises import examine
from tinygpt.files import ROOT

from .answers import with_body

NOTEBOOK = ROOT / "notebooks" / "01_char_tokenizer.ipynb"


# name, body of the function, a word of the diagnosis
MISTAKES = [
    ("logit_gradient", "p = logits.softmax(0)\np[target] -= 1\nreturn -p", "the sign is wrong"),
    ("logit_gradient", "return logits.softmax(0)", "take 1 from it"),
    (
        "logit_gradient",
        "g = torch.zeros_like(logits)\ng[target] = logits.softmax(0)[target] - 1\nreturn g",
        "only the target's logit has a slope. Raising",
    ),
    (
        "logit_gradient",
        "g = torch.zeros_like(logits)\ng[target] = 1 - logits.softmax(0)[target]\nreturn g",
        "and the sign is wrong",
    ),
    ("logit_gradient", "logits[target] -= 1\nreturn logits", "from the probabilities"),
    (
        "logit_gradient",
        "p = logits.log_softmax(0)\np[target] -= 1\nreturn p",
        "logarithm is too much",
    ),
    ("logit_gradient", "p = logits.softmax(0)\np[target] -= 1\nreturn p / len(p)", "divided by V"),
    ("logit_gradient", "p = logits.softmax(0)\np[target] = 0\nreturn p", "Take 1 from it, not"),
    ("logit_gradient", "return -logits.log_softmax(0)[target]", "one slope for each logit"),
    ("logit_gradient", "return logits.softmax(0) ** 2", "but nudging each logit gives"),
    (
        "logit_gradient",
        "return logits.softmax(0) - torch.tensor([0, 0, 0, 1, 0])[: len(logits)]",
        "right for five logits",
    ),
    ("logit_gradient", "p = logits.softmax(0)", "`return` missing"),
    ("logit_gradient", "return logits.softmax(0) - target", "It says where 1 is taken"),
    (
        "logit_gradient",
        "p = logits.softmax(0)\np[target] = 1 - p[target]\nreturn p",
        "target's slope has the wrong sign",
    ),
    ("encode_with_unknown", "return [alphabet.find(c) for c in text]", "str.find"),
    (
        "encode_with_unknown",
        "return [{c: i for i, c in enumerate(alphabet)}.get(c, len(text)) for c in text]",
        "whatever the text",
    ),
    (
        "encode_with_unknown",
        "return [alphabet.index(c) for c in text if c in alphabet]",
        "dropped",
    ),
    (
        "encode_with_unknown",
        "return [{c: i for i, c in enumerate(alphabet)}.get(c, 0) for c in text]",
        "belongs to ' '",
    ),
    (
        "encode_with_unknown",
        "return [alphabet.index(c) if c in alphabet else len(alphabet) - 1 for c in text]",
        "belongs to 'c'",
    ),
    (
        "encode_with_unknown",
        "return [{c: i for i, c in enumerate(alphabet, 1)}.get(c, 0) for c in text]",
        "count from 0",
    ),
    (
        "encode_with_unknown",
        "return [{c: i for i, c in enumerate(sorted(set(text)))}[c] for c in text]",
        "place in `alphabet`",
    ),
    (
        "encode_with_unknown",
        "more = [c for c in text if c not in alphabet]\n"
        "return [(alphabet + ''.join(more)).index(c) for c in text]",
        "share one id",
    ),
    (
        "encode_with_unknown",
        "return [alphabet.index(c) if c in alphabet else 99 for c in text]",
        "should give [1, 4, 2, 4]",
    ),
    ("encode_with_unknown", "return [alphabet.index(c) for c in text]", "ValueError"),
    ("encode_with_unknown", "ids = [0 for c in text]", "`return` missing"),
    ("encode_with_unknown", "return text", "a list of ids"),
    (
        "encode_with_unknown",
        "return [str((alphabet + c).index(c)) for c in text]",
        "ids are numbers, but you return the text '3'",
    ),
    ("unigram_entropy", "p = counts / counts.sum()\nreturn -(p * p.log()).sum()", "nan"),
    ("unigram_entropy", "p = counts / counts.sum()\nreturn -(p * p.log2()).sum()", "bits"),
    ("unigram_entropy", "p = counts / counts.sum()\nreturn -(p * p.log10()).sum()", "log10"),
    ("unigram_entropy", "p = counts / counts.sum()\nreturn (p * p.log()).sum()", "wrong sign"),
    ("unigram_entropy", "p = counts / counts.sum()\nreturn -(p * p.log()).mean()", "mean"),
    ("unigram_entropy", "p = counts / counts.sum()\nreturn -p.log().sum()", "weighted"),
    ("unigram_entropy", "p = counts / counts.sum()\nreturn -(p * p.log())", "sum missing"),
    ("unigram_entropy", "p = counts / counts.sum()\nx = -(p * p.log()).sum()", "`return` missing"),
    ("unigram_entropy", "return -(counts * counts.log()).sum()", "dividing by the sum"),
    ("unigram_entropy", "return (counts * counts.log()).sum()", "dividing by the sum"),
    (
        "unigram_entropy",
        "p = counts[counts > 0] / len(counts)\nreturn -(p * p.log()).sum()",
        "Divide by their sum",
    ),
    (
        "unigram_entropy",
        "p = counts / counts.sum()\np = p[p > 0]\nreturn f'{-(p * p.log()).sum():.4f}'",
        "one number is asked, but you return '1.0397'",
    ),
    (
        "unigram_entropy",
        "p = (counts + 1) / (counts + 1).sum()\nreturn -(p * p.log()).sum()",
        "smooths",
    ),
    (
        "unigram_entropy",
        "p = counts / counts.sum()\np = p[p > 0]\nreturn (-(p * p.log()).sum()).exp()",
        "perplexity",
    ),
    (
        "unigram_entropy",
        "p = counts / counts.sum()\nreturn -(p * (p + 0.01).log()).sum()",
        "1/2, 1/4, 1/4",
    ),
    (
        "unigram_entropy",
        "p = counts.clamp_min(1) / counts.sum()\nreturn -(p * p.log()).sum()",
        "never occurs",
    ),
    (
        "make_windows",
        "n = (len(tokens) - 1) // block_size\n"
        "x = tokens[: n * block_size].view(n, block_size)\nreturn x, x",
        "y equals x",
    ),
    (
        "make_windows",
        "n = (len(tokens) - 1) // block_size\n"
        "x = tokens[: n * block_size].view(n, block_size)\nreturn x, x + 1",
        "added 1 to the ids",
    ),
    (
        "make_windows",
        "n = (len(tokens) - 1) // block_size\n"
        "x = tokens[: n * block_size].view(n, block_size)\nreturn x, x.roll(-1, 1)",
        "rolled",
    ),
    (
        "make_windows",
        "n = (len(tokens) - 1) // block_size\n"
        "x = tokens[: n * block_size].view(n, block_size)\n"
        "return x, tokens.roll(1)[: n * block_size].view(n, block_size)",
        "the past",
    ),
    (
        "make_windows",
        "w = tokens.unfold(0, block_size + 1, block_size)\nreturn w[:, 1:], w[:, :-1]",
        "swapped",
    ),
    (
        "make_windows",
        "w = tokens.unfold(0, block_size + 1, 1)\nreturn w[:, :-1], w[:, 1:]",
        "overlap",
    ),
    (
        "make_windows",
        "w = tokens.unfold(0, block_size + 1, block_size + 1)\nreturn w[:, :-1], w[:, 1:]",
        "skip predictions",
    ),
    (
        "make_windows",
        "n = len(tokens) // block_size\nx = tokens[: n * block_size].view(n, block_size)\n"
        "return x, tokens.roll(-1)[: n * block_size].view(n, block_size)",
        "incomplete",
    ),
    (
        "make_windows",
        "n = len(tokens) // block_size\nx = tokens[: n * block_size].view(n, block_size)\n"
        "return x, tokens[1 : n * block_size + 1].view(n, block_size)",
        "no target for its last token",
    ),
    (
        "make_windows",
        "n = (len(tokens) - 1) // block_size\n"
        "return tokens[: n * block_size], tokens[1 : n * block_size + 1]",
        "one window per row",
    ),
    ("make_windows", "return tokens.view(-1, block_size)", "RuntimeError"),
    (
        "make_windows",
        "n = (len(tokens) - 1) // block_size\n"
        "x = tokens[: n * block_size].view(block_size, n)\n"
        "return x, tokens[1 : n * block_size + 1].view(block_size, n)",
        "rows and columns are swapped",
    ),
    ("make_windows", "return tokens[:9].view(-1, block_size)", "return x, y"),
    (
        "make_windows",
        "n = (len(tokens) - 1) // block_size\n"
        "x = tokens[: n * block_size].view(block_size, n).T\n"
        "return x, tokens[1 : n * block_size + 1].view(block_size, n).T",
        "one per row",
    ),
    ("unknown_share", "return sum(c not in alphabet for c in text) / len(text)", "empty text"),
    (
        "unknown_share",
        "return len(set(text) - set(alphabet)) / max(1, len(set(text)))",
        "kinds",
    ),
    ("unknown_share", "return len(set(text) - set(alphabet)) / max(1, len(text))", "counts twice"),
    (
        "unknown_share",
        "return 100 * sum(c not in alphabet for c in text) / max(1, len(text))",
        "percentage",
    ),
    ("unknown_share", "return sum(c not in alphabet for c in text)", "Divide by the length"),
    ("unknown_share", "return [c not in alphabet for c in text]", "you return [False"),
    (
        "unknown_share",
        "return sum(c in alphabet for c in text) / max(1, len(text))",
        "known characters",
    ),
    (
        "unknown_share",
        "return sum(c not in alphabet for c in text) / len(alphabet)",
        "size of the alphabet",
    ),
    (
        "unknown_share",
        "return sum(c not in alphabet for c in text.lower()) / max(1, len(text))",
        "capital",
    ),
]


@pytest.mark.parametrize(("name", "body", "word"), MISTAKES)
def test_typical_mistake_is_diagnosed(name, body, word):
    passed, said = examine(with_body(NOTEBOOK, name, body))
    assert not passed
    assert said.startswith("✗")
    assert word in said
