"""One training of a study, and the rows that are written down of it."""

import math
from dataclasses import replace

import torch

from ..benchmark import machine
from ..errors import NonFiniteError
from ..measure import (
    RoutingReport,
    count_parameters,
    flops_per_token,
    measure_heads,
    routing_over_training,
    token_labels,
)
from ..runtime import code_version, one_thread
from ..tables import Row
from ..training import ExpertHooks, Trainer, write_samples
from .plan import Trial
from .protocol import Study
from .records import EVALUATIONS, EXPERTS, fingerprint

HEAD_TOKENS = 1 << 15  # of the validation split, on which attention heads are measured
TEXTS, LENGTH = 2, 80  # written with the last weights; tokens of each
DIGITS = 5  # behind the point, of what is measured


class Watched(ExpertHooks):
    """Keeps all that the routers do at each evaluation."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.reports: dict[int, RoutingReport] = {}

    def report(self, step: int) -> RoutingReport:
        """What the routers do at this step, kept."""
        self.reports[step] = found = super().report(step)
        return found


def make_trainer(study: Study, trial: Trial) -> Trainer:
    """The trainer of a trial. With the same seed all arms see the same batches."""
    design, corpus = study.design, study.corpus
    recipe = trial.arm.recipe(design.train)
    config = replace(
        recipe,
        max_steps=trial.updates,
        lr=trial.lr_factor * recipe.lr,
        muon_lr=trial.lr_factor * recipe.muon_lr,
        eval_interval=max(1, trial.updates // trial.looks),
        max_eval_tokens=None,
        seed=trial.seed,
        device=str(study.device),
        compile=study.compile,
    )
    torch.manual_seed(trial.seed)
    shape = replace(design.model, vocab_size=corpus.tokenizer.vocab_size)
    trainer = Trainer(trial.arm.build(shape), corpus, config)
    if trial.arm.moe:
        trainer.hooks = Watched(trainer.model, trainer.hooks.tokens, config, None)
    return trainer


def train(study: Study, trial: Trial, progress: bool) -> Trainer:
    """Train to the end, also past the turn of the validation loss; on a CPU in one thread.

    A training that diverges stops there: it has no finite losses after its last update.
    """
    trainer = make_trainer(study, trial)
    with one_thread(trainer.device.type == "cpu"):
        try:
            trainer.fit(progress)
        except NonFiniteError as error:
            print(error, flush=True)
    return trainer


def run_row(study: Study, trial: Trial, trainer: Trainer) -> Row:
    """What a run is, costs and has come to; its losses are infinite if it diverged."""
    parameters, tokens = count_parameters(trainer.model), trial.updates * trainer.tokens_per_step
    last, best = trainer.metrics.rows[-1], trainer.best_val_loss
    val, train = last["val_lm_loss"], last["train_lm_loss"]
    if last["step"] < trial.updates or not math.isfinite(val + train):
        best = val = train = math.inf
    return {
        "recipe": fingerprint(trial.arm, study.design),
        "lr_factor": trial.lr_factor,
        "updates": trial.updates,
        "tokens": tokens,
        "flops": tokens * flops_per_token(trainer.model),
        "total_parameters": parameters.total,
        "active_parameters": parameters.active,
        "val_loss": round(val, DIGITS),
        "train_loss": round(train, DIGITS),
        "load_cv": round(last["load_cv"], DIGITS),
        "best_val_loss": round(best, DIGITS),
        "best_step": trainer.best_step,
        **place(trainer.device),
    }


def place(device: torch.device) -> Row:
    """Which code is at work, and where."""
    versions = {"commit": code_version(), "torch": torch.__version__}
    return versions | {"device": device.type} | machine(device)


def evaluation_rows(trainer: Trainer) -> list[Row]:
    """A row for each evaluation in the log."""
    log, flops = trainer.metrics.frame(), flops_per_token(trainer.model)
    log["tokens"] = log["step"] * trainer.tokens_per_step
    log["flops"] = log["tokens"] * flops
    log = log.rename(columns={"val_lm_loss": "val_loss", "train_lm_loss": "train_loss"})
    return _rounded(log[[name for name in EVALUATIONS if name in log]].to_dict("records"))


def head_rows(trainer: Trainer) -> list[Row]:
    """A row for each attention head of the last weights."""
    corpus = trainer.corpus
    with one_thread(trainer.device.type == "cpu"):
        heads = measure_heads(trainer.model, corpus.val, corpus.tokenizer, HEAD_TOKENS)
    return _rounded(heads.to_dict("records"))


def expert_rows(trainer: Trainer) -> list[Row]:
    """A row for each evaluation and layer with experts; none of a dense model."""
    if not isinstance(trainer.hooks, Watched):
        return []
    labels = token_labels(trainer.model, trainer.corpus)
    unknown = {"style_nats": math.nan, "style_share": math.nan}  # where the text has no styles
    rows = routing_over_training(trainer.hooks.reports, labels)
    return _rounded([unknown | {k: row[k] for k in EXPERTS if k in row} for row in rows])


def sample_rows(trainer: Trainer) -> list[Row]:
    """A row for each text that the last weights write from a fixed prompt of the corpus."""
    with one_thread(trainer.device.type == "cpu"):
        written = write_samples(trainer.model, trainer.corpus.name, TEXTS, LENGTH)["samples"]
    return [{"prompt": text["prompt"], "text": text["text"]} for text in written]


def _rounded(rows: list[Row]) -> list[Row]:
    return [
        {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in row.items()} for row in rows
    ]
