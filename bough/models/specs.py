"""The attention part of config.json, translated into `AttentionSpec` and the latents' sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from bough.expect import expect
from bough.layers.latent import LatentShape
from bough.models.families import Family
from bough.models.fields import Fields
from bough.models.rope import read_score_factor
from bough.spec import AttentionSpec


def read_attention(fields: Fields, family: Family) -> tuple[AttentionSpec, LatentShape | None]:
    """Read what every layer's attention stores and, for latents, its expanded form's sizes.

    Raises:
        ValueError: a size is missing, or heads or rotary dimensions cannot be divided.
    """
    if family.attention == "latent":
        return _latent(fields, family)
    num_q_heads = fields.integer("num_attention_heads")
    num_kv_heads = fields.integer("num_key_value_heads", num_q_heads)
    expect_heads(fields, "num_key_value_heads", num_kv_heads)
    head_dim = _head_dim(fields, num_q_heads)
    if family.attention == "tied":
        # Half a head is rotated, and rotation takes pairs.
        expect(head_dim % 4 == 0, f"{fields.source} head_dim", "a multiple of 4", head_dim)
        return AttentionSpec.gta(num_q_heads, num_kv_heads, head_dim), None
    expect(head_dim % 2 == 0, f"{fields.source} head_dim", "even", head_dim)
    spec = AttentionSpec.gqa(num_q_heads, num_kv_heads, head_dim)
    return replace(spec, window=_window(fields, family)), None


def expect_heads(fields: Fields, key: str, num_stored_heads: int) -> None:
    """Refuse query heads that cannot be divided among the stored heads.

    Raises:
        ValueError: they cannot.
    """
    num_q_heads = fields.integer("num_attention_heads")
    expect(
        num_q_heads % num_stored_heads == 0,
        f"{fields.source} num_attention_heads",
        f"a multiple of {key} {num_stored_heads}",
        num_q_heads,
    )


def _latent(fields: Fields, family: Family) -> tuple[AttentionSpec, LatentShape]:
    num_latent_heads = fields.integer("num_latent_heads", 1)
    expect_heads(fields, "num_latent_heads", num_latent_heads)
    rope_dim = fields.integer("qk_rope_head_dim")
    expect(rope_dim % 2 == 0, f"{fields.source} qk_rope_head_dim", "even", rope_dim)
    is_interleaved = family.is_interleaved
    if isinstance(is_interleaved, str):
        is_interleaved = fields.flag(is_interleaved, True)
    shape = LatentShape(
        key_dim=fields.integer("qk_nope_head_dim"),
        value_dim=fields.integer("v_head_dim"),
        query_rank=fields.integer("q_lora_rank") if fields.has("q_lora_rank") else None,
        is_interleaved=is_interleaved,
    )
    has_bias = family.output_bias and fields.flag("attention_bias", False)
    expect(
        not has_bias or shape.query_rank is not None,
        f"{fields.source} attention_bias",
        "false where there is no q_lora_rank",
        has_bias,
    )
    spec = AttentionSpec.gla(
        fields.integer("num_attention_heads"),
        num_latent_heads,
        fields.integer("kv_lora_rank"),
        rope_dim,
        shape.key_dim,
    )
    return replace(spec, scale=spec.scale * read_score_factor(fields)), shape


def _head_dim(fields: Fields, num_q_heads: int) -> int:
    hidden_size = fields.integer("hidden_size")
    expect(
        fields.has("head_dim") or hidden_size % num_q_heads == 0,
        f"{fields.source} hidden_size",
        f"a multiple of num_attention_heads {num_q_heads} where there is no head_dim",
        hidden_size,
    )
    return fields.integer("head_dim", max(1, hidden_size // num_q_heads))


def _window(fields: Fields, family: Family) -> int | None:
    """The window of every layer; models in which only some layers have one are refused."""
    has_window = family.has_window and fields.has("sliding_window")
    if family.window_switch is not None:
        has_window = has_window and fields.flag(family.window_switch, False)
    implied = "sliding_attention" if has_window else "full_attention"
    num_layers = fields.integer("num_hidden_layers")
    first = fields.integer("max_window_layers", 0, minimum=0) if family.window_switch else 0
    kinds = fields.texts("layer_types")
    kinds = kinds or ["full_attention"] * min(first, num_layers) + [implied] * (num_layers - first)
    found = ", ".join(f"{count} {kind}" for kind, count in Counter(kinds).items())
    expect(len(set(kinds)) == 1, "config.json layer_types", "the same in every layer", found)
    if kinds[0] == "full_attention" and family.window_switch is not None:
        return None
    window = fields.values.get("sliding_window")
    expect(
        kinds[0] == implied,
        "config.json layer_types",
        f"{implied} where sliding_window is {window}",
        kinds[0],
    )
    return fields.integer("sliding_window") if has_window else None
