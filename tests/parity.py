"""transformers' classes with our weights."""

from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tinygpt import TinyGPT


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

    c = model.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab_size,
            max_position_embeddings=c.block_size,
            hidden_size=c.n_embd,
            num_hidden_layers=c.n_layer,
            num_attention_heads=c.n_head,
            intermediate_size=c.inner_size,
            rms_norm_eps=c.norm_eps,
            rope_theta=c.rope_theta,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    weights = {
        "model.embed_tokens.weight": model.wte.weight,
        "model.norm.weight": model.ln_f.weight,
        "lm_head.weight": model.lm_head.weight,
    }
    for i, block in enumerate(model.blocks):
        gate, up = block.ffn.c_fc.weight.chunk(2)
        names = {
            "self_attn.o_proj": block.attn.c_proj.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.ffn.c_proj.weight,
            "input_layernorm": block.ln_1.weight,
            "post_attention_layernorm": block.ln_2.weight,
        }
        for part, value in zip("qkv", block.attn.c_attn.weight.chunk(3), strict=True):
            names[f"self_attn.{part}_proj"] = value
        weights |= {f"model.layers.{i}.{k}.weight": v for k, v in names.items()}
    theirs.load_state_dict(weights)
    return theirs
