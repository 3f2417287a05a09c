"""Where each of our tensors lies in a file of transformers: under which names, in which order.

C channels, F feed-forward width, E experts, H heads, G of keys and values, D head size
"""

from dataclasses import dataclass

from torch import Tensor

from ..config import ModelConfig

GPT2 = {
    "wte": "transformer.wte",
    "wpe": "transformer.wpe",
    "ln_f": "transformer.ln_f",
    "lm_head": "lm_head",
    "blocks": "transformer.h",
    "ln_1": ["ln_1"],
    "ln_2": ["ln_2"],
    "attn.c_attn": ["attn.c_attn"],
    "attn.c_proj": ["attn.c_proj"],
    "ffn.c_fc": ["mlp.c_fc"],
    "ffn.c_proj": ["mlp.c_proj"],
}
LLAMA = {
    "wte": "model.embed_tokens",
    "ln_f": "model.norm",
    "lm_head": "lm_head",
    "blocks": "model.layers",
    "ln_1": ["input_layernorm"],
    "ln_2": ["post_attention_layernorm"],
    "attn.c_attn": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attn.c_proj": ["self_attn.o_proj"],
    "attn.q_norm": ["self_attn.q_norm"],
    "attn.k_norm": ["self_attn.k_norm"],
    "ffn.c_fc": ["mlp.gate_proj", "mlp.up_proj"],
    "ffn.c_proj": ["mlp.down_proj"],
    "ffn.router.proj": ["mlp.gate"],
    "ffn.experts.c_fc": ["mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj"],
    "ffn.experts.c_proj": ["mlp.experts.{}.down_proj"],
    "ffn.shared.c_fc": ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"],
    "ffn.shared.c_proj": ["mlp.shared_expert.down_proj"],
    "ffn.shared_gate": ["mlp.shared_expert_gate"],
}
MIXTRAL = LLAMA | {
    "ffn.router.proj": ["block_sparse_moe.gate"],
    "ffn.experts.c_fc": ["block_sparse_moe.experts.{}.w1", "block_sparse_moe.experts.{}.w3"],
    "ffn.experts.c_proj": ["block_sparse_moe.experts.{}.w2"],
}
TABLES = {"gpt2": GPT2, "mixtral": MIXTRAL}  # others: LLAMA
TRANSPOSED = ("attn.c_attn", "attn.c_proj", "ffn.c_fc", "ffn.c_proj")  # in GPT-2: (in, out)


@dataclass(frozen=True)
class Source:
    """A tensor as it lies in a file: parts under names of their own.

    One over the other, and expert after expert, their rows are ours.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]  # of each part
    transposed: bool = False

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """The parts of one of our tensors, by name, as views."""
        stacked = tensor.dim() == 3  # (E, out, in)
        parts = (tensor.flatten(0, 1) if stacked else tensor).split(self.rows)
        if self.transposed:
            parts = [part.T for part in parts]
        return dict(zip(self.names, parts, strict=True))


def sources(kind: str, config: ModelConfig, state: dict[str, Tensor]) -> dict[str, Source]:
    """Where each tensor of a model lies in the files of a class, a key of `CLASSES`."""
    return {name: _source(kind, config, name, tensor) for name, tensor in state.items()}


def _source(kind: str, config: ModelConfig, name: str, tensor: Tensor) -> Source:
    table, (module, _, which) = TABLES.get(kind, LLAMA), name.rpartition(".")  # weight or bias
    if not module.startswith("blocks."):
        return Source((f"{table[module]}.{which}",), (len(tensor),))
    _, layer, part = module.split(".", 2)
    names = _of_each_expert(table[part], len(tensor)) if tensor.dim() == 3 else table[part]
    total = tensor.shape[:-1].numel() if tensor.dim() > 1 else len(tensor)
    rows = (total // len(names),) * len(names)
    if part == "attn.c_attn" and len(names) == 3:
        rows = tuple(
            config.head_size * n for n in (config.n_head, config.kv_heads, config.kv_heads)
        )
    full = tuple(f"{table['blocks']}.{layer}.{n}.{which}" for n in names)
    return Source(full, rows, kind == "gpt2" and which == "weight" and part in TRANSPOSED)


def _of_each_expert(names: list[str], E: int) -> list[str]:
    return [name.format(e) for e in range(E) for name in names]
