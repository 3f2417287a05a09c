"""Models of other libraries in our shape, to be compared with."""

from ..config import ModelConfig, TrainConfig


def transformers_gpt2(config: ModelConfig, train: TrainConfig):
    """transformers' GPT-2 with random weights in our shape; None where it would be another model,
    or is not installed."""
    same = config.norm == "layernorm" and config.position == "learned" and config.mlp == "gelu"
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return None
    if not same or config.qk_norm or train.optimizer != "adamw":
        return None
    rates = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), config.dropout)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_inner=config.inner_size,
            bos_token_id=0,
            eos_token_id=0,
            **rates,
        )
    ).train()
