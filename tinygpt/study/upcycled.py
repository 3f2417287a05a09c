"""A pre-trained model that is fine-tuned: as it is, and as mixtures made of it; beside them a
mixture from scratch, with several budgets."""

from dataclasses import dataclass, replace

import torch

from ..config import ModelConfig, MoEConfig, TrainConfig
from ..model import TinyGPT, upcycle
from ..training import RUNS, load_run, with_settings
from .arms import FLOPS, Arm, Comparison, Design, named

SOURCE = "mini-gpt2"  # a shipped run; its training saw 3,276,800 tokens, of plays and stories


@dataclass(frozen=True)
class Pretrained(Arm):
    """The weights of the shipped model: as they are or, with `moe`, in experts.

    A copy of a layer is cut into `granularity` experts; of each expert's hidden units a share
    `reinit` is drawn anew. The routers' start is drawn from torch's global generator.
    """

    granularity: int = 1
    reinit: float = 0.0

    def build(self, shape: ModelConfig) -> TinyGPT:
        """The model as it is before the first update."""
        dense = with_settings(load_run(SOURCE, device="cpu"), shape)
        moe = self.moe
        if moe is None:
            return dense
        seed = int(torch.randint(1 << 31, ()))
        cut = (self.granularity, self.reinit, seed)
        balance = {"balance": moe.balance, "balance_weight": moe.balance_weight}
        return upcycle(dense, moe.n_experts, moe.top_k, *cut, **balance)


_BALANCE = {"balance": "loss", "balance_weight": 0.1}  # a weaker one is too slow for so few updates


def _copies(n_experts: int, top_k: int, granularity: int = 1) -> dict:
    """What `upcycle` makes of a layer."""
    moe = MoEConfig(
        n_experts=n_experts,
        top_k=top_k,
        straight_through=True,
        routed_scaling_factor=float(granularity),
        **_BALANCE,
    )
    return {"moe": moe, "width": 1 / granularity, "granularity": granularity}


class Scratch(Arm):
    """An arm that begins with nothing, and so with larger steps."""

    def recipe(self, usual: TrainConfig) -> TrainConfig:
        """Twice the learning rate of fine-tuning."""
        return replace(usual, lr=2 * usual.lr)


_SCRATCH = {"moe": MoEConfig(n_experts=4, **_BALANCE)}
_LONGER = _SCRATCH | {"like": "scratch"}
ARMS = named(
    Pretrained("tuned", "the fine-tuned dense model"),
    Pretrained("top-1", "upcycled to top-1 of 4 copies", **_copies(4, 1)),
    Pretrained("groups", "upcycled to 4 copies in halves, of which 2 work", **_copies(8, 2, 2)),
    Pretrained("top-2", "upcycled to top-2 of 4 copies", **_copies(4, 2)),
    Pretrained("drop", "top-2 of 4 copies, half drawn anew", **_copies(4, 2), reinit=0.5),
    Scratch("scratch", "top-1 of 4 from scratch", **_SCRATCH),
    Scratch("scratch-x3", "top-1 of 4 from scratch, 3 times as long", **_LONGER, budget=3.0),
    Scratch("scratch-x10", "top-1 of 4 from scratch, 10 times as long", **_LONGER, budget=10.0),
)
COMPARISONS = (  # in pairs where both begin with the shipped weights
    Comparison("top-1", "tuned", FLOPS, paired=True),
    Comparison("groups", "tuned", FLOPS, paired=True),
    Comparison("top-2", "tuned", "at equal updates, with twice the experts' work", paired=True),
    Comparison("drop", "top-2", "with all but the start alike", paired=True),
    Comparison("scratch", "tuned", "at equal updates of fine-tuning"),
    Comparison("scratch-x3", "tuned"),
    Comparison("scratch-x10", "tuned", "at nearly equal tokens, pre-training counted"),
)

UPCYCLING = Design(
    "upcycling",
    ARMS,
    COMPARISONS,
    ModelConfig(vocab_size=2048, block_size=128, n_layer=4, n_head=4, n_embd=128, dropout=0.15),
    TrainConfig(  # 2,048 tokens an update: in all a tenth of what the pre-training saw
        max_steps=160, batch_size=16, lr=2e-3, warmup_steps=16, eval_interval=40
    ),
    seeds=3,
    corpus="wikitext-2-valid",
    tokenizer=str(RUNS / SOURCE / "tokenizer.json"),
    looks=4,
    factors=(1.0,),
    rounds=20,
)
