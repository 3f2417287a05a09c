"""One update of a model: a batch, its gradients, new weights; float32 on a CPU, bf16 on CUDA."""

import math

import torch
from torch import Tensor

from ..config import TrainConfig
from ..corpora import Batches, Corpus
from ..errors import NonFiniteError
from ..model import TinyGPT
from ..ranks import join, whole
from ..runtime import autocast, pick_device
from .hooks import hooks_for
from .optim import make_optimizers, set_lr
from .parallel import engine_for
from .preflight import check_fit, tokens_per_step, updates
from .recorded import Batch, RecordedUpdate, can_record
from .rounds import factor_at, first_round
from .run import Run
from .words import ruined


class Updater:
    """Makes the updates of a `TinyGPT` on the train split of a `Corpus`, one by one.

    >>> updater = Updater(model, corpus, TrainConfig())
    >>> losses = [updater.train_step() for _ in range(10)]

    Batches are random windows of the split, so an epoch is as many updates as show the model as
    many tokens as the split has. With experts, their biases move after each update.

    Several processes make each update together (`config.strategy`), each with its share of every
    batch: call the same in all.
    """

    def __init__(self, model: TinyGPT, corpus: Corpus, config: TrainConfig):
        self.config = config
        self.ranks = ranks = join()
        check_fit(model, corpus, config)
        self.device = pick_device(config.device)
        self.model = model.to(self.device)
        self.engine = engine_for(model, config, ranks)
        self._forward = self.engine.forward()
        # on a GPU all tokens live there, so that no loader stands in the way
        resident = self.device if self.device.type == "cuda" else "cpu"
        self._train, self._val = corpus.train.to(resident), corpus.val.to(resident)
        windows, share = (config.batch_size, model.config.block_size), (ranks.rank, ranks.world)
        self.batches = Batches(self._train, *windows, config.seed, *share)
        self.tokens_per_step = tokens_per_step(model, config)
        self.max_steps = updates(model, corpus, config)
        self.rounds = first_round(self.max_steps, config)
        self.optimizers = make_optimizers(model, config)
        self.hooks = hooks_for(model, self._val, config)
        self.step = self.tokens_seen = 0
        self.loss = self.grad_norm = math.nan  # of the last batch that was looked at
        self.run: Run | None = None  # where an error says that checkpoints are
        self.recorded = None
        if self.engine.recordable and can_record(model, config.precision):
            self.recorded = RecordedUpdate(self._update)

    def train_step(self) -> float:
        """One update; returns the cross-entropy of its batch in nats per token.

        On a GPU it is only started, and the loss is that of the update before: see `recorded.py`.
        `NonFiniteError` if it would ruin the weights or, where it was only started, has.
        """
        set_lr(self.optimizers, factor_at(self.rounds, self.step))
        self.model.train()
        if self.ranks.world > 1:
            torch.manual_seed(self.ranks.seed(self.config.seed, self.step))
        batches = [self.batches.draw() for _ in range(self.config.grad_accum_steps)]
        if self.recorded:
            self._look(self.recorded.start(batches))
        else:
            numbers, loads = self._backward(batches)
            self._look([numbers.tolist()])
            self._move(loads)
        self.step, self.tokens_seen = self.step + 1, self.tokens_seen + self.tokens_per_step
        return self.loss

    def _update(self, batches: list[Batch]) -> Tensor:
        """An update as a GPU makes it, without a look at the numbers that it gives, `(2,)`."""
        numbers, loads = self._backward(batches)
        self._move(loads)
        return numbers

    def _backward(self, batches: list[Batch]) -> tuple[Tensor, list[Tensor | None]]:
        """Gradients of the mean over all batches, clipped; loss and norm `(2,)`, and loads."""
        config, total, loads = self.config, torch.zeros((), device=self.device), []
        for optimizer in self.optimizers:  # of the model they may be gathered copies (FSDP2)
            optimizer.zero_grad()  # also of what was left by somebody else
        for i, (x, y) in enumerate(batches, 1):
            with self.engine.adding(last=i == len(batches)):
                with autocast(self.device, config.precision):
                    out = self._forward(x.to(self.device), y.to(self.device))
                (out.loss / len(batches)).backward()
            total += out.lm_loss.detach() / len(batches)
            loads.append(out.expert_load)
        limit = config.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return torch.stack([total, whole(norm)]), loads

    def _move(self, loads: list[Tensor | None]) -> None:
        for optimizer in self.optimizers:
            optimizer.step()
        self.hooks.after_update(loads)

    def _look(self, updates: list[list[float]]) -> None:
        """Keep a batch's loss and gradient norm; `NonFiniteError` if they are not finite.

        Then the weights are not ruined yet or, if the update was recorded, not saved yet.
        """
        for self.loss, self.grad_norm in updates:
            if not math.isfinite(self.loss + self.grad_norm):
                numbers = f"loss {self.loss} and gradient norm {self.grad_norm}"
                step, what = self.step, "the update was not made"
                if self.recorded:  # they are of the update before
                    step, what = self.step - 1, "nothing was saved of it"
                raise self._ruined(f"{numbers} at step {step}; {what}")

    def _settle(self) -> None:
        """Look at what is still on its way, before the weights are used."""
        if self.recorded:
            self._look(self.recorded.settle())

    def _forget_recording(self) -> None:
        """Give back the memory of a recorded update, in which its gradients lie, too."""
        if self.recorded:
            self.recorded.forget()
            self.model.zero_grad()

    def _ruined(self, what: str) -> NonFiniteError:
        return ruined(what, self.run, self.config)
