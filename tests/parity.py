"""transformers' classes with our weights."""

from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tinygpt import TinyGPT
from tinygpt.model import Attention


def as_gpt2(model: TinyGPT):

    c = model.config
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=c.vocab_size,
            n_positions=c.block_size,
            n_embd=c.n_embd,
            n_layer=c.n_layer,
            n_head=c.n_head,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    weights = {}
    for name, value in model.state_dict().items():
        name = name.replace("blocks.", "h.").replace("ffn.", "mlp.")
        if name != "lm_head.weight":
            transposed = value.dim() == 2 and "wte" not in name and "wpe" not in name
            weights[f"transformer.{name}"] = value.T if transposed else value
    weights["lm_head.weight"] = model.lm_head.weight
    theirs.load_state_dict(weights)
    return theirs


def as_llama(model: TinyGPT):
    """Llama, or what it became: Qwen2 with biases of q, k, v alone, Qwen3 with their norms."""
    c = model.config
    sizes = {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.block_size,
        "hidden_size": c.n_embd,
        "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head,
        "num_key_value_heads": c.kv_heads,
        "intermediate_size": c.inner_size,
        "rms_norm_eps": c.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "tie_word_embeddings": c.tie_embeddings,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if c.qk_norm:
        settings = Qwen3Config(**sizes, head_dim=c.head_size, attention_bias=c.attn_bias)
        theirs = Qwen3ForCausalLM(settings)
    elif c.qkv_bias:
        theirs = Qwen2ForCausalLM(Qwen2Config(**sizes))
    else:
        settings = LlamaConfig(**sizes, head_dim=c.head_size, attention_bias=c.attn_bias)
        theirs = LlamaForCausalLM(settings)
    theirs.load_state_dict(llama_weights(model))
    return theirs.eval()


def llama_weights(model: TinyGPT) -> dict[str, Tensor]:
    weights = {
        "model.embed_tokens.weight": model.wte.weight,
        "model.norm.weight": model.ln_f.weight,
        "lm_head.weight": model.lm_head.weight,
    }
    for i, block in enumerate(model.blocks):
        gate, up = block.ffn.c_fc.weight.chunk(2)
        names = attention_weights(block.attn) | {
            "mlp.gate_proj.weight": gate,
            "mlp.up_proj.weight": up,
            "mlp.down_proj.weight": block.ffn.c_proj.weight,
            "input_layernorm.weight": block.ln_1.weight,
            "post_attention_layernorm.weight": block.ln_2.weight,
        }
        weights |= {f"model.layers.{i}.{k}": v for k, v in names.items()}
    return weights


def attention_weights(attention: Attention) -> dict[str, Tensor]:
    """Theirs has a projection for each of q, k, v, whose rows are ours."""
    D, G = attention.head_size, attention.kv_heads
    sizes = [D * heads for heads in (attention.n_head, G, G)]
    names = {f"o_proj.{kind}": value for kind, value in attention.c_proj.named_parameters()}
    for kind, value in attention.c_attn.named_parameters():
        for part, rows in zip("qkv", value.split(sizes), strict=True):
            names[f"{part}_proj.{kind}"] = rows
    if attention.qk_norm:
        names |= {f"{n}_norm.weight": getattr(attention, f"{n}_norm").weight for n in "qk"}
    return {f"self_attn.{name}": value for name, value in names.items()}
