"""A small mixture that learns update by update, and whose routing may be changed meanwhile.

One layer, K of E experts, which together always have the same width. It is trained on one thread of
the CPU with a constant learning rate, large enough that a collapse is seen within 300 updates.
E experts, K experts per token, T time.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ..config import ModelConfig, MoEConfig
from ..corpora import Batches, Corpus
from ..errors import NonFiniteError
from ..measure import dead_experts, variation
from ..model import Router, Routing, TinyGPT, evaluating, rebalance
from ..runtime import one_thread

T, BATCH, CHANNELS, WIDTH = 32, 16, 64, 512  # WIDTH: of all experts together
LR, BETAS, CLIP = 2e-3, (0.9, 0.99), 1.0
EVERY = 5  # updates from one look at the fixed text to the next
WINDOWS = 64  # of that text
KEPT = 0.95  # of the mean load, at each update: a mean of the last 20 batches or so
JITTER = 0.3
EVEN = 0.3  # a mean load is even below this coefficient of variation
COLLAPSED = 0.375  # of the largest one there can be; with 8 experts: as if 4 of them did all


@dataclass(frozen=True)
class Rules:
    """What may change while the mixture learns. The defaults let it collapse, curably.

    Of ten seeds on Tiny Shakespeare all had collapsed after 300 updates (variation 1.1 to 2.6), and
    were even again after 35 to 60 more with the Switch loss of 0.1, 55 to 90 with biases of 0.01.
    """

    balance: Literal["none", "Switch loss", "biases"] = "none"
    strength: float = 0.1  # the weight of the loss, or the step of the biases
    noise: Literal["none", "learned", "jitter"] = "none"
    z_weight: float = 0.01
    router_lr: float = 3.0  # the router's learning rate, over that of all else
    top_k: int = 1

    def config(self, n_experts: int) -> MoEConfig:
        """The same for a model."""
        return MoEConfig(
            n_experts,
            self.top_k,
            n_inner=WIDTH // n_experts,
            noisy=self.noise == "learned",
            jitter=JITTER if self.noise == "jitter" else 0.0,
            balance={"none": "none", "Switch loss": "loss", "biases": "bias"}[self.balance],
            balance_weight=self.strength,
            bias_rate=self.strength,
            z_weight=self.z_weight,
        )


@dataclass(frozen=True)
class Look:
    """What there was to see after some updates; all but `mean_load` of the fixed text."""

    update: int
    load: Tensor  # (E,) shares of the choices
    mean_load: Tensor  # (E,) the same, over the last batches of the training
    weight: float  # that a token's experts have together, on average
    entropy: float  # of the router, nats
    loss: float  # cross-entropy, nats per token
    largest_cv: float  # that K of E experts can have

    @property
    def cv(self) -> float:
        """Coefficient of variation of the mean load."""
        return variation(self.mean_load)

    @property
    def dead(self) -> list[int]:
        """Experts with less than a hundredth of an even share of the mean load."""
        return dead_experts(self.mean_load)

    @property
    def collapsed(self) -> bool:
        """Whether few experts do most of the work."""
        return self.cv >= COLLAPSED * self.largest_cv

    @property
    def even(self) -> bool:
        """Whether no expert is dead and the mean load hardly varies."""
        return self.cv < EVEN and not self.dead


class OwnRandom:
    """A context in which torch's global random numbers are a stream of its own.

    Router noise and weights at their start are drawn from the global generator, which the cells of
    a notebook use, too. They find it as they left it.
    """

    def __init__(self, seed: int):
        self._mine = torch.Generator().manual_seed(seed).get_state()

    def __enter__(self) -> None:
        self._theirs = torch.get_rng_state()
        torch.set_rng_state(self._mine)

    def __exit__(self, *error) -> None:
        self._mine = torch.get_rng_state()
        torch.set_rng_state(self._theirs)


class RouterTraining:
    """Trains a mixture on a corpus and looks at its routing, again and again on the same text.

    `looks` has what was seen, `routing` what the router last did with the fixed text `x`
    `(windows, T)`, and `changes` from which update on which rules held.
    """

    def __init__(self, corpus: Corpus, rules: Rules, n_experts: int = 8, seed: int = 1):
        self.n_experts, self.update = n_experts, 0
        self._batches = Batches(corpus.train, BATCH, T, seed)
        self._random = OwnRandom(seed)
        self.x, self._y = fixed_text(corpus)
        V = corpus.tokenizer.vocab_size
        # with all that any rules may need; they say what is used
        moe = replace(rules.config(n_experts), balance="bias", noisy=True)
        shape = ModelConfig(V, T, n_layer=1, n_embd=CHANNELS, moe=moe)
        with self._random:
            self.model = TinyGPT(shape)
        self.router: Router = self.model.blocks[0].ffn.router
        self._noise = self.router.noise
        self._optimizer = self._make_optimizer()
        self._loads, self._mass = torch.zeros(n_experts), 0.0  # of the batches so far, fading
        self.looks: list[Look] = []
        self.changes: list[tuple[int, Rules]] = []
        self.follow(rules)
        self._look()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW; the router is the first group."""
        routers = list(self.router.parameters())
        taken = set(map(id, routers))
        others = [p for p in self.model.parameters() if id(p) not in taken]
        groups = [{"params": routers}, {"params": others}]
        return torch.optim.AdamW(groups, lr=LR, betas=BETAS, weight_decay=0.0, fused=True)

    @property
    def rules(self) -> Rules:
        """Those that hold now."""
        return self.changes[-1][1]

    def seen(self, update: int) -> Look:
        """The last look until then."""
        return next(look for look in reversed(self.looks) if look.update <= max(0, update))

    def since(self, setting: str) -> int:
        """The update from which on a setting of the rules has been what it is."""
        began = self.update
        for update, rules in reversed(self.changes):
            if getattr(rules, setting) != getattr(self.rules, setting):
                break
            began = update
        return began

    def follow(self, rules: Rules) -> None:
        """From the next update on, go by these; biases that are switched on start at zero."""
        before = self.changes[-1][1] if self.changes else None
        if rules == before:
            return
        if before is None or rules.balance != before.balance:
            self.router.bias.zero_()
        moe = rules.config(self.n_experts)
        self.model.config = replace(self.model.config, moe=moe)
        self.router.config = moe
        self.router.noise = self._noise if moe.noisy else None
        self._optimizer.param_groups[0]["lr"] = LR * rules.router_lr
        self.changes.append((self.update, rules))

    def advance(self, updates: int = 1) -> None:
        """Learn; after every so many updates, look."""
        for _ in range(updates):
            with one_thread(), self._random:
                self._train_step()
                self.update += 1
                if self.update % EVERY == 0:
                    self._look()

    def _train_step(self) -> None:
        out = self.model.train()(*self._batches.draw())
        self._optimizer.zero_grad()
        out.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if not (out.loss + norm).isfinite():
            raise NonFiniteError(
                f"the loss is {out.loss.item()} and the gradient's norm {norm.item()} at update "
                f"{self.update}; reset, and take a lower rate of the router (now × "
                f"{self.rules.router_lr:g})"
            )
        self._optimizer.step()
        rebalance(self.model, out.expert_load)
        load = out.expert_load[0] / out.expert_load.sum()  # (E,)
        self._loads, self._mass = KEPT * self._loads + load, KEPT * self._mass + 1

    @torch.inference_mode()
    def _look(self) -> None:
        with evaluating(self.model):
            out = self.model(self.x, self._y, return_routing=True)
        self.routing: Routing = out.routing[0]
        load = self.routing.load()
        look = Look(
            self.update,
            load,
            mean_load=self._loads / self._mass if self._mass else load,
            weight=self.routing.weights.sum(-1).mean().item(),
            entropy=self.routing.entropy().item(),
            loss=out.lm_loss.item(),
            largest_cv=math.sqrt(self.n_experts / self.rules.top_k - 1),
        )
        self.looks.append(look)


def fixed_text(corpus: Corpus) -> tuple[Tensor, Tensor]:
    """The validation text from its first blank line on: x and y `(windows, T)`."""
    n = min(WINDOWS, (len(corpus.val) - 1) // T)
    spare = min(500, len(corpus.val) - n * T - 1)
    pairs = pairwise(corpus.tokenizer.pieces[i] for i in corpus.val[:spare].tolist())
    blank = (i for i, (a, b) in enumerate(pairs) if a.endswith("\n") and b.endswith("\n"))
    begin = next(blank, -2) + 2
    tokens = corpus.val[begin : begin + n * T + 1].long()
    return tokens[:-1].view(n, T), tokens[1:].view(n, T)
