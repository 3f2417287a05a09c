"""Models of other libraries in our shape, to be compared with."""

from ..config import ModelConfig, TrainConfig


def transformers_gpt2(config: ModelConfig, train: TrainConfig | None = None):
    """transformers' GPT-2 with random weights in our shape; None where it would be another model,
    or is not installed."""
    same = config.norm == "layernorm" and config.position == "learned" and config.mlp == "gelu"
    same = same and config.kv_heads == config.n_head and config.head_dim is None
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return None
    if not same or config.qk_norm or (train and train.optimizer != "adamw"):
        return None
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop"), config.dropout) | {"attn_pdrop": 0.0}
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


def transformers_mixtral(config: ModelConfig):
    """transformers' Mixtral with random weights in our shape; None where it is not installed."""
    try:
        from transformers import MixtralConfig, MixtralForCausalLM
    except ImportError:
        return None
    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.block_size,
            hidden_size=config.n_embd,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_size,
            intermediate_size=config.moe.n_inner or config.inner_size,
            num_local_experts=config.moe.n_experts,
            num_experts_per_tok=config.moe.top_k,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
