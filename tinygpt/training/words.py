"""What a training says of itself: why it broke off, where it stopped, how it goes on."""

from ..config import TrainConfig
from ..errors import NonFiniteError
from .preflight import changes
from .run import Run


def ruined(what: str, run: Run | None, config: TrainConfig) -> NonFiniteError:
    """The error of a training whose numbers are not finite: what happened, and the way out."""
    saved = run.checkpoints()[-1:] if run else []
    where = f"; the last checkpoint is {saved[0]}" if saved else ""
    return NonFiniteError(
        f"{what}{where}. Lower the learning rate (lr={config.lr}, "
        f"muon_lr={config.muon_lr}) or the gradient limit (grad_clip={config.grad_clip})"
    )


def stopped(step: int, run: Run | None, useless: bool) -> str:
    """Where a signal stopped a training; `useless`: its last weights were not saved."""
    where = " (no out_dir: nothing saved)"
    if run and not useless:
        folder = str(run.folder)
        ways = f"Trainer.resume({folder!r}), or train --resume {folder}"
        where = f", saved in {folder}; go on with {ways}"
    return f"stopped after step {step}{where}"


def resumed(
    step: int, end: int, before: TrainConfig, config: TrainConfig, schedule: str
) -> str | None:
    """What changes in a run that stands at `step` and ends at `end`, if there is a thing to say.

    `schedule` says what that means for the learning rate: see `resumed_rounds`.
    """
    if changed := changes(before, config):
        return f"from step {step} on: {', '.join(changed)}{schedule}"
    if step >= end:
        return f"step {step} is the last of the run; a larger max_steps makes it longer"
    return None
