"""Stop texts: looked for in the characters that are written, whatever the tokens are."""

from ..text import Tokenizer


def find_stop(text: str, stop: tuple[str, ...], seen: int = 0) -> int | None:
    """Where to cut a text that ends at the first stop text in it; None if there is none.

    Of those that end at the same place the longest is cut off. In the first `seen` characters
    none ends.

    >>> find_stop("abcd", ("d", "bcd")), find_stop("abcd", ("abc", "b")), find_stop("ab", ("c",))
    (1, 1, None)
    """
    found = []
    for s in stop:
        begin = text.find(s, max(0, seen + 1 - len(s)))
        if begin >= 0:
            found.append((begin + len(s), begin))
    return min(found)[1] if found else None


def unfinished(text: str, stop: tuple[str, ...]) -> int:
    """Length of the longest end of a text that begins a stop text, and is not all of it.

    >>> unfinished("a line\\n", ("\\n\\n",)), unfinished("a line\\n\\n", ("\\n\\n",))
    (1, 1)
    """
    lengths = [n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])]
    return max(lengths, default=0)


def begun_before(tokenizer: Tokenizer, tokens: list[int], cut: int) -> list[int]:
    """The first of these tokens: those whose text begins before character `cut` of it all."""
    count = len(tokens)
    while count and _place(tokenizer, tokens[:count]) >= cut:
        count -= 1
    return tokens[:count]


def _place(tokenizer: Tokenizer, tokens: list[int]) -> int:
    """Number of the character, from 0, in which the last token begins."""
    *before, last = map(tokenizer.token_bytes, tokens)
    # the last character of what ends with the token's first byte; one without bytes goes between
    read = b"".join(before) + (last[:1] or b"|")
    return len(read.decode(errors="replace")) - 1


class Written:
    """What one row writes, token by token; it ends before the first stop text, or end of text."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = ()):
        self.text = ""  # complete characters, without the stop text
        self.settled = 0  # how many of them no stop text can take back
        self.stopped = False
        self._tokens: list[int] = []
        self._tokenizer, self._decoder, self._stop = tokenizer, tokenizer.decoder(), stop
        self._open = bool(stop)  # a stop text may still come

    def add(self, token: int) -> None:
        """Take the next token; after a stop text or the end of the text none counts."""
        if self.stopped:
            return
        if token == self._tokenizer.end_of_text:
            self.end()
            self.stopped = True
        else:
            self._tokens.append(token)
            self._grow(self._decoder.add(token))

    def end(self) -> None:
        """No token follows: what was held back is settled, an incomplete character U+FFFD."""
        if not self.stopped:
            self._grow(self._decoder.end())
            self.settled, self._open = len(self.text), False

    def tokens(self) -> list[int]:
        """Those that no stop text can take back: their text begins before `settled`."""
        if self._open or self.stopped:
            return begun_before(self._tokenizer, self._tokens, self.settled)
        return self._tokens

    def _grow(self, characters: str) -> None:
        seen, text = len(self.text), self.text + characters
        cut = find_stop(text, self._stop, seen)
        self.stopped = cut is not None
        self.text = text[:cut]
        self.settled = cut if self.stopped else len(text) - unfinished(text, self._stop)
