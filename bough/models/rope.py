"""The rotary part of config.json, translated into `bough.layers.rope`'s words."""

from __future__ import annotations

import math

from bough.expect import expect
from bough.layers.rope import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from bough.models.fields import Fields

_COMMON_ROPE_KEYS = {
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
    "rope_type",
    "type",
}
_ROPE_KEYS: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
    "yarn": {
        "factor",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    },
}


def read_rope(fields: Fields, declared_len: int) -> tuple[float, RopeScaling | None]:
    """Read transformers 5's `rope_parameters`, or transformers 4's `rope_theta` and `rope_scaling`.

    Args:
        fields: config.json.
        declared_len: its `max_position_embeddings`.

    Returns:
        base of the wavelengths; how they reach longer contexts, None for not at all.

    Raises:
        ValueError: a value is out of range, or the kind of scaling is unknown.
    """
    key = "rope_scaling" if fields.values.get("rope_scaling") else "rope_parameters"
    rope = fields.nested(key)
    theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0))
    portion = rope.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0))
    expect(portion == 1.0, f"{fields.source} partial_rotary_factor", "1", portion)
    rope_type = rope.text("rope_type", rope.text("type", "default"))
    expected = f"one of {', '.join(_ROPE_KEYS)}"
    expect(rope_type in _ROPE_KEYS, f"{rope.source} rope_type", expected, repr(rope_type))
    known = _ROPE_KEYS[rope_type] | _COMMON_ROPE_KEYS
    unknown = {key for key in rope.values if rope.has(key)} - known
    if unknown:
        raise ValueError(
            f"{rope.source} must hold only {', '.join(sorted(known))} for rope_type {rope_type!r}, "
            f"got {', '.join(sorted(unknown))}"
        )
    return theta, _rope_scaling(rope, rope_type, declared_len)


def read_score_factor(fields: Fields) -> float:
    """Factor on DeepSeek's attention scores where YaRN stretches the context, else 1.

    `(0.1 mscale_all_dim ln(factor) + 1)^2`, as DeepSeek-V2's code sharpens the softmax (after
    arXiv 2309.00071, section 3.4).
    """
    rope = fields.nested("rope_scaling" if fields.values.get("rope_scaling") else "rope_parameters")
    if not rope.values.get("mscale_all_dim"):
        return 1.0
    log_factor = 0.1 * math.log(max(1.0, rope.number("factor")))
    return (rope.number("mscale_all_dim") * log_factor + 1.0) ** 2


def _rope_scaling(rope: Fields, rope_type: str, declared_len: int) -> RopeScaling | None:
    if rope_type == "default":
        return None
    factor = rope.number("factor")
    original_len = rope.integer("original_max_position_embeddings", declared_len)
    if rope_type == "linear":
        return LinearScaling(factor=factor)
    if rope_type == "llama3":
        return Llama3Scaling(
            factor=factor,
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_len=original_len,
        )
    return YarnScaling(
        factor=factor,
        original_len=original_len,
        beta_fast=rope.number("beta_fast", 32.0),
        beta_slow=rope.number("beta_slow", 1.0),
        amplitude=rope.number("attention_factor", _yarn_amplitude(rope, factor)),
        is_truncated=rope.flag("truncate", True),
    )


def _yarn_amplitude(rope: Fields, factor: float) -> float:
    """Factor on cosines and sines (arXiv 2309.00071, section 3.4): `0.1 ln(factor) + 1`.

    DeepSeek's two coefficients, where both are there, give the quotient of two such factors.
    """
    log_factor = 0.1 * math.log(max(1.0, factor))
    if not (rope.values.get("mscale") and rope.values.get("mscale_all_dim")):
        return log_factor + 1.0
    numerator = rope.number("mscale") * log_factor + 1.0
    return numerator / (rope.number("mscale_all_dim") * log_factor + 1.0)
