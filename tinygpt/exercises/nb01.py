"""Checks of notebook 01."""

import math

import torch

from .registry import NotYet, exercise
from .tools import expect, is_number, is_tensor, short, shown, tensors


@exercise
def logit_gradient(answer):
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0])
    got = is_tensor(answer(logits.clone(), 3)).float()
    expect(
        got.shape == logits.shape,
        f"one slope for each logit is asked, shape {tuple(logits.shape)}, but yours is "
        f"{tuple(got.shape)}.",
    )
    p, hit = logits.softmax(0), torch.nn.functional.one_hot(torch.tensor(3), 5)
    seen = f"for the logits {logits.tolist()} and target 3 you return {short(got)}"
    for wrong, why in (
        (hit - p, "the sign is wrong: raising the target's logit lowers the loss"),
        (p, "these are the probabilities. The target's slope is not positive: take 1 from it"),
        ((p - 1) * hit, "only the target's logit has a slope. Raising another one takes "
         "probability from the target, so its slope is its own p"),
        (hit * (1 - p), "only the target's logit has a slope, and the sign is wrong"),
        (p - 3, "the target itself, an id, is taken from each. It says where 1 is taken"),
        (p + (1 - 2 * p) * hit, "the target's slope has the wrong sign: p - 1, not 1 - p"),
        (logits - hit, "1 is taken from the logits. Take it from the probabilities, the softmax"),
        (logits.log_softmax(0) - hit, "the logarithm is too much: probabilities minus 1 at the "
         "target"),
        ((p - hit) / 5, "that is divided by V. The loss is of one prediction, not of V"),
        (p - p[3] * hit, "the target's p became 0. Take 1 from it, not itself"),
    ):  # fmt: skip
        if torch.allclose(got, wrong, atol=1e-4):
            raise NotYet(f"{seen}; {why}.")
    expect(
        torch.allclose(got, p - hit, atol=1e-4),
        f"{seen}, but nudging each logit gives {short(p - hit)}.",
    )
    other = is_tensor(answer(torch.zeros(4), 0)).float()
    expect(
        torch.allclose(other, torch.tensor([-0.75, 0.25, 0.25, 0.25]), atol=1e-4),
        f"right for five logits and target 3; four zeros and target 0 should give [-0.75, 0.25, "
        f"0.25, 0.25], but you return {short(other)}. Is a size written into your function?",
    )
    return "right. The slopes sum to 0: what the target gains, the others lose."


@exercise
def encode_with_unknown(answer):
    alphabet = " abc"
    known = _ids(answer("cab", alphabet))
    expect(
        known != [4, 2, 3],
        f"'a' in the alphabet {alphabet!r} got id 2. Ids count from 0: the first character, here "
        f"the space, has id 0, and the last one {len(alphabet) - 1}.",
    )
    expect(
        known == [3, 1, 2],
        f"'cab' with the alphabet {alphabet!r} should give [3, 1, 2], but you return "
        f"{known}. The id of a character is its place in `alphabet`, whatever the text contains.",
    )
    got = _ids(answer("a!b?", alphabet))
    expect(
        len(got) == 4,
        f"'a!b?' has 4 characters, but you return {len(got)} ids: {got}. An unknown character was "
        f"dropped; it needs an id too, or every later id moves to the wrong place.",
    )
    for i in (got[1], got[3]):
        expect(
            i != -1,
            "an unknown character got -1 (is that str.find?). As an index, -1 means the last row "
            f"of a table, here the row of 'c'. Use the first free id, {len(alphabet)}.",
        )
        expect(
            i not in range(len(alphabet)),
            f"an unknown character got id {i}, which belongs to {alphabet[i % 4]!r}. Nobody can "
            f"tell the two apart any more. Use the first free id, {len(alphabet)}.",
        )
    expect(
        got[1] == got[3],
        f"'!' got id {got[1]} and '?' got id {got[3]}. All unknown characters share one id, "
        f"{len(alphabet)}; there is no room for an endless number of ids.",
    )
    expect(
        got == [1, 4, 2, 4],
        f"'a!b?' with the alphabet {alphabet!r} should give [1, 4, 2, 4], but you return {got}.",
    )
    got = _ids(answer("a-c", "abcde"))
    expect(
        got == [0, 5, 2],
        f"'a-c' with the alphabet 'abcde' should give [0, 5, 2], but you return {got}. The free id "
        f"is the length of the alphabet, whatever the text.",
    )
    return "right. The price: decoding cannot say which character an unknown one was."


@exercise
def unigram_entropy(answer):
    counts = torch.tensor([2, 1, 1])
    truth = 1.5 * math.log(2)
    got = is_number(answer(counts.clone()))
    mistakes = {
        1.5: "which is the entropy in bits: log2 was used. In nats it is the natural logarithm",
        truth / math.log(10): "which is what log10 gives. In nats it is the natural logarithm",
        -truth: "which has the wrong sign. Logarithms of shares are negative, an entropy is not",
        -2 * math.log(2): "which is what comes out without dividing by the sum of the counts. "
        "Probabilities have to sum to 1",
        2 * math.log(2): "which is what comes out without dividing by the sum of the counts. "
        "Probabilities have to sum to 1",
        truth / 3: "which is the mean over the characters. Each term is already weighted with its "
        "probability, so they are summed",
        5 * math.log(2): "which is the sum of the surprises. Each has to be weighted with how "
        "often it comes: p times ln p",
        1.0027: "which is what comes out when the counts are divided by how many there are. "
        "Divide by their sum",
        1.0790: "which is the entropy after adding 1 to each count. That smooths a model; here "
        "the entropy of the counts themselves is asked",
        2**1.5: "which is the perplexity. The entropy is its logarithm",
    }
    for value, why in mistakes.items():
        if math.isclose(got, value, abs_tol=1e-3):
            raise NotYet(f"the counts [2, 1, 1] give {got:.4f}, {why}.")
    expect(
        math.isclose(got, truth, abs_tol=1e-4),
        f"the counts [2, 1, 1] have the shares 1/2, 1/4, 1/4 and the entropy {truth:.4f} nats, "
        f"but you return {got:.4f}.",
    )
    with_zero = is_number(answer(torch.tensor([2, 0, 1, 1])))
    expect(
        not math.isnan(with_zero),
        "the counts [2, 0, 1, 1] give nan. The log of 0 is minus infinity, and 0 times infinity "
        "is nan (not a number). Leave the zeros out before you take the logarithm.",
    )
    expect(
        math.isclose(with_zero, truth, abs_tol=1e-4),
        f"a character that never occurs must not change the entropy: [2, 1, 1] gives {got:.4f}, "
        f"but [2, 0, 1, 1] gives {with_zero:.4f}.",
    )
    even = is_number(answer(torch.full((65,), 7)))
    expect(
        math.isclose(even, math.log(65), abs_tol=1e-4),
        f"65 equal counts of 7 have the entropy ln 65 = {math.log(65):.4f}, you return {even:.4f}.",
    )
    return "right. 65 equal counts give ln 65 = 4.1744, the uniform baseline; no counts give more."


@exercise
def make_windows(answer):
    tokens = torch.tensor([5, 3, 8, 1, 9, 2, 7, 4, 6, 0])
    x, y = _windows(answer(tokens.clone(), 3))
    _expect_places(x, y)
    _expect_shift(x, y, tokens)
    try:
        x, y = _windows(answer(tokens[:9].clone(), 3))
    except RuntimeError as error:
        raise NotYet(
            "10 tokens work, but 9 tokens with block_size 3 stop with an error: the last of 3 "
            f"windows has no target for its last token. 9 tokens allow 8 predictions. ({error})"
        ) from error
    expect(
        tuple(x.shape) != (3, 2),
        "9 tokens and block_size 3 give x of shape (3, 2): rows and columns are swapped. A window "
        "is a row, and has block_size columns: view(n, block_size).",
    )
    expect(
        tuple(x.shape) == tuple(y.shape) == (2, 3),
        f"9 tokens allow 8 predictions, so only 2 windows of 3 have all their targets. You return "
        f"x of shape {tuple(x.shape)}, y of shape {tuple(y.shape)}: the last window is incomplete.",
    )
    x, y = _windows(answer(tokens[:9].clone(), 4))
    expect(
        x.tolist() == [[5, 3, 8, 1], [9, 2, 7, 4]] and y.tolist() == [[3, 8, 1, 9], [2, 7, 4, 6]],
        f"9 tokens and block_size 4 make two whole windows. You return x = {x.tolist()} and "
        f"y = {y.tolist()}.",
    )
    return "right. This is how the package measures validation loss: each prediction exactly once."


def _expect_places(x: torch.Tensor, y: torch.Tensor) -> None:
    shape = tuple(x.shape)
    expect(
        shape not in ((7, 3), (8, 3)),
        f"10 tokens and block_size 3 give x of shape {shape}: the windows start at every token "
        "and overlap. Each should start where the one before it ends: at 0, 3, 6.",
    )
    expect(
        shape != (2, 3),
        "10 tokens and block_size 3 give 2 windows, but 3 fit: they start at 0, 3 and 6, and the "
        "last target is the last token. Steps of block_size + 1 would skip predictions.",
    )
    expect(
        shape == tuple(y.shape) == (3, 3),
        f"10 tokens allow 9 predictions, so block_size 3 gives x and y of shape (3, 3). You return "
        f"{shape} and {tuple(y.shape)}.",
    )
    expect(
        x.tolist() != [[3, 8, 1], [9, 2, 7], [4, 6, 0]],
        "your x starts at the second token: these are the targets. Are x and y swapped?",
    )
    expect(
        x.tolist() == [[5, 3, 8], [1, 9, 2], [7, 4, 6]],
        "the windows of [5, 3, 8, 1, 9, 2, 7, 4, 6, 0] start at token 0, 3 and 6, one per row; "
        f"your x is {x.tolist()}.",
    )


def _expect_shift(x: torch.Tensor, y: torch.Tensor, tokens: torch.Tensor) -> None:
    before = tokens.roll(1)[:9].view(3, 3)
    expect(not torch.equal(y, x), "y equals x: a model would be asked for what it has just read.")
    expect(
        not torch.equal(y, x + 1),
        "y is x + 1: you added 1 to the ids. It is the place that moves by one, not the id.",
    )
    expect(
        not torch.equal(y, x.roll(-1, 1)),
        "each row of y ends with the first token of its own window: the row was rolled round. Its "
        "last target is the token that follows the window in the text.",
    )
    expect(
        not torch.equal(y, before),
        "y[i, t] is the token before x[i, t]: a model would learn to predict the past.",
    )
    expect(
        y.tolist() == [[3, 8, 1], [9, 2, 7], [4, 6, 0]],
        f"y should be [[3, 8, 1], [9, 2, 7], [4, 6, 0]], each the token after x[i, t]; you return "
        f"{y.tolist()}.",
    )


@exercise
def unknown_share(answer):
    got = is_number(answer("abc!!", "abc"))
    mistakes = {
        0.25: "You counted kinds of characters (a set?). '!' stands there twice and counts twice",
        0.2: "'!' stands there twice and counts twice",
        40: "That is a percentage. A share lies between 0 and 1",
        2: "That is the number of unknown characters. Divide by the length of the text",
        0.6: "That is the share of the known characters. Count those that are not in the alphabet",
        2 / 3: "That divides by the size of the alphabet. Divide by the length of the text",
    }
    for value, why in mistakes.items():
        if math.isclose(got, value, abs_tol=1e-6):
            raise NotYet(f"in 'abc!!' 2 of 5 characters are not in 'abc'; you return {got}. {why}.")
    expect(
        math.isclose(got, 0.4, abs_tol=1e-6),
        f"in 'abc!!' 2 of 5 characters are not in 'abc': the share is 0.4. You return {got}.",
    )
    capital = is_number(answer("Ab", "ab"))
    expect(
        math.isclose(capital, 0.5),
        f"in 'Ab' the capital A is not in the alphabet 'ab', so the share is 0.5. You return "
        f"{capital}. Capitals and small letters are different characters.",
    )
    try:
        empty = is_number(answer("", "abc"))
    except ZeroDivisionError:
        raise NotYet("an empty text stops with a division by zero; its share is 0.0.") from None
    expect(empty == 0, f"an empty text has no unknown characters: 0.0, but you return {empty}.")
    return "right. If the share is above 0, take the text's own tokenizer, or leave characters out."


def _ids(result) -> list[int]:
    if isinstance(result, str) or not hasattr(result, "__len__"):
        raise NotYet(f"a list of ids is asked, but you return {shown(result)}.")
    for i in result:
        expect(not isinstance(i, str), f"ids are numbers, but you return the text {shown(i)}.")
    return [int(i) for i in result]


def _windows(result) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = tensors(result, "x, y")
    expect(
        x.dim() == y.dim() == 2,
        f"x and y should be tables with one window per row, but their shapes are "
        f"{tuple(x.shape)} and {tuple(y.shape)}.",
    )
    return x, y
