"""What is to be seen in the router lab's run, in sentences: only what is there on the screen."""

from .router_training import Look, RouterTraining, Rules

EARLY = 100  # updates in which experts take turns
RECENT = 100  # updates
PATIENCE = 150  # updates after which a cure that has not worked is talked of
CERTAIN = 0.1  # nats of entropy


def words(training: RouterTraining, before: RouterTraining | None = None) -> list[str]:
    """Sentences on the run so far; `before` is the one that was there until the last reset."""
    if not training.update:
        return [at_start(training.rules)]
    free = training.rules.balance == "none"
    said = without_method(training) if free else with_method(training)
    return said + compared(training, before)


def at_start(rules: Rules) -> str:
    """Before the first update."""
    if rules.balance == "none":
        return (
            "Not trained yet. Press <b>Start</b> and watch the load for about 300 updates, without "
            "a balance method; then choose one while it runs."
        )
    return f"Not trained yet. Press <b>Start</b>: {name(rules)} from the first update on."


def without_method(training: RouterTraining) -> list[str]:
    """While nothing keeps the load even."""
    now, rules = training.looks[-1], training.rules
    if not now.collapsed or now.update < EARLY:
        first = len({int(look.load.argmax()) for look in training.looks})
        return [f"Just now {largest(now)}; {first} experts have been the largest in turn."]
    said = [f"<b>Collapse</b>: {largest(now)}; {dead(now)}."]
    fallen = training.seen(now.update - RECENT).loss - now.loss
    if fallen > 0:
        said.append(f"The loss does not show it: it fell by {fallen:.2f} in {RECENT} updates.")
    noisy = now.update - training.since("noise")
    if rules.noise != "none" and noisy >= RECENT:
        return [*said, f"{noisy} updates with {rules.noise} noise have not cured it."]
    return [*said, "Now choose a balance method."]


def with_method(training: RouterTraining) -> list[str]:
    """While a balance method is at work."""
    rules, now, began = training.rules, training.looks[-1], training.since("balance")
    start, gone = training.seen(began), max(0, now.update - began)
    looks = (look for look in training.looks if look.update > began)
    even = next((look.update - began for look in looks if look.even), None)
    cure = began > 0 and start.collapsed
    change = f"{start.cv:.2f} → " if began else ""
    state = f"variation of the mean load {change}{now.cv:.2f}, {dead(now)}."
    if even is None:
        said = [f"{gone} updates with {name(rules)}: {state}"]
        return said + [why_not(rules, now)] * (gone >= PATIENCE)
    said = [
        f"<b>{'Cured' if cure else 'Even'}</b> after {even} updates with {name(rules)}: {state}"
    ]
    return said + [weight(rules, start, now)] * cure + [turns(now)] * takes_turns(now)


def weight(rules: Rules, start: Look, now: Look) -> str:
    """What became of the mean weight."""
    change = f"mean weight {start.weight:.2f} → {now.weight:.2f}"
    if rules.balance == "biases" and now.weight < start.weight / 2:
        return f"The load is back, the weight is not ({change}): biases choose, they never weigh."
    return f"With it, {change}."


def why_not(rules: Rules, now: Look) -> str:
    """Why a cure has not worked."""
    if now.dead and not rules.z_weight and now.entropy < CERTAIN:
        return (
            f"<b>The dead stay dead</b>: without a z-loss the router has become certain (entropy "
            f"{now.entropy:.2f}), and a saturated softmax passes no gradient."
        )
    return "Not even yet: it needs more strength, or more time."


def takes_turns(now: Look) -> bool:
    """Whether the load is even in the mean only."""
    return now.even and float(now.load.max()) > 3 * float(now.mean_load.mean())


def turns(now: Look) -> str:
    """That it is."""
    return f"That is so in the mean only: just now {largest(now)}."


def compared(training: RouterTraining, before: RouterTraining | None) -> list[str]:
    """The run before, at the same update."""
    now = training.looks[-1]
    if before is None or before.update < now.update:
        return []
    then = before.seen(now.update)
    return [
        f"Grey, the run before, at this update: loss {then.loss:.2f} (now {now.loss:.2f}), "
        f"variation {then.cv:.2f} (now {now.cv:.2f})."
    ]


def name(rules: Rules) -> str:
    """The balance method as it stands in a sentence."""
    article = "the " if rules.balance == "Switch loss" else ""
    return f"{article}{rules.balance} ({rules.strength:g})"


def largest(look: Look) -> str:
    """Who takes most of the fixed text."""
    e = int(look.load.argmax())
    return f"expert {e} takes {100 * float(look.load[e]):.0f} %"


def dead(look: Look) -> str:
    """How many are dead."""
    n = len(look.dead)
    return f"{n or 'none'} of {len(look.load)} {'is' if n == 1 else 'are'} dead"
