from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bough.train.config_file import read_config
from bough.train.model import make_decoder
from bough.train.quality import VARIANTS
from bough.train.shape import count_params, match_params

TINY = read_config("tiny", Path("checkpoint")).shape


def test_the_suites_variants_store_what_the_paper_says_at_equal_parameters() -> None:
    shapes = {name: read_config(name, Path("out")).shape for name in VARIANTS}
    elements = {name: shape.spec.elements_per_token for name, shape in shapes.items()}
    d = shapes["mha"].head_dim
    assert elements == {
        "mha": 2 * 8 * d,
        "gqa-4": 2 * 4 * d,
        "mqa": 2 * d,
        "gta-4": 4 * d + d // 2,
        "mla": 4 * d + d // 2,
        "gla-2": 2 * 2 * d + d // 2,
    }
    counts = [count_params(shape) for shape in shapes.values()]
    assert max(counts) / min(counts) < 1.003


def test_parameters_are_counted_without_making_them() -> None:
    decoder = make_decoder(TINY)
    assert count_params(TINY) == sum(weight.numel() for weight in decoder.parameters())


def test_the_feed_forward_absorbs_what_attention_costs() -> None:
    for attention, num_kv_heads in (("gta", 2), ("gla", 2), ("mla", 1)):
        shape = replace(TINY, attention=attention, num_kv_heads=num_kv_heads)
        matched = match_params(shape, count_params(TINY))
        assert matched.mlp_dim % 8 == 0
        assert abs(count_params(matched) / count_params(TINY) - 1) < 0.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers must be positive, got 0"),
        ({"attention": "abacus"}, "attention must be one of gqa, gta, mla, gla, got 'abacus'"),
        ({"attention": "mla"}, "num_kv_heads must be 1 for mla, got 2"),
        ({"num_kv_heads": 3}, "num_q_heads must be a multiple of num_kv_heads 3, got 4"),
        ({"attention": "gta", "head_dim": 6}, "head_dim must be a multiple of 4 for gta, got 6"),
        ({"head_dim": 5}, "head_dim must be a multiple of 2 for gqa, got 5"),
        ({"hidden_dim": 66}, "hidden_dim must be a multiple of num_q_heads 4, got 66"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)
