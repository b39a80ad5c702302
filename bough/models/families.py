"""The table of families: in what their decoders differ, what their configs leave unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row. A flag is True, False, or the name of the config's key that says.

    Args:
        architecture: the class that `architectures` in config.json must name.
        attention: which of the three projections it has.
        experts: how its routers score where the feed-forward has experts; None for no such layers.
        is_interleaved: whether a latent's rotary columns lie pair by pair.
        qkv_bias: whether the q, k and v projections add biases.
        output_bias: whether attention's output projection adds a bias.
        mlp_bias: whether the feed-forward projections add biases.
        has_qk_norm: whether each q and k head is normed before the rotation.
        has_window: whether `sliding_window` in the config limits what queries see.
        window_switch: the config's key that must be true for the window to count; None where it
            always does.
        has_published_code: whether its checkpoints carry code that nobody needs to run them;
            elsewhere code is refused, because nobody knows what it changes.
        defaults: values of keys that config.json may leave out.
    """

    architecture: str
    attention: Literal["grouped", "tied", "latent"] = "grouped"
    experts: Literal["softmax", "sigmoid"] | None = None
    is_interleaved: bool | str = False
    qkv_bias: bool | str = False
    output_bias: bool | str = False
    mlp_bias: bool | str = False
    has_qk_norm: bool = False
    has_window: bool = False
    window_switch: str | None = None
    has_published_code: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


_DEEPSEEK: dict[str, Any] = {
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}

# By `model_type`. The defaults are those of transformers' own configs, which omit them at times.
FAMILIES: dict[str, Family] = {
    "llama": Family(
        architecture="LlamaForCausalLM",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        defaults={"bos_token_id": 1, "eos_token_id": 2},
    ),
    "mistral": Family(
        architecture="MistralForCausalLM",
        has_window=True,
        defaults={"bos_token_id": 1, "eos_token_id": 2, "sliding_window": 4096},
    ),
    "qwen2": Family(
        architecture="Qwen2ForCausalLM",
        qkv_bias=True,
        has_window=True,
        window_switch="use_sliding_window",
        defaults={"sliding_window": 4096, "max_window_layers": 28},
    ),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        has_qk_norm=True,
        has_window=True,
        window_switch="use_sliding_window",
        defaults={"head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    ),
    "bough_gta": Family(architecture="BoughGTAForCausalLM", attention="tied"),
    # Grouped latents; with a single one, and DeepSeek's sizes, this is MLA.
    "bough_gla": Family(architecture="BoughGLAForCausalLM", attention="latent"),
    "deepseek_v2": Family(
        architecture="DeepseekV2ForCausalLM",
        attention="latent",
        experts="softmax",
        has_published_code=True,
        is_interleaved=True,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        defaults={
            **_DEEPSEEK,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "first_k_dense_replace": 0,
            "max_position_embeddings": 2048,
            "moe_intermediate_size": 1407,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "norm_topk_prob": False,
            "num_experts_per_tok": 6,
            "routed_scaling_factor": 1.0,
            "topk_method": "greedy",
        },
    ),
    "deepseek_v3": Family(
        architecture="DeepseekV3ForCausalLM",
        attention="latent",
        experts="sigmoid",
        has_published_code=True,
        is_interleaved="rope_interleave",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        defaults={
            **_DEEPSEEK,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "first_k_dense_replace": 3,
            "max_position_embeddings": 4096,
            "moe_intermediate_size": 2048,
            "n_group": 8,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": 8,
            "num_nextn_predict_layers": 1,
            "routed_scaling_factor": 2.5,
            "topk_group": 4,
            "topk_method": "noaux_tc",
        },
    ),
}
