"""The table of families: in what their decoders differ, what their configs leave unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row. A bias is True, False, or the name of the config's key that says.

    Args:
        architecture: the class that `architectures` in config.json must name.
        qkv_bias: whether the q, k and v projections add biases.
        output_bias: whether attention's output projection adds a bias.
        mlp_bias: whether the feed-forward projections add biases.
        has_qk_norm: whether each q and k head is normed before the rotation.
        has_window: whether `sliding_window` in the config limits what queries see.
        window_switch: the config's key that must be true for the window to count; None where it
            always does.
        defaults: values of keys that config.json may leave out.
    """

    architecture: str
    qkv_bias: bool | str = False
    output_bias: bool | str = False
    mlp_bias: bool | str = False
    has_qk_norm: bool = False
    has_window: bool = False
    window_switch: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


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
}
