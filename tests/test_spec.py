"""Attention specs: the table of variants.md, bytes, FLOPs, shards."""

from __future__ import annotations

import pytest

from bough.spec import AttentionSpec


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("mha:32:128", 2 * 32 * 128),
        ("mqa:32:128", 2 * 128),
        ("gqa:32:8:128", 2 * 8 * 128),
        ("gta:32:8:128", 8 * 128 + 64),
        ("mla:128", 512 + 64),
        ("gla:128:2", 2 * 256 + 64),
    ],
)
def test_a_variant_stores_what_its_definition_says(text: str, elements: int) -> None:
    spec = AttentionSpec.parse(text)
    assert spec.elements_per_token == elements
    assert spec.kv_bytes(10, 2) == 20 * elements


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("gqa:32:8:128", 8 * (256 + 4)),
        ("gta:32:8:128", 8 * (128 + 4) + 2 * 64),
        ("mla:128", 512 + 4 + 2 * 64),
        ("gla:128:2", 2 * (256 + 4) + 2 * 64),
    ],
)
def test_fp8_takes_a_byte_a_number_a_word_of_scales_a_head_and_a_16_bit_rotary_key(
    text: str, num_bytes: int
) -> None:
    assert AttentionSpec.parse(text).kv_bytes(10, 1) == 10 * num_bytes


# KV bytes per token, layer and device at the 1.47B shape (16 heads, d 128), bf16, TP 1, 2, 4.
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (AttentionSpec.mha(16, 128), [8192, 4096, 2048]),
        (AttentionSpec.gqa(16, 4, 128), [2048, 1024, 512]),
        (AttentionSpec.gta(16, 4, 128), [1152, 640, 384]),
        (AttentionSpec.gla(16, 2), [1152, 640, 640]),
        (AttentionSpec.mla(16), [1152, 1152, 1152]),
    ],
    ids=["mha", "gqa-4", "gta-4", "gla-2", "mla"],
)
def test_shards_store_what_the_paper_counts(spec: AttentionSpec, expected: list[int]) -> None:
    assert [spec.shard(tp).kv_bytes(1, 2) for tp in (1, 2, 4)] == expected


def test_scale_follows_the_width_of_the_scores() -> None:
    assert AttentionSpec.gqa(8, 2, 64).scale == 64**-0.5
    assert AttentionSpec.gta(8, 2, 64).scale == 64**-0.5
    assert AttentionSpec.mla(128).scale == 192**-0.5


def test_flops_count_both_products() -> None:
    assert AttentionSpec.gqa(32, 8, 128).flops(7) == 4 * 7 * 32 * 128
    assert AttentionSpec.mla(128).flops(7) == 2 * 7 * 128 * (2 * 512 + 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_kv_heads": 3}, "num_q_heads must be a multiple of num_kv_heads 3, got 8"),
        ({"v_dim": 0}, "v_dim must be at least 1, got 0"),
        ({"rope_dim": 8}, "rope_dim must be 0 for an untied spec, got 8"),
        ({"tied": True, "nope_dim": 65}, "nope_dim must be at most v_dim 64"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
        ({"window": 0}, "window must be None or >= 1, got 0"),
        ({"softcap": -1.0}, "softcap must be None or > 0, got -1.0"),
    ],
)
def test_contradictions_are_refused(arguments: dict, message: str) -> None:
    valid = {"num_q_heads": 8, "num_kv_heads": 2, "nope_dim": 64, "v_dim": 64, "scale": 0.125}
    with pytest.raises(ValueError, match=message):
        AttentionSpec(**{**valid, **arguments})


@pytest.mark.parametrize(
    "text", ["", "gqa", "gqa:32:8", "gqa:32:x:128", "lla:3:4", "mla:1:2:3:4:5"]
)
def test_a_spec_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="spec must"):
        AttentionSpec.parse(text)


def test_heads_that_do_not_divide_over_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="tp must be a divisor of num_q_heads 16, got 3"):
        AttentionSpec.gqa(16, 4, 64).shard(3)
