"""What experts need of a training: biases moved after each update, tables kept of evaluations."""

import torch
from torch import Tensor

from ..config import TrainConfig
from ..measure import RoutingReport, measure_routing
from ..model import TinyGPT, rebalance
from .run import Run

LARGEST = 1 << 20  # numbers in a table that is kept


class Hooks:
    """What a training calls after an update and at an evaluation. Here: nothing, as dense models
    need."""

    def __init__(self):
        self.tables: dict[int, Tensor] = {}  # step: (layers, V, E)

    def after_update(self, loads: list[Tensor | None]) -> None:
        """The weights have moved; `loads` are the `expert_load` of each forward pass before."""

    def at_evaluation(self, step: int) -> dict[str, float]:
        """The losses have been measured; gives further columns of the log."""
        return {}


class ExpertHooks(Hooks):
    """Balances a model's experts, and keeps a table of how they share the symbols of a split, if
    it is not large: with tens of thousands of tokens each would take more than the weights."""

    def __init__(self, model: TinyGPT, tokens: Tensor, config: TrainConfig, run: Run | None):
        super().__init__()
        self.model, self.tokens, self.run = model, tokens, run
        self.limit, self.precision = config.max_eval_tokens, config.precision
        if run:
            self.tables = run.load_tables()

    def after_update(self, loads: list[Tensor]) -> None:
        """Move the biases once, by the choices of all forward passes of the update, `(L, E)`."""
        rebalance(self.model, torch.stack(loads).sum(0))

    def at_evaluation(self, step: int) -> dict[str, float]:
        """How the experts share the work; a small table of the step is kept and saved."""
        report = self.report(step)
        if report.tables.numel() <= LARGEST:
            self.tables[step] = report.tables
            if self.run:
                self.run.save_tables(self.tables)
        means = {k: getattr(report, k).mean().item() for k in ("balance_loss", "z_loss")}
        return {"load_cv": report.load_cv, **means}

    def report(self, step: int) -> RoutingReport:
        """What the routers do at this step with the tokens that evaluations read."""
        return measure_routing(self.model, self.tokens, self.limit, self.precision)


def hooks_for(model: TinyGPT, tokens: Tensor, config: TrainConfig, run: Run | None = None) -> Hooks:
    """The hooks that a model needs; `tokens` is the split that it is evaluated on."""
    return ExpertHooks(model, tokens, config, run) if model.config.moe else Hooks()
