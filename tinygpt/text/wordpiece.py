"""WordPiece: tokens that are taken greedily, the longest first."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .subwords import LETTERS, SubwordTokenizer, training_parts
from .tokenizer import END_OF_TEXT

if TYPE_CHECKING:
    import tokenizers

GOES_ON = "…"  # begins a token that continues a word; no byte is spelled with it
WORD = 64  # bytes; a longer word is read in parts, since time grows with the square of its length
SYMBOLS = [prefix + letter for prefix in ("", GOES_ON) for letter in LETTERS.values()]


class WordPieceTokenizer(SubwordTokenizer):
    """Takes from a word the longest token that it begins with, then from what is left of it.

    Schuster and Nakajima 2012, as BERT has it (Devlin et al. 2019), but on the bytes of GPT-2's
    words, so that every text comes back as it was. A token inside a word, "…ing", is another
    than the same letters at its beginning.
    """

    kind = "wordpiece"
    prefixes = ("", GOES_ON)

    @classmethod
    def train(cls, texts: str | Iterable[str], vocab_size: int = 4000) -> "WordPieceTokenizer":
        """Learn at most `vocab_size` tokens from a text, or several: the same from the same texts.

        The library joins the most frequent pairs, as for BPE, but seen within words or at their
        beginning. It numbers what it finds in the order of a hash table; as all symbols are named
        beforehand here, nothing depends on that.
        """
        from tokenizers import models, trainers

        cls.check_size(vocab_size)
        learner = _library_of(models.WordPiece())
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size - 1,
            min_frequency=2,
            special_tokens=SYMBOLS,
            continuing_subword_prefix=GOES_ON,
            show_progress=False,
        )
        learner.train_from_iterator(training_parts(texts), trainer)
        learned = learner.get_vocab()
        return cls([*sorted(learned, key=learned.get), END_OF_TEXT])

    def _library(self) -> "tokenizers.Tokenizer":
        from tokenizers import models

        model = models.WordPiece(
            self._ids, max_input_chars_per_word=WORD, continuing_subword_prefix=GOES_ON
        )
        return _library_of(model)


def _library_of(model: "tokenizers.models.WordPiece") -> "tokenizers.Tokenizer":
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    library = Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Split(Regex(f".{{1,{WORD}}}"), "isolated"),
        ]
    )
    return library
