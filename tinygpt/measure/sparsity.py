"""Whether a mixture is as sparse as it says: what is computed, what learns, what it takes.

L layers with experts, E experts, K experts per token
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..model import Experts, Router, TinyGPT, evaluating
from ..runtime import autocast
from .loss import split_batches
from .peak import peak_bytes
from .reading import expert_layers
from .routing import dead_experts, max_violation, measure_routing, variation

BATCH = 1 << 11  # tokens whose gradients are taken


def experts_computed(model: TinyGPT, idx: Tensor) -> list[float]:
    """Experts per token that each layer computed for a batch `(B, T)`, to be compared with K.

    Counted by torch's hooks on every matrix product inside the experts, over the products that one
    expert takes for one token: a layer that computes all experts and then keeps K gives E.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_GROUPED)
    with evaluating(model), torch.no_grad(), counter:
        model(idx)
    found, counts = [], counter.get_flop_counts()
    for name, module in model.named_modules():
        if isinstance(module, Experts):
            one = 2 * (module.c_fc.weight[0].numel() + module.c_proj.weight[0].numel())
            flops = sum(counts.get(f"{type(model).__name__}.{name}", {}).values())
            found.append(flops / (one * idx.numel()))
    return found


def _grouped_mm_flops(x, weight, offs=None, *others, **options) -> int:
    """x `(R, in)`, weight `(E, in, out)`: of the rows only those up to the last end."""
    rows = len(x) if offs is None else int(offs[-1])
    return 2 * rows * weight.shape[-2] * weight.shape[-1]


_grouped_mm_flops._get_raw = True  # the counter gives it tensors, in the place of shapes
_GROUPED = {torch.ops.aten._grouped_mm: _grouped_mm_flops}  # which torch does not count itself


@dataclass(frozen=True)
class GradientFlow:
    """Norms of the gradient of the language-model loss alone, without any balance loss."""

    routers: list[float]  # L
    experts: Tensor  # (L, E)


def gradient_flow(model: TinyGPT, x: Tensor, y: Tensor) -> GradientFlow:
    """One backward pass of a batch: what of it reaches each router and each expert.

    A router that gets nothing never learns by what is good for the text (a top-1 router whose
    weights are divided by their sum); nor does an expert that no token went to.
    """
    routers = [m for m in model.modules() if isinstance(m, Router)]
    experts = [m for m in model.modules() if isinstance(m, Experts)]
    weights = [p for module in (*routers, *experts) for p in module.parameters()]
    with evaluating(model), torch.enable_grad():
        learning = [p for p in weights if p.requires_grad]
        found = torch.autograd.grad(model(x, y).lm_loss, learning, allow_unused=True)
    gradients = {id(p): gradient for p, gradient in zip(learning, found, strict=True)}

    def norm(module: nn.Module, each: bool) -> Tensor:
        """Of all of a module's gradients; of a stack of experts for each."""
        parts = [gradients.get(id(p)) for p in module.parameters()]
        squares = [g.float().square().flatten(int(each)).sum(-1) for g in parts if g is not None]
        return torch.stack(squares).sum(0).sqrt().cpu() if squares else torch.zeros(())

    of_experts = [norm(m, True).expand(len(m.c_fc.weight)) for m in experts]
    return GradientFlow([norm(m, False).item() for m in routers], torch.stack(of_experts))


def layer_figures(
    model: TinyGPT, tokens: Tensor, max_tokens: int | None = None
) -> list[dict[str, Any]]:
    """What the routers and experts of each layer do with a split, a row for each layer.

    `computed` is by `experts_computed`, `grad_...` by `gradient_flow` (of the router, of the
    experts that get least and most), both of one batch; the others are as in `RoutingReport`, with
    each expert's share of the choices in `load`.
    """
    report = measure_routing(model, tokens, max_tokens)
    x, y = next(split_batches(model, tokens, BATCH))
    computed, flow, rows = experts_computed(model, x), gradient_flow(model, x, y), []
    for i, layer in enumerate(expert_layers(model)):
        load, gradients = report.load[i], flow.experts[i]
        rows.append(
            {
                "layer": layer,
                "computed": computed[i],
                "load_cv": variation(load),
                "max_violation": max_violation(load),
                "dead": len(dead_experts(load)),
                "entropy": report.entropy[i].item(),
                "grad_router": flow.routers[i],
                "grad_least": gradients.min().item(),
                "grad_most": gradients.max().item(),
                "load": load.tolist(),
            }
        )
    return rows


def memory_per_batch(model: TinyGPT, sizes: list[int]) -> list[dict[str, float]]:
    """The most memory that a forward pass and a training step take, by the windows in a batch.

    Beside the weights, in MB (10^6 bytes), and over the windows: see `peak_bytes`. In a training
    step, without dropout, the gradients are part of it, the optimizer's averages are not.
    """
    rows, config, generator = [], model.config, torch.Generator().manual_seed(0)
    for size in sizes:
        shape = size, config.block_size
        x = torch.randint(config.vocab_size, shape, generator=generator).to(model.device)
        forward, training = (peak_bytes(run, model) / 1e6 for run in _passes(model, x))
        each = {"forward_mb_per_sample": forward / size, "training_mb_per_sample": training / size}
        rows.append({"batch": size, "forward_mb": forward, "training_mb": training, **each})
    return rows


def _passes(model: TinyGPT, x: Tensor) -> tuple[Callable[[], None], Callable[[], None]]:
    def forward() -> None:
        with evaluating(model), torch.inference_mode(), autocast(model.device):
            model(x)

    def training() -> None:
        with evaluating(model), autocast(model.device):
            loss = model(x, x).loss
        torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])

    return forward, training
