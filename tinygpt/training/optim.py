"""Optimizers and learning-rate schedules: AdamW with decay groups, Muon for the matrices."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..model import MLP, Attention, Experts
from ..ranks import part, whole

Coefficients = tuple[float, float, float]

# Quintic iteration of Jordan et al. 2024: drives singular values to around 1 in five steps.
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5


def lr_factor(step: int, max_steps: int, config: TrainConfig) -> float:
    """The share of the peak learning rate at update `step` (from 0), between 0 and 1.

    A linear warm-up, then: `constant`; `cosine`, half a cosine down to `min_lr_ratio` (Loshchilov
    and Hutter 2017); `wsd`, constant and a linear fall over the last `decay_fraction` of all
    updates (Hu et al. 2024).
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine":
        start = config.warmup_steps
        curve = lambda x: 0.5 * (1 + math.cos(math.pi * x))  # noqa: E731
    else:
        start = max(config.warmup_steps, (1 - config.decay_fraction) * max_steps)
        curve = lambda x: 1 - x  # noqa: E731
    done = (step - start) / max(1, max_steps - start)
    height = curve(min(1.0, max(0.0, done)))
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * height


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW alone, or Muon for the blocks' matrices and AdamW for all else.

    Weight decay pulls on matrices and embeddings only: pulling a norm's scale or a bias to zero
    restrains nothing, also where the biases of several experts are stacked into a matrix.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if config.optimizer == "muon" and _is_muons(n, p)]
    taken = set(map(id, matrices))
    rest = [(n, p) for n, p in named if id(p) not in taken]
    decay = [p for n, p in rest if _decays(n, p)]
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": [p for n, p in rest if not _decays(n, p)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    device, betas = named[0][1].device, (config.beta1, config.beta2)
    fused = device.type in ("cuda", "cpu")  # in one kernel
    recorded = device.type == "cuda" and not is_sharded(model)
    adamw = torch.optim.AdamW(groups, config.lr, betas, fused=fused, capturable=recorded)
    optimizers = [adamw]
    if matrices:
        parts, settings = stacked_matrices(model), (config.muon_momentum, config.weight_decay)
        optimizers.append(Muon(matrices, parts, config.muon_lr, *settings))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["initial_lr"] = group["lr"]
        if recorded:  # where such an update finds it
            group["lr"] = torch.tensor(group["lr"], device=device)
    return optimizers


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds a part of the weights only, as FSDP2 leaves it."""
    return any(hasattr(p, "full_tensor") for p in model.parameters())


Rows = list[tuple[int, int]]  # so many matrices of so many rows, one below the other


def stacked_matrices(model: nn.Module) -> dict[int, Rows]:
    """Which matrices lie one below the other in the rows of a weight, by the weight's id.

    Query, key and value weights are three in one, the gate and the value of SwiGLU two, in every
    expert: fused only so that one product makes them all.
    """
    parts = {}
    for module in model.modules():
        if isinstance(module, Attention):
            H, G, D = module.n_head, module.kv_heads, module.head_size
            rows = [(3, H * D)] if G == H else [(1, H * D), (2, G * D)]
            parts[id(module.c_attn.weight)] = rows
        elif isinstance(module, MLP | Experts) and module.kind == "swiglu":
            parts[id(module.c_fc.weight)] = [(2, module.c_fc.weight.shape[-2] // 2)]
    return parts


def set_lr(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak, which is its `initial_lr`."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        lr = factor * group["initial_lr"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def orthogonalize(matrices: Tensor, steps: Iterable[Coefficients] = NEWTON_SCHULZ) -> Tensor:
    """Replace all singular values of each matrix `(..., rows, columns)` by about 1.

    Newton-Schulz iteration: a step takes each singular value s to a s + b s^3 + c s^5. In bf16 on
    CUDA, in float32 on a CPU, where bf16 products are slow.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    if tall := x.shape[-2] > x.shape[-1]:
        x = x.mT  # the Gram matrix below is then the smaller one
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in steps:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalized (Jordan et al. 2024, the post "Muon").

    For weights `(rows, columns)` and stacks of them `(E, rows, columns)`, each matrix on its own;
    `parts` says by a parameter's id which are fused in its rows, as `stacked_matrices` does.
    Matrices of equal shape are treated in one batch. Weight decay is decoupled. Where weights are
    sharded, so is the momentum, and every process orthogonalizes the whole matrices.
    """

    def __init__(
        self,
        params: list[nn.Parameter],
        parts: dict[int, Rows] | None = None,
        lr: float | Tensor = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: tuple[Coefficients, ...] = NEWTON_SCHULZ,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.parts, self.steps = parts or {}, steps

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient; returns what `closure` does, called first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            batches = defaultdict(list)  # (rows, columns) -> weights, and where to move them
            params = [p for p in group["params"] if p.grad is not None]
            weights = [whole(p) for p in params]
            for p, weight in zip(params, weights, strict=True):
                direction = whole(self._direction(p, group["momentum"]))
                parts = (self._matrices(p, t) for t in (weight, direction))
                for matrices in zip(*parts, strict=True):
                    batches[matrices[0].shape[1:]].append(matrices)
            for batch in batches.values():
                self._step(batch, group["lr"], group["weight_decay"])
            for p, weight in zip(params, weights, strict=True):
                if weight is not p:
                    p.copy_(part(weight, p))
        return loss

    def _direction(self, p: Tensor, momentum: float) -> Tensor:
        """The gradient after Nesterov's momentum."""
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        average = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(average, momentum)

    def _step(
        self, batch: list[tuple[Tensor, Tensor]], lr: float | Tensor, weight_decay: float
    ) -> None:
        """Move stacks `(n, rows, columns)` of matrices of one shape, in place."""
        directions = [direction for _, direction in batch]
        updates = orthogonalize(torch.cat(directions), self.steps)
        # a tall matrix turns inputs into more outputs: scale so that each output moves as much
        scale = max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
        updates, counts = updates * (lr * scale), [len(d) for d in directions]
        for (weights, _), update in zip(batch, updates.split(counts), strict=True):
            weights.mul_(1 - lr * weight_decay).sub_(update)

    def _matrices(self, p: Tensor, values: Tensor) -> list[Tensor]:
        """`values`, shaped like `p`, as stacks of matrices `(n, rows, columns)`: views."""
        rows, columns = values.shape[-2:]
        parts = self.parts.get(id(p), [(1, rows)])
        stacks = values.split([n * height for n, height in parts], dim=-2)
        return [s.view(-1, height, columns) for s, (_, height) in zip(stacks, parts, strict=True)]


def _is_muons(name: str, p: Tensor) -> bool:
    inside = name.startswith("blocks.") and not name.endswith("bias")
    chooses = "router" in name or "gate" in name  # few outputs, of which each means something
    return inside and p.dim() >= 2 and not chooses


def _decays(name: str, p: Tensor) -> bool:
    return p.dim() >= 2 and not name.endswith("bias")
