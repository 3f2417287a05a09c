"""Made-up runs, and what is said of them."""

from dataclasses import replace

import pytest
import torch

from tinygpt.widgets.router_training import Look, RouterTraining, Rules
from tinygpt.widgets.router_words import words

EVEN, UNEVEN = [0.25, 0.25, 0.25, 0.25], [0.4, 0.2, 0.2, 0.2]
ONE, TWO = [0.97, 0.03, 0.0, 0.0], [0.7, 0.3, 0.0, 0.0]


def look(update, load, mean=None, weight=0.5, entropy=1.0, loss=2.5):
    mean = load if mean is None else mean
    return Look(update, torch.tensor(load), torch.tensor(mean), weight, entropy, loss, 3**0.5)


def run(looks, *changes):
    """A training that was there until its last look."""
    training = RouterTraining.__new__(RouterTraining)
    training.looks, training.update = looks, looks[-1].update
    training.changes = list(changes) or [(0, Rules())]
    return training


def said(looks, *changes, before=None):
    return " ".join(words(run(looks, *changes), before))


def test_before_the_first_update():
    assert "choose one while it runs" in said([look(0, UNEVEN)])
    method = said([look(0, UNEVEN)], (0, Rules("biases", 0.01)))
    assert method == "Not trained yet. Press <b>Start</b>: biases (0.01) from the first update on."


def test_at_first_experts_take_turns():
    looks = [look(5, ONE), look(10, ONE[::-1]), look(15, ONE[::-1]), look(20, ONE)]
    assert said(looks) == "Just now expert 0 takes 97 %; 2 experts have been the largest in turn."
    assert "Collapse" not in said([look(95, ONE)])
    assert "Collapse" in said([look(0, UNEVEN), look(100, ONE)])


def test_a_collapse_and_a_loss_that_does_not_tell():
    falling = [look(100, UNEVEN, loss=2.8), look(150, ONE, loss=2.6), look(200, ONE, loss=2.55)]
    assert said(falling) == (
        "<b>Collapse</b>: expert 0 takes 97 %; 2 of 4 are dead. The loss does not show it: it fell "
        "by 0.25 in 100 updates. Now choose a balance method."
    )
    rising = [look(100, UNEVEN, loss=2.5), look(200, ONE, loss=2.55)]
    assert "The loss" not in said(rising)
    assert "Collapse" not in said([look(200, UNEVEN)])


@pytest.mark.parametrize("noise", ["learned", "jitter"])
def test_noise_that_has_not_cured(noise):
    looks = [look(100, ONE), look(250, ONE)]
    rules = Rules(noise=noise)
    words = said(looks, (0, Rules()), (130, rules))
    assert words.endswith(f"120 updates with {noise} noise have not cured it.")
    assert "noise" not in said(looks, (0, Rules()), (160, rules))


BIASES, SWITCH = Rules("biases", 0.01), Rules("Switch loss", 0.1)


def test_a_cure_on_its_way():
    looks = [look(300, ONE, weight=0.8), look(340, TWO)]
    words = said(looks, (0, Rules()), (300, SWITCH))
    assert words == (
        "40 updates with the Switch loss (0.1): variation of the mean load 1.66 → 1.15, 2 of 4 are "
        "dead."
    )
    just_now = said(looks[:1], (0, Rules()), (302, SWITCH))  # nobody has looked since
    assert just_now.startswith("0 updates with the Switch loss")
    late = said([*looks, look(450, UNEVEN)], (0, Rules()), (300, SWITCH))
    assert late.endswith("none of 4 are dead. Not even yet: it needs more strength, or more time.")


def test_a_cure_and_the_weight():
    looks = [look(300, ONE, weight=0.8), look(340, TWO), look(360, EVEN), look(400, EVEN)]
    looks[-1] = replace(looks[-1], weight=0.2)
    biased = said(looks, (0, Rules()), (300, BIASES))
    assert biased == (
        "<b>Cured</b> after 60 updates with biases (0.01): variation of the mean load 1.66 → 0.00, "
        "none of 4 are dead. The load is back, the weight is not (mean weight 0.80 → 0.20): biases "
        "choose, they never weigh."
    )
    assert said(looks, (0, Rules()), (300, SWITCH)).endswith("With it, mean weight 0.80 → 0.20.")
    looks[-1] = replace(looks[-1], weight=0.7)
    assert said(looks, (0, Rules()), (300, BIASES)).endswith("With it, mean weight 0.80 → 0.70.")


def test_even_in_the_mean_only():
    looks = [look(300, ONE), look(400, [0.1, 0.0, 0.8, 0.1], EVEN)]
    words = said(looks, (0, Rules()), (300, BIASES))
    assert words.endswith("That is so in the mean only: just now expert 2 takes 80 %.")


def test_a_method_from_the_start_cures_nothing():
    looks = [look(0, ONE), look(30, UNEVEN), look(60, EVEN, weight=0.3)]
    words = said(looks, (0, SWITCH))
    assert words == (
        "<b>Even</b> after 60 updates with the Switch loss (0.1): variation of the mean load 0.00, "
        "none of 4 are dead."
    )


def test_the_dead_stay_dead_only_where_the_router_is_certain():
    sure = [look(300, ONE), look(500, TWO, entropy=0.02)]
    bare = replace(SWITCH, z_weight=0.0)
    assert (
        "<b>The dead stay dead</b>: without a z-loss the router has become certain (entropy "
        in (said(sure, (0, Rules(z_weight=0.0)), (300, bare)))
    )
    others = (
        (sure, SWITCH),  # with a z-loss
        ([sure[0], look(500, TWO, entropy=0.5)], bare),
        ([sure[0], look(500, UNEVEN, entropy=0.02)], bare),  # none is dead
        ([sure[0], look(440, TWO, entropy=0.02)], bare),  # too early
    )
    for looks, rules in others:
        assert "stay dead" not in said(looks, (0, Rules()), (300, rules))


def test_the_run_before_is_compared_at_the_same_update():
    before = run([look(0, UNEVEN), look(200, ONE, loss=2.6), look(300, TWO, loss=2.4)])
    looks = [look(0, EVEN), look(200, EVEN, loss=2.55)]
    assert said(looks, (0, SWITCH), before=before).endswith(
        "Grey, the run before, at this update: loss 2.60 (now 2.55), variation 1.66 (now 0.00)."
    )
    further = [*looks, look(305, EVEN)]
    assert "Grey" not in said(further, (0, SWITCH), before=before)
    assert "Grey" not in said(looks[:1], (0, SWITCH), before=before)
