"""How a model is trained."""

from dataclasses import dataclass
from typing import Literal

from ..checks import check, check_all
from .ranges import Count, Positive, Rate, Seed, Share, Weight, Whole


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; see `Trainer`. Steps are optimizer updates."""

    max_steps: Count = 2000  # updates in all
    epochs: Positive | None = None  # if given, counts instead of max_steps
    batch_size: Count = 32  # B, windows per forward pass
    grad_accum_steps: Count = 1  # forward passes per update
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for matrices inside the blocks
    lr: Positive = 1e-3  # peak learning rate of AdamW
    muon_lr: Positive = 0.02  # peak learning rate of Muon, for the matrices inside the blocks
    muon_momentum: Rate = 0.95  # share of the gradients before
    weight_decay: Weight = 0.1  # of matrices and embeddings; never of norms and biases
    beta1: Rate = 0.9  # of AdamW's average of gradients
    beta2: Rate = 0.99  # of that of their squares
    grad_clip: Positive | None = 1.0  # largest gradient norm; None: no clipping
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"  # wsd: warm-up, stable, decay
    warmup_steps: Whole = 100  # updates over which the learning rate rises from 0
    min_lr_ratio: Share = 0.1  # where the schedule ends, as a share of the peak
    decay_fraction: Share = 0.6  # of all updates, the last part in which wsd falls
    eval_interval: Count = 500  # updates between evaluations (and checkpoints)
    max_eval_tokens: Count | None = 1 << 13  # of each split, in an evaluation; None: of all
    patience: Count | None = None  # stop after so many evaluations without a better one
    keep_last: Count = 2  # checkpoints kept, beside the best
    sample_tokens: Whole = 0  # tokens written at each evaluation; 0: none
    sample_prompt: str = "\n"  # what those samples start from
    seed: Seed = 1337  # of initial batches, dropout and samples
    device: str = "auto"  # CUDA when present, else CPU
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on CUDA, else fp32
    compile: bool = False  # torch.compile: slow start, faster steps
    strategy: Literal["ddp", "fsdp"] = "ddp"  # under torchrun: whole copies, or shards (FSDP2)
    activation_checkpointing: bool = False  # compute blocks twice, to keep less in memory
    log: Literal["tensorboard", "wandb", "trackio"] | None = None  # also log there, if installed

    def __post_init__(self):
        check_all(self)
        check(bool(self.sample_prompt), "sample_prompt is empty; a sample needs one character")
