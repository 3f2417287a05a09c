"""How a text is written."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ..checks import Limit, check, check_all

# What a value of the decoding has to be, and how it is switched off. The last number of a range is
# the widest for which float32 says the right thing: what comes of logits up to 10^4 is finite, and
# after 10^4 uses of a token its logit is still exact to 1/16.
Temperature = Annotated[
    float, Limit(at_least=0, at_most=1e30, way_out="0: the most probable, 1: unchanged")
]
TopK = Annotated[int, Limit(at_least=0, way_out="0 or None: off")]
Kept = Annotated[float, Limit(above=0, at_most=1, way_out="1: off")]
Floor = Annotated[float, Limit(at_least=0, at_most=1, way_out="0: off")]
Cutoff = Annotated[float, Limit(at_least=0, below=1, way_out="0: off")]
Penalty = Annotated[
    float, Limit(at_least=1e-30, at_most=1e30, way_out="1: off, above 1: fewer repetitions")
]
Window = Annotated[int, Limit(at_least=1, way_out="None: all tokens")]
Amount = Annotated[float, Limit(at_least=-100, at_most=100, way_out="0: off")]
Length = Annotated[int, Limit(at_least=0, way_out="0: off")]
Texts = Annotated[tuple[str, ...], Limit(way_out="stop takes several texts: stop=('\\n\\n',)")]


@dataclass(frozen=True)
class DecodingConfig:
    """How the next token is chosen. The defaults change nothing: plain sampling.

    The steps act in this order: repetition, frequency and presence, n-grams, bans; temperature;
    top-k, top-p, min-p, typical, epsilon, eta. See the functions of `tinygpt.decoding`.
    """

    temperature: Temperature = 1.0  # 0: the most probable token
    top_k: TopK | None = None  # keep the k most probable; 0 or None: off
    top_p: Kept = 1.0  # keep the fewest that together have this probability; 1: off
    min_p: Floor = 0.0  # drop what has less than this share of the largest probability; 0: off
    typical: Kept = 1.0  # keep those closest to the expected surprise, of this mass; 1: off
    epsilon: Cutoff = 0.0  # drop probabilities below this; 0: off
    eta: Cutoff = 0.0  # as epsilon, but lower where the distribution is flat; 0: off
    repetition_penalty: Penalty = 1.0  # above 1: less of what was there before; 1: off
    repetition_window: Window | None = None  # of the last so many tokens only; None: of all
    frequency: Amount = 0.0  # subtracted from a logit per earlier use in what was generated
    presence: Amount = 0.0  # subtracted once, if it was used at all
    no_repeat_ngram: Length = 0  # never the same n tokens in a row twice; 0: off
    banned: str = ""  # symbols that are never written (the playground)
    allowed: str | None = None  # the only symbols that may be written; None: all
    stop: Texts = ()  # a row ends before the first of these texts
    past_block: Literal["crop", "roll", "stop"] = "crop"  # what happens beyond block_size

    def __post_init__(self):
        if isinstance(self.stop, list):
            object.__setattr__(self, "stop", tuple(self.stop))
        check_all(self)
        check(all(self.stop), "a stop sequence is empty; it would end every text at once")
