"""What experts cost: in all, by the way of dispatch, and part by part."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor, nn

from ..config import ModelConfig, MoEConfig, TrainConfig
from ..model import TinyGPT
from ..presets import PRESETS
from ..runtime import autocast, pick_device
from ..tables import Row
from ..training import make_optimizers
from .report import Report, settings
from .timing import stepper, take_turns

Run = Callable[[], None]

EXPERTS = (4, 16, 64)
TOKENS = (512, 2_048, 8_192, 32_768)
ARMS = {way: MoEConfig(dispatch=way) for way in ("auto", "split", "grouped_mm", "loop")}
ARMS["even_load"] = MoEConfig(forced_balance=True)
QUARTERS = torch.tensor([0.25, 0.5, 0.75])
NOTES = [
    "dense_ms: the dense model with the same active parameters, its median. All other figures are",
    "medians of the ratios to it that the rounds have, each round its own.",
    "auto to even_load: the whole by the way of dispatch, and auto with experts that take turns;",
    "from, to: the middle half of auto's rounds. router to rest: what makes auto more than 1, each",
    "part timed on its own, products and optimizer less the dense model's; rest: what they leave.",
]


def moe_speed(rounds: int = 20, device: str = "auto") -> Report:
    """The time of a training step and a forward pass with experts, top-1, over that of the dense
    model with the same active parameters: each expert is as wide as the dense layer.

    On a CPU the model of notebook 04, on CUDA one of GPT-2's width in bf16. Beyond 4,096 tokens
    there are fewer rounds.
    """
    where, shape, rows = pick_device(device), PRESETS["tiny"].model, []
    if where.type == "cuda":
        shape = ModelConfig(block_size=1024, n_layer=2, n_head=12, n_embd=768)
    for n_experts, tokens, training in product(EXPERTS, TOKENS, (True, False)):
        T = min(tokens, shape.block_size)
        x, y = torch.randint(shape.vocab_size, (2, tokens // T, T), device=where)
        runs = (_training if training else _forward)(_models(shape, n_experts, where), x, y)
        few = min(rounds, max(3, rounds * 4_096 // tokens))
        seconds = take_turns(runs, few, warm_up=max(1, few // 5))
        kind = "training" if training else "forward"
        case = {"experts": n_experts, "tokens": tokens, "pass": kind, "rounds": few}
        rows.append(case | _figures(seconds, shape.n_layer))
    return Report(f"experts, top-1, {settings(where)}", rows, NOTES)


def _models(shape: ModelConfig, n_experts: int, device: torch.device) -> dict[str, TinyGPT]:
    configs = {"dense": shape}
    for name, moe in ARMS.items():
        configs[name] = replace(shape, moe=replace(moe, n_experts=n_experts))
    return {name: TinyGPT(config).to(device) for name, config in configs.items()}


def _training(models: dict[str, TinyGPT], x: Tensor, y: Tensor) -> dict[str, Run]:
    """A training step of each model; the parts, forward and back; the updates."""

    def step(model: TinyGPT) -> Run:
        return stepper(model, lambda: model(x, y), make_optimizers(model, TrainConfig()), 1.0)

    runs = {f"{name}_update": _update(models[name]) for name in ("dense", "auto")}
    for name, (part, module, inputs) in _parts(models, x).items():
        runs[name] = _forward_and_back(part, module, inputs)
    return runs | {name: step(model.train()) for name, model in models.items()}


def _forward(models: dict[str, TinyGPT], x: Tensor, y: Tensor) -> dict[str, Run]:
    """A forward pass of each model, and of the parts."""

    def forward(part: Callable, inputs: list[Tensor]) -> Run:
        def run() -> None:
            with torch.no_grad(), autocast(x.device):
                part(*inputs)

        return run

    runs = {name: forward(part, inputs) for name, (part, _, inputs) in _parts(models, x).items()}
    return runs | {name: forward(model.eval(), [x]) for name, model in models.items()}


def _parts(models: dict[str, TinyGPT], idx: Tensor) -> dict[str, tuple]:
    """The first layer's parts, and the dense layer that its experts stand for: what is called, the
    module whose parameters it uses, and on what it is called."""
    block, mlp = models["auto"].blocks[0], models["dense"].blocks[0].ffn
    router, experts = block.ffn.router, block.ffn.experts
    with torch.no_grad(), autocast(idx.device):
        x = block.ln_2(models["auto"].wte(idx))  # (B, T, C)
        routing = router(x)
        flat, choices, weights = (t.flatten(0, 1) for t in (x, routing.experts, routing.weights))
        rows, chosen, order, counts = experts.gather(flat, choices)
        made = experts.products(rows, chosen, counts)
    return {
        "mlp": (mlp, mlp, [x]),
        "router": (lambda x: router(x).weights, router, [x]),
        "gather": (lambda x: experts.gather(x, choices)[0], None, [flat]),
        "products": (lambda rows: experts.products(rows, chosen, counts), experts, [rows]),
        "combine": (lambda rows, w: experts.combine(rows, order, w), None, [made, weights]),
    }


def _forward_and_back(part: Callable, module: nn.Module | None, inputs: list[Tensor]) -> Run:
    inputs = [x.detach().requires_grad_() for x in inputs]
    leaves = [*inputs, *(module.parameters() if module else ())]
    gradient = torch.ones_like(part(*inputs))

    def run() -> None:
        with autocast(gradient.device):
            out = part(*inputs)
        torch.autograd.grad(out, leaves, gradient.to(out.dtype))

    return run


def _update(model: TinyGPT) -> Run:
    """Clipping and the optimizer's step, for a copy that keeps its gradients."""
    model = copy.deepcopy(model)
    optimizers = make_optimizers(model, TrainConfig())
    for p in model.parameters():
        p.grad = torch.randn_like(p)

    def run() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()

    return run


def _figures(seconds: dict[str, list[float]], n_layer: int) -> Row:
    """Medians of the rounds' ratios to the dense model; the parts are those of all layers."""
    s = {name: torch.tensor(values) for name, values in seconds.items()}
    low, auto, high = (s["auto"] / s["dense"]).quantile(QUARTERS).tolist()
    row = {"dense_ms": 1e3 * s["dense"].quantile(0.5).item(), "auto": auto, "from": low, "to": high}
    more = {name: s[name] for name in ARMS if name != "auto"}
    more |= {name: n_layer * s[name] for name in ("router", "gather", "combine")}
    more["products"] = n_layer * (s["products"] - s["mlp"])
    if "auto_update" in s:
        more["optimizer"] = s["auto_update"] - s["dense_update"]
    row |= {name: (values / s["dense"]).quantile(0.5).item() for name, values in more.items()}
    named = [name for name in more if name not in ARMS]
    return row | {"rest": auto - 1 - sum(row[name] for name in named)}
