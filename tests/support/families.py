"""Tiny models with random weights, one for each family of causal language models that transformers knows.

Sizes are set by the names that configs give them, so a family that transformers adds is built without a line here;
``_OWN`` holds what single families need on top.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 128


def _each(value: int, names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), value)


_SIZES: dict[str, Any] = {
    **_each(VOCABULARY, "vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size"),
    **_each(0, "pad_token_id bos_token_id eos_token_id forced_eos_token_id cls_token_id sep_token_id eod_token_id"),
    **_each(0, "decoder_start_token_id mask_token_id"),
    **_each(32, "hidden_size d_model n_embd embedding_size word_embed_proj_dim lru_width embedding_dim emb_dim"),
    **_each(64, "intermediate_size ffn_dim n_inner decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dff dim_ff d_inner"),
    **_each(64, "intermediate_size_mlp shared_expert_intermediate_size shared_intermediate_size feed_forward_size"),
    **_each(64, "dense_intermediate_size expert_ffn_hidden_size shared_experts_intermediate_size"),
    **_each(64, "moe_shared_expert_intermediate_size"),
    **_each(16, "moe_intermediate_size kv_lora_rank q_lora_rank o_lora_rank time_step_rank mamba_dt_rank"),
    **_each(2, "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_blocks"),
    **_each(2, "num_encoder_layers num_decoder_layers"),
    **_each(4, "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads"),
    **_each(4, "attention_heads swa_num_attention_heads num_decoder_attention_heads num_encoder_attention_heads"),
    **_each(2, "num_key_value_heads num_kv_heads swa_num_key_value_heads num_query_groups"),
    **_each(8, "head_dim qk_rope_head_dim v_head_dim qk_nope_head_dim kv_channels swa_head_dim d_head dim_head"),
    **_each(8, "global_head_dim"),
    **_each(128, "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions"),
    **_each(4, "num_experts n_routed_experts num_local_experts moe_num_experts"),
    **_each(2, "num_experts_per_tok num_experts_per_token moe_topk moe_k"),
    **_each(1, "n_group topk_group num_expert_group n_groups first_k_dense_replace num_dense_layers"),
    **_each(8, "state_size mamba_d_state ssm_state_size mamba_head_dim linear_key_head_dim linear_value_head_dim"),
    **_each(8, "linear_head_dim mamba_n_heads mamba_num_heads mamba_d_head"),
    **_each(4, "linear_num_key_heads linear_num_value_heads linear_num_heads rotary_dim"),
    **_each(8, "chunk_size mamba_chunk_size hidden_size_per_layer_input index_head_dim"),
    **_each(4, "index_n_heads laurel_rank"),
    "index_topk": 64,
    "is_decoder": True,
    "initializer_range": 0.1,  # with less, attention hardly looks anywhere, and nothing depends on positions
}

_LATENT = {"num_key_value_heads": 4}
_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}

_OWN: dict[str, dict[str, Any]] = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "bailing_hybrid": {**_LATENT, "layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"layer_types": ["full_attention"] * 2},
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "deepseek_v32": _LATENT,
    "dots3_note_text": _LATENT,
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_unified_assistant": {"num_kv_shared_layers": 0},
    "glm4_moe_lite": _LATENT,
    "glm_moe_dsa": _LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": _HYBRID,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {**_LATENT, **_HYBRID},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {**_LATENT, "zero_expert_num": 2},
    "mamba2": {"head_dim": 16},
    "minicpm3": _LATENT,
    "qwen3_5_moe_text": _HYBRID,
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "qwen4_exp_text": {**_HYBRID, "ngram_vocab_size_base": 64},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "youtu": _LATENT,
    "zamba": {"num_hidden_layers": 3, "attn_layer_period": 2, "attn_layer_offset": 1},
    "zamba2": {"num_hidden_layers": 6},
    "zaya": {"num_experts_per_tok": 1},
}


def config_of(family: str, **settings: Any) -> Any:
    """A config of tiny sizes without dropout, which would hide what else is different; ``settings`` go on top."""
    kind = transformers.CONFIG_MAPPING[family]
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    sizes = {name: value for name, value in _SIZES.items() if name in fields}
    drops = {name: 0.0 for name, value in fields.items() if "drop" in name and type(value) in (int, float)}
    return kind(**{**sizes, **drops, **_OWN.get(family, {}), **settings})


def model_of(family: str, *, attention: str | None = None, **settings: Any) -> Any:
    """Its model with random weights, the same every time."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(family, **settings), attn_implementation=attention)


def parameters_of(family: str) -> int:
    """How many there would be, without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config_of(family)).parameters())


EVERY = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


_LARGEST = 3_000_000


def fails(family: str) -> str | None:
    """Why there is no tiny model of it."""
    try:
        parameters = parameters_of(family)
        if parameters > _LARGEST:
            return f"a wrapper that takes other sizes: {parameters / 1e6:.0f} M parameters"
        model_of(family)
    except Exception as error:  # noqa: BLE001  # whatever transformers says of a config that it would not have
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None
