"""What stands between the model's logits and the draw of a token.

B batch, T time, V vocabulary

The filters are pure: `(B, V)` logits in, new float32 logits out, what is removed is -inf. Token
histories `(B, T)` hold -1 where there is no token (padding), and that counts nowhere. What equals
a limit but for rounding counts as equal: .3 is half of .6, whatever float32 makes of them.
"""

import math

import torch
from torch import Tensor

from ..config import DecodingConfig, check_value
from ..model import ROUNDING, fewest, float64

NONE = -1  # in a token history: no token here


def apply_temperature(logits: Tensor, t: float) -> Tensor:
    """Divide by the temperature: below 1 sharper, above 1 flatter.

    At 0 only the largest logit of each row stays (the first of equal ones).

    >>> apply_temperature(torch.tensor([[3.0, 2.0, 1.0]]), 0.5)
    tensor([[6., 4., 2.]])
    """
    check_value(DecodingConfig, "temperature", t)
    if t == 0:
        best = torch.zeros_like(logits, dtype=torch.bool)
        return _keep(logits, best.scatter(-1, logits.argmax(dim=-1, keepdim=True), True))
    logits, t = logits.float(), float(t)  # torch takes no whole number beyond 64 bits
    if t >= 0.01:
        return logits / t
    # what a softmax gives is the same with the largest at 0, where no small t overflows
    float32 = torch.finfo(torch.float32)
    largest = logits.amax(dim=-1, keepdim=True).clamp(min=float32.min)  # of an empty row -inf
    return (logits - largest) / max(t, float32.tiny)  # 1e-46 would be 0, and 0 / 0 is NaN


def filter_top_k(logits: Tensor, k: int | None) -> Tensor:
    """Keep exactly min(k, V) logits, the largest; of equal ones the first (Fan et al. 2018).

    >>> filter_top_k(torch.tensor([[1.0, 3.0, 2.0, 3.0]]), 2)
    tensor([[-inf, 3., -inf, 3.]])
    """
    check_value(DecodingConfig, "top_k", k)
    if not k or k >= logits.shape[-1]:
        return logits.float()
    smallest = logits.topk(k, dim=-1).values[..., -1:]
    above, equal = logits > smallest, logits == smallest
    room = k - above.sum(dim=-1, keepdim=True)
    return _keep(logits, above | equal & (equal.cumsum(dim=-1) <= room))


def filter_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest tokens whose probabilities add up to p or more (Holtzman et al. 2020).

    The token that crosses p stays. With probabilities .5, .3, .2 and p = .6: .5 alone is not
    enough, so .5 and .3 stay. With p = .8 they stay too: a sum that equals p is enough.

    >>> filter_top_p(torch.tensor([[0.5, 0.3, 0.2]]).log(), 0.6).exp()
    tensor([[0.5000, 0.3000, 0.0000]])
    """
    check_value(DecodingConfig, "top_p", p)
    return logits.float() if p == 1 else _keep_mass(logits, -logits.float(), p)


def filter_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens with at least p times the largest probability (Nguyen et al. 2024).

    >>> filter_min_p(torch.tensor([[0.6, 0.3, 0.1]]).log(), 0.4).exp()  # 0.1 < 0.4 * 0.6
    tensor([[0.6000, 0.3000, 0.0000]])
    """
    check_value(DecodingConfig, "min_p", p)
    if p == 0:
        return logits.float()
    least = float64(logits.amax(dim=-1, keepdim=True)) + (math.log(p) - ROUNDING)
    return _keep(logits, logits >= least)


def filter_typical(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens whose surprise is closest to the entropy, of mass p (Meister et al. 2023).

    Probabilities .5, .25, .25 have entropy 1.04 nats; the surprises are 0.69, 1.39, 1.39, at
    distances .35, .35, .35. With .9, .05, .05 (entropy .39, surprises .11, 3.0, 3.0) the .9 is
    most typical:

    >>> filter_typical(torch.tensor([[0.9, 0.05, 0.05]]).log(), 0.8).exp()
    tensor([[0.9000, 0.0000, 0.0000]])
    """
    check_value(DecodingConfig, "typical", p)
    if p == 1:
        return logits.float()
    log_p = float64(logits).log_softmax(dim=-1)
    entropy = -(log_p.exp() * log_p).nansum(dim=-1, keepdim=True)  # 0 * -inf is nan: counts 0
    return _keep_mass(logits, (-log_p - entropy).abs(), p)


def filter_epsilon(logits: Tensor, e: float) -> Tensor:
    """Drop probabilities below e, but never the largest (Hewitt et al. 2022, section 4).

    >>> filter_epsilon(torch.tensor([[0.6, 0.3, 0.1]]).log(), 0.2).exp()
    tensor([[0.6000, 0.3000, 0.0000]])
    """
    check_value(DecodingConfig, "epsilon", e)
    logits = logits.float()
    return logits if e == 0 else _keep_at_least(logits, e)


def filter_eta(logits: Tensor, e: float) -> Tensor:
    """As `filter_epsilon`, with limit min(e, sqrt(e) exp(-entropy)) (Hewitt et al. 2022, eq. 5).

    Two tokens of .5 have entropy ln 2, so e = .36 gives the limit min(.36, .6 / 2) = .3:

    >>> filter_eta(torch.tensor([[0.5, 0.5]]).log(), 0.36).exp()
    tensor([[0.5000, 0.5000]])
    """
    check_value(DecodingConfig, "eta", e)
    logits = logits.float()
    if e == 0:
        return logits
    log_p = float64(logits).log_softmax(dim=-1)
    entropy = -(log_p.exp() * log_p).nansum(dim=-1, keepdim=True)
    return _keep_at_least(logits, (math.sqrt(e) * (-entropy).exp()).clamp(max=e))


def apply_repetition_penalty(
    logits: Tensor, tokens: Tensor, penalty: float, window: int | None = None
) -> Tensor:
    """Make tokens that were there before less likely (Keskar et al. 2019, section 4.1).

    Positive logits are divided by the penalty, negative ones multiplied, once per distinct token.
    `window` looks at the last so many tokens only: an alphabet of 65 is soon used up.

    >>> apply_repetition_penalty(torch.tensor([[2.0, -2.0, 2.0]]), torch.tensor([[0, 1, 0]]), 2.0)
    tensor([[ 1., -4.,  2.]])
    """
    check_value(DecodingConfig, "repetition_penalty", penalty)
    check_value(DecodingConfig, "repetition_window", window)
    logits, penalty = logits.float(), float(penalty)
    if window is not None:
        tokens = tokens[:, max(0, tokens.shape[1] - window) :]
    punished = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(_counts(tokens, logits) > 0, punished, logits)


def apply_frequency_penalty(
    logits: Tensor, tokens: Tensor, frequency: float, presence: float
) -> Tensor:
    """Subtract `frequency` per use of a token, and `presence` if it was used at all.

    >>> apply_frequency_penalty(torch.zeros(1, 3), torch.tensor([[0, 0, 1]]), 0.5, 1.0)
    tensor([[-2.0000, -1.5000,  0.0000]])
    """
    check_value(DecodingConfig, "frequency", frequency)
    check_value(DecodingConfig, "presence", presence)
    counts = _counts(tokens, logits)
    return logits.float() - frequency * counts - presence * (counts > 0)


def ban_repeated_ngrams(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Ban each token that would repeat n tokens in a row (Paulus et al. 2018, section 2.5).

    After 0 1 2 0 1 with n = 3, the pair 0 1 must not be followed by 2 again:

    >>> ban_repeated_ngrams(torch.zeros(1, 4), torch.tensor([[0, 1, 2, 0, 1]]), 3)
    tensor([[0., 0., -inf, 0.]])
    """
    check_value(DecodingConfig, "no_repeat_ngram", n)
    logits = logits.float()
    if n == 0 or tokens.shape[1] < n:
        return logits
    grams = tokens.unfold(1, n, 1)  # (B, T - n + 1, n)
    ending = tokens[:, None, tokens.shape[1] - n + 1 :]  # (B, 1, n - 1)
    repeats = (grams[..., :-1] == ending).all(dim=-1) & (grams != NONE).all(dim=-1)
    last = grams[..., -1].where(repeats, NONE)  # (B, T - n + 1)
    return _keep(logits, _counts(last, logits) == 0)


def allow_only(logits: Tensor, allowed: Tensor) -> Tensor:
    """Keep what a mask `(V,)` or `(B, V)` allows.

    >>> allow_only(torch.zeros(1, 3), torch.tensor([True, False, True]))
    tensor([[0., -inf, 0.]])
    """
    return _keep(logits, allowed.expand_as(logits))


def _keep(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.float().masked_fill(~mask, -torch.inf)


def _keep_mass(logits: Tensor, order: Tensor, mass: float) -> Tensor:
    """Keep tokens by ascending `order` until they have this mass, the crossing one included."""
    order = order.argsort(dim=-1, stable=True)
    kept = fewest(float64(logits).softmax(dim=-1).gather(-1, order), mass)
    return _keep(logits, torch.zeros_like(kept).scatter(-1, order, kept))


def _keep_at_least(logits: Tensor, limit: Tensor | float) -> Tensor:
    largest = logits >= logits.amax(dim=-1, keepdim=True)
    p = float64(logits).softmax(dim=-1)
    return _keep(logits, (p >= limit * (1 - ROUNDING)) | largest)


def _counts(tokens: Tensor, logits: Tensor) -> Tensor:
    """How often each symbol occurs in each row, `(B, V)`; NONE counts nowhere."""
    B, V = logits.shape
    counts = torch.zeros(B, V + 1, device=logits.device)
    slots = tokens.where(tokens != NONE, V)
    return counts.scatter_add(1, slots, torch.ones_like(slots, dtype=counts.dtype))[:, :V]
