"""The training loop: float32 on a CPU, bf16 on CUDA; stops cleanly, resumes exactly."""

import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from ..config import TrainConfig, to_dict
from ..corpora import Batches, Corpus, load_corpus
from ..decoding import generate
from ..errors import CheckpointError, NonFiniteError
from ..measure import count_predictions, evaluate
from ..model import TinyGPT
from ..ranks import join, whole
from ..runtime import autocast, one_thread, peak_memory, pick_device, processor
from .checkpoint import Checkpoint, load_checkpoint
from .hooks import hooks_for
from .log import MetricsLogger
from .optim import make_optimizers, set_lr
from .pace import Pace
from .parallel import engine_for
from .preflight import (
    changes,
    check_fit,
    check_goes_on,
    identity,
    is_small,
    tokens_per_step,
    updates,
    used_before,
)
from .products import keep_weights, tell
from .recorded import Batch, RecordedUpdate, can_record
from .rounds import factor_at, first_round, resumed_rounds, to_numbers
from .run import Run
from .show import progress_bar, say
from .signals import act_on, noted_signals
from .state import (
    STATE,
    optimizer_tensors,
    random_states,
    restore_optimizers,
    restore_random_states,
)

LONG = 200_000  # tokens that take so long to read that it is said before


class Trainer:
    """Trains a `TinyGPT` on a `Corpus`.

    >>> trainer = Trainer(model, corpus, TrainConfig(max_steps=500), out_dir="mine")
    >>> metrics = trainer.fit()                       # later: Trainer.resume("mine").fit()

    Batches are random windows of the train split, so an epoch is as many updates as show the
    model as many tokens as the split has. `out_dir` is a name under checkpoints/ or a path; without
    one nothing is written. `fit` leaves the model in eval mode with its last weights; `load_run`
    gives the best ones. Of a model with experts, `expert_tables[step]` says how often each symbol
    of a small vocabulary went to each expert.

    Evaluations read the same part of each split every time, `max_eval_tokens` spread over it:
    `best_step`, `best_val_loss` and patience compare those losses with each other and with nothing
    else. What a run has come to is told by the whole validation split, read once at its end:
    `whole_val_lm_loss[step]` is the loss of the last weights, and of the best if they were saved.

    Started by torchrun, several processes make one such training, each with a share of every batch
    (`config.strategy`): call the same in all. The first of them writes and prints.
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
        self.config = config = config or TrainConfig()
        self.ranks = ranks = join()
        check_fit(model, corpus, config)
        self.corpus, self.corpus_identity = corpus, identity(corpus)
        self.device = pick_device(config.device)
        self.model = model.to(self.device)
        model.tokenizer = corpus.tokenizer
        self.engine = engine_for(model, config, ranks)
        self._forward = self.engine.forward()
        # on a GPU all tokens live there, so that no loader stands in the way
        resident = self.device if self.device.type == "cuda" else "cpu"
        self._train, self._val = corpus.train.to(resident), corpus.val.to(resident)
        block_size = model.config.block_size
        share = (ranks.rank, ranks.world)
        self.batches = Batches(self._train, config.batch_size, block_size, config.seed, *share)
        self.tokens_per_step = tokens_per_step(model, config)
        self.max_steps = updates(model, corpus, config)
        self.rounds = first_round(self.max_steps, config)
        self.optimizers = make_optimizers(model, config)
        self.samples: list[tuple[int, str]] = []
        self.step = self.best_step = self.bad_evaluations = 0
        self.best_val_loss = math.inf
        self.whole_val_lm_loss: dict[int, float] = {}  # by the step of the weights
        self.seconds, self.pace = 0.0, Pace()
        self.loss = self.grad_norm = math.nan  # of the last batch that was looked at
        self.useless: int | None = None  # the step at which an evaluation gave no finite loss
        self.run = run
        if out_dir is not None:
            self.run = ranks.once(lambda: Run.claim(out_dir))
        self.metrics = MetricsLogger()
        if ranks.first:
            about = {"model": to_dict(model.config), "train": to_dict(config)}
            about["corpus"] = corpus.name
            self.metrics = MetricsLogger(self.run and self.run.log, config.log, about)
        if saved:
            self._restore(saved)
        self.hooks = hooks_for(model, self._val, config, self.run if ranks.first else None)
        self.recorded = None
        if self.engine.recordable and can_record(model, config.precision):
            self.recorded = RecordedUpdate(self._update)

    @classmethod
    def resume(
        cls,
        run: str | Path,
        corpus: Corpus | str | None = None,
        config: TrainConfig | None = None,
        which: str = "latest",
    ) -> "Trainer":
        """Go on from the newest whole checkpoint of a run, exactly where it stopped.

        From another with `which`, see `Run.load`; what the run did after that is removed.

        `corpus`, which may be a name, and `config` replace those that the run used (a longer
        `max_steps`, say); what that changes is printed. The learning rate never jumps by it: see
        `rounds.py`. Raises `CheckpointError` when the run or its corpus does not fit, or is being
        trained.
        """
        opened = Run.open(run)
        opened.check_trainable()
        with opened.writing_together(join()):
            saved = opened.load(which)
            before, text = used_before(opened.folder, saved)
            config = config or before
            if not isinstance(corpus, Corpus):
                corpus = load_corpus(corpus or text["name"], saved.tokenizer)
            check_goes_on(opened.folder, saved, corpus, config)
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
            self._say_where_it_stopped()
            act_on(signal)
        return self.metrics

    def _loop(self, progress: bool) -> int:
        """The loop; gives the signal that ended it, or 0."""
        bar = progress_bar(self.max_steps, self.step, progress and self.ranks.first)
        with noted_signals() as caught, bar:
            if not self._evaluated():
                torch.manual_seed(self.config.seed)  # dropout
                self._evaluate(tokens_per_s=math.nan)
            mark_step, mark_time = self.step, time.perf_counter()
            while not (self._is_done() or self._signal(caught)):
                with self.pace.update():
                    loss = self.train_step()
                bar.update()
                speed = self.tokens_per_step * (self.step - mark_step)
                speed /= time.perf_counter() - mark_time
                bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
                if self.step % self.config.eval_interval == 0 or self.step == self.max_steps:
                    self._settle()
                    self.seconds += time.perf_counter() - mark_time
                    self._evaluate(speed)
                    mark_step, mark_time = self.step, time.perf_counter()
            if self._signal(caught):
                self._settle()
                self.seconds += time.perf_counter() - mark_time
                self._save()
                self.ranks.once(lambda: self._tell(ended=False))
            elif self.useless == self.step:
                raise self._ruined(f"no finite loss at step {self.step}, which was not saved")
            else:
                self._conclude()
                self.ranks.once(lambda: self._tell(ended=True))
        return self._signal(caught)

    def _signal(self, caught: list[int]) -> int:
        """What a process was told to end by, agreed on by all; 0: nothing."""
        return self.ranks.largest(caught[0] if caught else 0)

    def train_step(self) -> float:
        """One update; returns the cross-entropy of its batch in nats per token.

        On a GPU it is only started, and the loss is that of the update before: see `recorded.py`.
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
        self.step += 1
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
        saved = self.run.checkpoints()[-1:] if self.run else []
        where = f"; the last checkpoint is {saved[0]}" if saved else ""
        config = self.config
        return NonFiniteError(
            f"{what}{where}. Lower the learning rate (lr={config.lr}, "
            f"muon_lr={config.muon_lr}) or the gradient limit (grad_clip={config.grad_clip})"
        )

    def _evaluate(self, tokens_per_s: float) -> None:
        """Measure both splits alike, on equally many tokens; log, save, and only then show."""
        start = time.perf_counter()
        limit = self.config.max_eval_tokens
        val_loss = self._loss(self.model, self._val, limit)
        val_tokens = count_predictions(self.model, self._val, limit)
        train_loss = self._loss(self.model, self._train, val_tokens)
        if val_loss < self.best_val_loss:
            self.best_val_loss, self.best_step, self.bad_evaluations = val_loss, self.step, 0
        else:
            self.bad_evaluations += 1
        if self.step and not math.isfinite(val_loss + train_loss):
            self.useless = self.step
        try:
            more = {"val_tokens": val_tokens, **self.hooks.at_evaluation(self.step)}
            self.seconds += time.perf_counter() - start
            self._log(train_loss, val_loss, tokens_per_s, more)
        finally:  # also when the log cannot be written
            self._save()
        self._sample()

    def _log(
        self, train_loss: float, val_loss: float, tokens_per_s: float, more: dict[str, float]
    ) -> None:
        cuda = self.device.type == "cuda"
        self.metrics.log(
            step=self.step,
            epoch=self.step * self.tokens_per_step / len(self._train),
            train_lm_loss=train_loss,
            val_lm_loss=val_loss,
            val_bits_per_char=self.corpus.val_size.nats_per_character(val_loss) / math.log(2),
            lr=float(self.optimizers[0].param_groups[0]["lr"]) if self.step else 0.0,
            grad_norm=self.grad_norm,
            tokens_per_s=tokens_per_s,
            peak_gpu_gb=torch.cuda.max_memory_allocated(self.device) / 1e9 if cuda else 0.0,
            seconds=self.seconds,
            **more,
        )

    def _conclude(self) -> None:
        """Measure the last and the best weights on the whole validation split."""
        models = {self.step: self.model}
        if self.run and self.best_step != self.step:
            try:
                models[self.best_step] = self._best_model()
            except CheckpointError as error:
                self._say(f"the best weights, of step {self.best_step}, are lost: {error}")
        if len(self._val) > LONG:
            self._say(f"measuring on the whole validation split: {len(self._val):,} tokens")
        for step, model in sorted(models.items()):
            self.whole_val_lm_loss[step] = loss = self._loss(model, self._val, None)
            self.metrics.amend(step, whole_val_lm_loss=loss)

    def _tell(self, ended: bool) -> None:
        """Leave in the run's folder what can be read and shown of it: see `products.py`."""
        if self.run is None:
            return
        if not ended:
            keep_weights(self.run, self.best_step)
            return
        seconds = self.pace.seconds()  # nan if the run was at its end already
        speed = None if math.isnan(seconds) else self.tokens_per_step / seconds
        measured = {"tokens_per_s": speed, **peak_memory(self.device)}
        in_float32 = self.config.precision == "fp32" or self.device.type == "cpu"
        loss = self.whole_val_lm_loss.get(self.best_step) if in_float32 else None
        tell(self.run, self.best_step, self.corpus, self.device, self.metrics, measured, loss)

    def _compare_anew(self) -> None:
        """Measure the best weights on the part that is read from here on, as others will be."""
        if self.best_val_loss == math.inf:
            return
        try:
            best = self._best_model()
        except CheckpointError as error:
            self._say(f"the best weights, of step {self.best_step}, are lost: {error}")
            self.best_val_loss = math.inf  # the next evaluation makes the best
        else:
            self.best_val_loss = self._loss(best, self._val, self.config.max_eval_tokens)

    def _loss(self, model: TinyGPT, tokens: Tensor, limit: int | None) -> float:
        return evaluate(model, tokens, limit, self.config.precision, self.ranks)

    def _best_model(self) -> TinyGPT:
        saved = load_checkpoint(self.run.step_folder(self.best_step))
        return saved.model.to(self.device)

    def _evaluated(self) -> bool:
        """Whether there has been an evaluation: each makes a best loss, or counts as a bad one."""
        return self.best_val_loss < math.inf or self.bad_evaluations > 0

    def _is_done(self) -> bool:
        patience = self.config.patience
        given_up = patience is not None and self.bad_evaluations >= patience
        return self.step >= self.max_steps or given_up

    def _say(self, text: str) -> None:
        if self.ranks.first:
            say(text)

    def _sample(self) -> None:
        if not self.config.sample_tokens or self.useless == self.step:
            return
        start, seed = time.perf_counter(), self.config.seed + self.step
        prompt, count = self.config.sample_prompt, self.config.sample_tokens
        with self.engine.gathered():
            text = generate(self.model, prompt, count, temperature=0.8, seed=seed)
        self.samples.append((self.step, text))
        self._say(f"--- step {self.step}\n{text.strip()}\n")
        self.seconds += time.perf_counter() - start

    def _save(self) -> None:
        if self.run is None:
            return
        if self.useless == self.step:
            self._say(f"step {self.step} has no finite loss; its weights are not saved")
            return
        random = random_states(self.batches, self.device)
        checkpoint = Checkpoint(
            self.model,
            self.corpus.tokenizer,
            settings={
                "train": to_dict(self.config),
                "corpus": self.corpus_identity,
                "processor": processor(self.device),
            },
            training=random | optimizer_tensors(self.optimizers),
            state={name: getattr(self, name) for name in STATE}
            | {"max_steps": self.max_steps, "rounds": to_numbers(self.rounds)},
        )
        try:
            self.run.save(self.step, checkpoint, self.config.keep_last, self.ranks)
        except NonFiniteError as error:
            raise self._ruined(f"at step {self.step} {error}") from error

    def _restore(self, saved: Checkpoint) -> None:
        for name in STATE:
            setattr(self, name, saved.state[name])
        before, _ = used_before(self.run.folder, saved)
        ends = updates(self.model, self.corpus, before), self.max_steps
        self.rounds, words = resumed_rounds(saved.state, before, self.config, *ends)
        restore_optimizers(self.optimizers, saved.training)
        restore_random_states(saved.training, self.batches, self.device)
        if before.max_eval_tokens != self.config.max_eval_tokens:
            self._compare_anew()
        self.ranks.once(self._forget_later)
        if changed := changes(before, self.config):
            self._say(f"from step {self.step} on: {', '.join(changed)}{words}")
        elif self.step >= self.max_steps:
            last = f"step {self.step} is the last of the run"
            self._say(f"{last}; a larger max_steps makes it longer")

    def _forget_later(self) -> None:
        self.run.forget_after(self.step)
        self.run.keep(self.config.keep_last, self.best_step)
        self.metrics.truncate(self.step)

    def _say_where_it_stopped(self) -> None:
        where = " (no out_dir: nothing saved)"
        if self.run and self.useless != self.step:
            folder = str(self.run.folder)
            ways = f"Trainer.resume({folder!r}), or train --resume {folder}"
            where = f", saved in {folder}; go on with {ways}"
        self._say(f"stopped after step {self.step}{where}")
