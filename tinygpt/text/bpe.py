"""Byte-pair encoding: the tokenizer of GPT-2, or one trained on a text of your own."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .gpt2_files import MERGES, VOCABULARY, gpt2_folder
from .subwords import LETTERS, SubwordTokenizer, strings, training_parts
from .tokenizer import END_OF_TEXT

if TYPE_CHECKING:
    import tokenizers


class BPETokenizer(SubwordTokenizer):
    """Begins with the bytes of a word and joins neighbours, the pair that was learned first first.

    Sennrich et al. 2016; on bytes: Radford et al. 2019. `merges` are the pairs in the order in
    which they were learned, each "left right".

    >>> tok = BPETokenizer.train("low lower lowest " * 9, vocab_size=260)
    >>> [tok.decode([i]) for i in tok.encode("lower")]
    ['low', 'e', 'r']
    """

    kind = "bpe"

    def __init__(self, tokens: Sequence[str], merges: Sequence[str]):
        super().__init__(tokens)
        self.merges = tuple(merges)
        self._pairs = [self._pair(merge) for merge in self.merges]

    @classmethod
    def train(cls, texts: str | Iterable[str], vocab_size: int = 4000) -> "BPETokenizer":
        """Learn at most `vocab_size` tokens from a text, or several: the same from the same texts.

        Bytes come first, then what was joined, at least two times, and last the end of a text.
        """
        from tokenizers import models, trainers

        cls.check_size(vocab_size)
        learner = _library_of(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            min_frequency=2,
            initial_alphabet=list(LETTERS.values()),
            show_progress=False,
        )
        learner.train_from_iterator(training_parts(texts), trainer)
        learned = json.loads(learner.to_str())["model"]
        return cls(
            [*by_id(learned["vocab"]), END_OF_TEXT],
            [" ".join(merge) for merge in learned["merges"]],
        )

    @classmethod
    def from_gpt2(cls, folder: str | Path | None = None) -> "BPETokenizer":
        """The tokenizer of vocab.json and merges.txt in a folder; without one, GPT-2's own.

        Those are looked for in data/gpt2-bpe/, in $TINYGPT_DATA/gpt2-bpe/, then fetched from the
        Hugging Face Hub, 1.5 MB. `CorpusError` if they can be had nowhere, `ConfigError` for files
        that are no such tokenizer.
        """
        folder = gpt2_folder() if folder is None else Path(folder)
        try:
            ids = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
            lines = (folder / MERGES).read_text(encoding="utf-8").split("\n")
            # the first line alone may be a comment: `## ##` is a pair
            merges = lines[1:] if lines[0].startswith("#version") else lines
            return cls(by_id(ids), [merge for merge in merges if merge])
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{folder} does not hold GPT-2's two files, {VOCABULARY} and {MERGES}: {error}"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """The tokens and the pairs that were joined."""
        return {**super().to_json(), "merges": list(self.merges)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "BPETokenizer":
        """The tokenizer of stored tokens and pairs."""
        return cls(strings(content, "tokens"), strings(content, "merges"))

    def _library(self) -> "tokenizers.Tokenizer":
        from tokenizers import models

        return _library_of(models.BPE(self._ids, self._pairs))

    def _pair(self, merge: str) -> tuple[str, str]:
        left, space, right = merge.partition(" ")
        if not space or not {left, right, left + right} <= self._ids.keys():
            raise ConfigError(
                f"the pair {merge!r:.80} must be two tokens of the vocabulary, and joined a third"
            )
        return left, right


def by_id(ids: dict[str, int]) -> list[str]:
    """The tokens of a vocabulary in the order of their ids; `ConfigError` if one has a gap."""
    tokens = sorted(ids, key=ids.get)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise ConfigError(f"the ids are not 0 to {len(tokens) - 1}, each once")
    return tokens


def _library_of(model: "tokenizers.models.Model") -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer, pre_tokenizers

    library = Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library
