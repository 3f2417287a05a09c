"""The training loop: updates, evaluations, checkpoints; it stops cleanly and resumes exactly."""

import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from ..config import TrainConfig, to_dict
from ..console import waiting
from ..corpora import Corpus
from ..errors import NonFiniteError
from ..measure import evaluate
from ..model import TinyGPT
from ..ranks import join
from ..runtime import computes_in, one_thread, peak_memory
from .checkpoint import Checkpoint
from .evaluation import Losses, best_model, measure_both
from .hooks import hooks_for
from .log import MetricsLogger
from .pace import Pace, Stretch
from .preflight import (
    identity,
    is_small,
    settings_of,
    to_go_on_with,
    tokens_seen,
    updates,
    used_before,
)
from .products import forget_others, keep_weights, tell
from .rounds import resumed_rounds, to_numbers
from .run import Run
from .samples import write_sample
from .show import progress_bar, say
from .signals import act_on, noted_signals
from .state import LATER, STATE, restore_training, training_tensors
from .updater import Updater
from .words import resumed, stopped

LONG = 200_000  # tokens that take so long to read that it is said before


class Trainer(Updater):
    """Trains a `TinyGPT` on a `Corpus`.

    >>> trainer = Trainer(model, corpus, TrainConfig(max_steps=500), out_dir="mine")
    >>> metrics = trainer.fit()                       # later: Trainer.resume("mine").fit()

    `out_dir` is a name under checkpoints/ or a path; without one nothing is written. `fit` leaves
    the model in eval mode with its last weights; `load_run` gives the best ones. Of a model with
    experts, `expert_tables[step]` says how often each symbol of a small vocabulary went to each
    expert. How an update is made, `Updater` shows.

    Evaluations read the same part of each split every time, `max_eval_tokens` spread over it:
    `best_step`, `best_val_loss` and patience compare those losses with each other and with nothing
    else. What a run has come to is told by the whole validation split, read once at its end:
    `whole_val_lm_loss[step]` is the loss of the last weights, and of the best if they were saved.

    Started by torchrun, several processes make one such training: call the same in all. The first
    of them writes and prints.
    """

    def __init__(
        self,
        model: TinyGPT,
        corpus: Corpus,
        config: TrainConfig | None = None,
        out_dir: str | Path | None = None,
        *,
        run: Run | None = None,  # these two are given by `resume`
        saved: Checkpoint | None = None,
    ):
        super().__init__(model, corpus, config or TrainConfig())
        config, ranks = self.config, self.ranks
        self.corpus, self.corpus_identity = corpus, identity(corpus)
        model.tokenizer = corpus.tokenizer
        self.best_step = self.bad_evaluations = 0
        self.best_val_loss = math.inf
        self.useless: int | None = None  # the step at which an evaluation gave no finite loss
        self.whole_val_lm_loss: dict[int, float] = {}  # by the step of the weights
        self.samples: list[tuple[int, str]] = []  # with their steps
        self.seconds, self.pace = 0.0, Pace()
        self.run = run if out_dir is None else ranks.once(lambda: Run.claim(out_dir))
        self.metrics = MetricsLogger()
        if ranks.first:
            about = {"model": to_dict(model.config), "train": to_dict(config)}
            about["corpus"] = corpus.name
            self.metrics = MetricsLogger(self.run and self.run.log, config.log, about)
        if saved:
            self._restore(saved)
        if self.run and ranks.first:  # what the experts do is kept there
            self.hooks = hooks_for(model, self._val, config, self.run)

    @classmethod
    def resume(
        cls,
        run: str | Path,
        corpus: Corpus | str | None = None,
        config: TrainConfig | None = None,
        which: str = "latest",
    ) -> "Trainer":
        """Go on from the newest whole checkpoint of a run, exactly where it stopped; from another
        with `which`, see `Run.load`: what the run did after that is removed.

        `corpus`, which may be a name, and `config` replace those that the run used (a longer
        `max_steps`, say); what that changes is printed. The learning rate never jumps by it: see
        `rounds.py`. Raises `CheckpointError` when the run or its corpus does not fit, or is being
        trained.
        """
        opened = Run.open(run)
        opened.check_trainable()
        with opened.writing_together(join()):
            saved = opened.load(which)
            corpus, config = to_go_on_with(opened.folder, saved, corpus, config)
            return cls(saved.model, corpus, config, run=opened, saved=saved)

    @property
    def expert_tables(self) -> dict[int, Tensor]:
        """How often each symbol of the validation split went to each expert, by step."""
        return self.hooks.tables

    def fit(self, progress: bool = True) -> MetricsLogger:
        """Train to the end (or until patience runs out), evaluating and saving on the way.

        Ctrl-C and SIGTERM end the current update (in all processes, if one gets the signal), save a
        checkpoint and then raise `KeyboardInterrupt` or `SystemExit`. Raises `NonFiniteError`
        before an update that would ruin the weights (where updates are recorded, one after it), and
        instead of saving what is ruined; `CheckpointError` if somebody else trains in the folder;
        `GroupError` if another process has gone.
        """
        alone = self.run.writing_together(self.ranks) if self.run else nullcontext()
        with self.ranks.watching(), alone, one_thread(is_small(self.model, self.config)):
            try:
                signal = self._loop(progress)
            finally:
                self._forget_recording()
                self.metrics.finish()
        self.model.eval()
        if signal:
            self._say(stopped(self.step, self.run, self.useless == self.step))
            act_on(signal)
        return self.metrics

    def _loop(self, progress: bool) -> int:
        """The loop; gives the signal that ended it, or 0."""
        bar = progress_bar(self.max_steps, self.step, progress and self.ranks.first)
        with noted_signals() as caught, bar:
            if not self._evaluated():
                torch.manual_seed(self.config.seed)  # dropout
                self._evaluate(tokens_per_s=math.nan)
            stretch = Stretch(self.step, self.tokens_per_step)
            while not (self._is_done() or self._signal(caught)):
                with self.pace.update():
                    loss = self.train_step()
                speed = stretch.tokens_per_s(self.step)
                bar.update()
                bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
                if self.step % self.config.eval_interval == 0 or self.step == self.max_steps:
                    self._settle()
                    self.seconds += stretch.seconds()
                    self._evaluate(speed)
                    stretch = Stretch(self.step, self.tokens_per_step)
            if self._signal(caught):
                self._settle()
                self.seconds += stretch.seconds()
                self._save()
                if self.run:
                    self.ranks.once(lambda: keep_weights(self.run, self.best_step))
            elif self.useless == self.step:
                raise self._ruined(f"no finite loss at step {self.step}, which was not saved")
            else:
                self._conclude()
                if self.run:
                    self.ranks.once(self._tell)
        return self._signal(caught)

    def _is_done(self) -> bool:
        patience = self.config.patience
        given_up = patience is not None and self.bad_evaluations >= patience
        return self.step >= self.max_steps or given_up

    def _signal(self, caught: list[int]) -> int:
        """What a process was told to end by, agreed on by all; 0: nothing."""
        return self.ranks.largest(caught[0] if caught else 0)

    def _conclude(self) -> None:
        """Measure the last and the best weights on the whole validation split."""
        if len(self._val) > LONG:
            self._say(f"measuring on the whole validation split: {len(self._val):,} tokens")
        models = {self.step: self.model}
        if self.run and self.best_step != self.step:
            models[self.best_step] = best_model(self.run, self.best_step, self.device, self._say)
        for step, model in sorted(models.items()):
            if model:
                self.whole_val_lm_loss[step] = loss = self._loss(model, self._val, None)
                self.metrics.amend(step, whole_val_lm_loss=loss)

    def _tell(self) -> None:
        """Leave in the run's folder what can be read and shown of it: see `products.py`."""
        speed = self.pace.tokens_per_s(self.tokens_per_step)
        measured = {"tokens_per_s": speed, **peak_memory(self.device)}
        half = computes_in(self.device, self.config.precision)
        loss = None if half else self.whole_val_lm_loss.get(self.best_step)
        with waiting("writing the run's summary, texts and curves"):
            tell(self.run, self.best_step, self.corpus, self.device, self.metrics, measured, loss)

    def _evaluate(self, tokens_per_s: float) -> None:
        """Measure both splits alike; log, save, and only then show."""
        start = time.perf_counter()
        limit = self.config.max_eval_tokens
        losses = measure_both(self._loss, self.model, self._train, self._val, limit)
        self._judge(losses)
        try:
            more = losses.columns(self.corpus) | self.hooks.at_evaluation(self.step)
            self.seconds += time.perf_counter() - start
            self._log(tokens_per_s, more)
        finally:  # also when the log cannot be written
            self._save()
        self._sample()

    def _loss(self, model: TinyGPT, tokens: Tensor, limit: int | None) -> float:
        return evaluate(model, tokens, limit, self.config.precision, self.ranks)

    def _judge(self, losses: Losses) -> None:
        """Note whether the weights are the best so far, and whether they are of any use."""
        if losses.val < self.best_val_loss:
            self.best_val_loss, self.best_step, self.bad_evaluations = losses.val, self.step, 0
        else:
            self.bad_evaluations += 1
        if self.step and not losses.finite:
            self.useless = self.step

    def _evaluated(self) -> bool:
        """Whether there has been an evaluation: each makes a best loss, or counts as a bad one."""
        return self.best_val_loss < math.inf or self.bad_evaluations > 0

    def _log(self, tokens_per_s: float, more: dict[str, float]) -> None:
        self.metrics.log(
            step=self.step,
            epoch=self.tokens_seen / len(self._train),
            lr=float(self.optimizers[0].param_groups[0]["lr"]) if self.step else 0.0,
            grad_norm=self.grad_norm,
            tokens_per_s=tokens_per_s,
            peak_gpu_gb=peak_memory(self.device).get("peak_gpu_gb", 0.0),
            seconds=self.seconds,
            **more,
        )

    def _sample(self) -> None:
        if not self.config.sample_tokens or self.useless == self.step:
            return
        start = time.perf_counter()
        with self.engine.gathered():
            text = write_sample(self.model, self.config, self.step)
        self.samples.append((self.step, text))
        self._say(f"--- step {self.step}\n{text.strip()}\n")
        self.seconds += time.perf_counter() - start

    def _say(self, text: str) -> None:
        if self.ranks.first:
            say(text)

    def _save(self) -> None:
        if self.run is None:
            return
        if self.useless == self.step:
            self._say(f"step {self.step} has no finite loss; its weights are not saved")
            return
        numbers = {name: getattr(self, name) for name in (*STATE, *LATER)}
        checkpoint = Checkpoint(
            self.model,
            self.corpus.tokenizer,
            settings_of(self.config, self.corpus_identity, self.device),
            training_tensors(self.optimizers, self.batches, self.device),
            numbers | {"rounds": to_numbers(self.rounds)},
        )
        try:
            self.run.save(self.step, checkpoint, self.config.keep_last, self.ranks)
        except NonFiniteError as error:
            raise self._ruined(f"at step {self.step} {error}") from error

    def _restore(self, saved: Checkpoint) -> None:
        for name in STATE:
            setattr(self, name, saved.state[name])
        before, _ = used_before(self.run.folder, saved)
        self.tokens_seen = tokens_seen(saved.state, self.model, before)
        counted = self.config, self.step, self.tokens_seen
        self.max_steps = updates(self.model, self.corpus, *counted)
        ends = updates(self.model, self.corpus, before), self.max_steps
        self.rounds, schedule = resumed_rounds(saved.state, before, self.config, *ends)
        restore_training(saved.training, self.optimizers, self.batches, self.device)
        if before.max_eval_tokens != self.config.max_eval_tokens:
            self._compare_anew()
        self.ranks.once(self._forget_later)
        if changed := resumed(self.step, self.max_steps, before, self.config, schedule):
            self._say(changed)

    def _forget_later(self) -> None:
        self.run.forget_after(self.step)
        self.run.keep(self.config.keep_last, self.best_step)
        forget_others(self.run, self.best_step)
        self.metrics.truncate(self.step)

    def _compare_anew(self) -> None:
        """Measure the best weights on the part that is read from here on, as others will be."""
        if self.best_val_loss == math.inf:
            return
        best = best_model(self.run, self.best_step, self.device, self._say)
        limit = self.config.max_eval_tokens
        # without it the next evaluation makes the best
        self.best_val_loss = self._loss(best, self._val, limit) if best else math.inf
