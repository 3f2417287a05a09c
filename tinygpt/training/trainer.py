"""The training loop: float32 on a CPU, bf16 on CUDA; stops cleanly, resumes exactly."""

import hashlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..config import TrainConfig, from_dict, to_dict
from ..decoding import generate
from ..errors import CheckpointError, ConfigError, NonFiniteError
from ..files import ROOT, sweep_temporaries
from ..measure import EVAL_TOKENS, evaluate, measure_routing
from ..model import TinyGPT, rebalance
from ..runtime import autocast, pick_device
from ..text import Corpus, check_tokens, get_batch, load_corpus
from .checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    random_states,
    restore_optimizers,
    restore_random_states,
    save_checkpoint,
)
from .log import MetricsLogger
from .optim import lr_factor, make_optimizers, set_lr
from .run import (
    _claim,
    checkpoints,
    find_run,
    latest_checkpoint,
    load_expert_tables,
    remove_later,
    remove_old,
    save_expert_tables,
    step_folder,
)


class Trainer:
    """Trains a `TinyGPT` on a `Corpus`.

    >>> trainer = Trainer(model, corpus, TrainConfig(max_steps=500), out_dir="checkpoints/mine")
    >>> metrics = trainer.fit()                       # later: Trainer.resume("mine").fit()

    Batches are random windows of the train split, so an epoch is as many updates as show the
    model as many tokens as the split has. Without `out_dir` nothing is written. `fit` leaves the
    model in eval mode with its last weights; `load_run` gives the best ones. Of a model with
    experts, `expert_tables[step]` says how often each symbol went to each expert.
    """

    def __init__(
        self,
        model: TinyGPT,
        corpus: Corpus,
        config: TrainConfig | None = None,
        out_dir: str | Path | None = None,
        *,
        saved: Checkpoint | None = None,
    ):
        self.config = config = config or TrainConfig()
        self.corpus = corpus
        self.out_dir = ROOT / Path(out_dir).expanduser() if out_dir else None
        if self.out_dir and not saved:
            _claim(self.out_dir)
        _check_fit(model, corpus, config)
        self.device = pick_device(config.device)
        self.model = model.to(self.device)
        model.tokenizer = self.corpus.tokenizer
        self._forward = torch.compile(model) if config.compile else model
        # on a GPU all tokens live there, so that no loader stands in the way
        resident = self.device if self.device.type == "cuda" else "cpu"
        self._train, self._val = corpus.train.to(resident), corpus.val.to(resident)
        self.corpus_identity = _identity(corpus)
        self.tokens_per_step = config.batch_size * config.grad_accum_steps * model.config.block_size
        self.max_steps = config.max_steps
        if config.epochs is not None:
            self.max_steps = math.ceil(config.epochs * len(corpus.train) / self.tokens_per_step)
        self.optimizers = make_optimizers(model, config)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.metrics = MetricsLogger(
            self.out_dir and self.out_dir / "metrics.csv", config.tensorboard, config.wandb
        )
        self.samples: list[tuple[int, str]] = []
        self.expert_tables: dict[int, torch.Tensor] = {}  # step: (layers, V, E)
        self.step = self.best_step = self.bad_evaluations = 0
        self.best_val_loss = math.inf
        self.seconds = 0.0
        self.grad_norm = math.nan
        if saved:
            self._restore(saved)

    @classmethod
    def resume(
        cls, run: str | Path, corpus: Corpus | None = None, config: TrainConfig | None = None
    ) -> "Trainer":
        """Go on from the newest whole checkpoint of a run, exactly where it stopped.

        `corpus` and `config` replace those that the run used (a longer `max_steps`, say).
        Raises `CheckpointError` when the run or its corpus does not fit.
        """
        folder = find_run(run)
        sweep_temporaries(folder)
        saved = load_checkpoint(latest_checkpoint(folder))
        before = from_dict(TrainConfig, saved.settings["train"])
        config = config or before
        if config.optimizer != before.optimizer:
            raise CheckpointError(
                f"{folder} was trained with {before.optimizer}; its averages mean nothing to "
                f"{config.optimizer}. Resume with the same optimizer, or start a new run"
            )
        wanted = saved.settings["corpus"]
        corpus = corpus or load_corpus(wanted["name"])
        found = _identity(corpus)
        if found["sha256"] != wanted["sha256"]:
            raise CheckpointError(
                f"{folder} was trained on another text ({wanted}) than the one given ({found})"
            )
        remove_later(folder, saved.state["step"])
        return cls(saved.model, corpus, config, folder, saved=saved)

    def fit(self, progress: bool = True) -> MetricsLogger:
        """Train to the end (or until patience runs out), evaluating and saving on the way.

        Ctrl-C and SIGTERM end the current update, save a checkpoint and then raise
        `KeyboardInterrupt` or `SystemExit`. Raises `NonFiniteError` before an update that would
        ruin the weights.
        """
        from tqdm.auto import tqdm

        bar = tqdm(total=self.max_steps, initial=self.step, unit="step", disable=not progress)
        with _stop_signals() as caught, bar:
            if not self.metrics.rows:
                torch.manual_seed(self.config.seed)  # dropout
                self._evaluate(tokens_per_s=math.nan)
            mark_step, mark_time = self.step, time.perf_counter()
            while self.step < self.max_steps and not caught and not self._out_of_patience():
                loss = self.train_step()
                bar.update()
                speed = self.tokens_per_step * (self.step - mark_step)
                speed /= time.perf_counter() - mark_time
                bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
                if self.step % self.config.eval_interval == 0 or self.step == self.max_steps:
                    self.seconds += time.perf_counter() - mark_time
                    self._evaluate(speed)
                    mark_step, mark_time = self.step, time.perf_counter()
            if caught:
                self.seconds += time.perf_counter() - mark_time
                self._save()
        self.model.eval()
        if caught:
            self._leave(caught[0])
        return self.metrics

    def train_step(self) -> float:
        """One update; returns the cross-entropy of its batch in nats per token."""
        config = self.config
        set_lr(self.optimizers, lr_factor(self.step, self.max_steps, config))
        self.model.train()
        self.model.zero_grad()  # also of what was left by somebody else
        total, load = torch.zeros((), device=self.device), None
        for _ in range(config.grad_accum_steps):
            x, y = get_batch(
                self._train, config.batch_size, self.model.config.block_size, self.generator
            )
            with autocast(self.device, config.precision):
                out = self._forward(x.to(self.device), y.to(self.device))
            # the mean over the whole batch
            (out.loss / config.grad_accum_steps).backward()
            total += out.lm_loss.detach() / config.grad_accum_steps
            if out.expert_load is not None:
                load = out.expert_load if load is None else load + out.expert_load
        limit = config.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        # the one wait for the device: worth it, so that a NaN never reaches the weights
        loss, self.grad_norm = torch.stack([total, norm]).tolist()
        if not math.isfinite(loss + self.grad_norm):
            self._refuse(loss)
        for optimizer in self.optimizers:
            optimizer.step()
        if load is not None:
            rebalance(self.model, load)
        self.step += 1
        return loss

    def _refuse(self, loss: float) -> None:
        saved = checkpoints(self.out_dir)[-1:] if self.out_dir else []
        where = f"; the last checkpoint is {saved[0]}" if saved else ""
        config = self.config
        raise NonFiniteError(
            f"loss {loss} and gradient norm {self.grad_norm} at step {self.step}; the update was "
            f"not made{where}. Lower the learning rate (lr={config.lr}, muon_lr={config.muon_lr}) "
            f"or the gradient limit (grad_clip={config.grad_clip})"
        )

    def _evaluate(self, tokens_per_s: float) -> None:
        """Measure both splits alike, on equally many tokens; log, sample, save."""
        start = time.perf_counter()
        limit, precision = self.config.max_eval_tokens, self.config.precision
        val_loss = evaluate(self.model, self._val, limit, precision)
        train_loss = evaluate(self.model, self._train, limit or len(self._val) - 1, precision)
        if val_loss < self.best_val_loss:
            self.best_val_loss, self.best_step, self.bad_evaluations = val_loss, self.step, 0
        else:
            self.bad_evaluations += 1
        routing = self._routing()
        self._sample()
        self.seconds += time.perf_counter() - start
        cuda = self.device.type == "cuda"
        self.metrics.log(
            step=self.step,
            epoch=self.step * self.tokens_per_step / len(self._train),
            train_lm_loss=train_loss,
            val_lm_loss=val_loss,
            lr=self.optimizers[0].param_groups[0]["lr"] if self.step else 0.0,
            grad_norm=self.grad_norm,
            tokens_per_s=tokens_per_s,
            peak_gpu_gb=torch.cuda.max_memory_allocated(self.device) / 1e9 if cuda else 0.0,
            seconds=self.seconds,
            **routing,
        )
        self._save()

    def _routing(self) -> dict[str, float]:
        """How the experts share the work, as columns of the log; the tables are kept, too."""
        if self.model.config.moe is None:
            return {}
        limit = min(self.config.max_eval_tokens or EVAL_TOKENS, EVAL_TOKENS)
        report = measure_routing(self.model, self._val, limit, self.config.precision)
        self.expert_tables[self.step] = report.tables
        if self.out_dir:
            save_expert_tables(self.out_dir, self.expert_tables)
        means = {k: getattr(report, k).mean().item() for k in ("balance_loss", "z_loss")}
        return {"load_cv": report.load_cv, **means}

    def _sample(self) -> None:
        if not self.config.sample_tokens:
            return
        from tqdm.auto import tqdm

        seed = self.config.seed + self.step
        prompt, count = self.config.sample_prompt, self.config.sample_tokens
        text = generate(self.model, prompt, count, temperature=0.8, seed=seed)
        self.samples.append((self.step, text))
        tqdm.write(f"--- step {self.step}\n{text.strip()}\n")

    def _out_of_patience(self) -> bool:
        return self.config.patience is not None and self.bad_evaluations >= self.config.patience

    def _save(self) -> None:
        if self.out_dir is None or step_folder(self.out_dir, self.step).exists():
            return
        state = {name: getattr(self, name) for name in _STATE}
        random = random_states(self.generator, self.device)
        training = random | optimizer_tensors(self.optimizers)
        settings = {"train": to_dict(self.config), "corpus": self.corpus_identity}
        checkpoint = Checkpoint(self.model, self.corpus.tokenizer, settings, training, state)
        save_checkpoint(step_folder(self.out_dir, self.step), checkpoint)
        remove_old(self.out_dir, self.config.keep_last, self.best_step)

    def _restore(self, saved: Checkpoint) -> None:
        for name in _STATE:
            setattr(self, name, saved.state[name])
        restore_optimizers(self.optimizers, saved.training)
        restore_random_states(saved.training, self.generator, self.device)
        self.metrics.truncate(self.step)
        tables = load_expert_tables(self.out_dir)
        self.expert_tables = {step: t for step, t in tables.items() if step <= self.step}

    def _leave(self, signum: int) -> None:
        saved = f", saved in {self.out_dir}" if self.out_dir else " (no out_dir: nothing saved)"
        resume = f"; go on with Trainer.resume({str(self.out_dir)!r})" if self.out_dir else ""
        print(f"stopped after step {self.step}{saved}{resume}")
        if signum == signal.SIGTERM:
            raise SystemExit(128 + signum)
        raise KeyboardInterrupt


# what a checkpoint says of the run, beside tensors
_STATE = ("step", "best_step", "best_val_loss", "bad_evaluations", "seconds", "grad_norm")


def _check_fit(model: TinyGPT, corpus: Corpus, config: TrainConfig) -> None:
    """What would fail an hour from now fails here."""
    shape, symbols = model.config, corpus.tokenizer.vocab_size
    if symbols != shape.vocab_size:
        raise ConfigError(
            f"the model has vocab_size={shape.vocab_size}, but the corpus {corpus.name} has "
            f"{symbols} symbols; build the model with ModelConfig(vocab_size={symbols})"
        )
    check_tokens(corpus.train, shape.block_size, shape.vocab_size, "train")
    check_tokens(corpus.val, shape.block_size, shape.vocab_size, "validation")
    if config.sample_tokens:
        corpus.tokenizer.encode(config.sample_prompt)


def _identity(corpus: Corpus) -> dict[str, str | int]:
    """What tells one corpus from another, also when both have the same name."""
    digest = hashlib.sha256(corpus.tokenizer.fingerprint.encode())
    for part in (*corpus.train.split(1 << 22), *corpus.val.split(1 << 22)):
        digest.update(part.long().numpy().tobytes())
    return {"name": corpus.name, "tokens": len(corpus.train), "sha256": digest.hexdigest()}


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one acts at once."""
    caught: list[int] = []

    def note(signum: int, frame: object) -> None:
        if caught:
            raise SystemExit(128 + signum) if signum == signal.SIGTERM else KeyboardInterrupt
        caught.append(signum)

    # only the main thread may set handlers; elsewhere signals act as usual
    main = threading.current_thread() is threading.main_thread()
    old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield caught
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
