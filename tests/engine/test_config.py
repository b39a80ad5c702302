"""EngineConfig: options out of range, and how much memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bough.engine.llm import LLM


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"page_size": 0}, "page_size must be a whole number of at least 1, got 0"),
        ({"num_pages": 0}, "num_pages must be a whole number of at least 1, got 0"),
        ({"max_num_seqs": 1.5}, "max_num_seqs must be a whole number of at least 1, got 1.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"num_pages": 3, "kv_bytes": 5}, "kv_bytes must be None where num_pages is given, got 5"),
        ({"kv_bytes": 5}, "kv_bytes must be at least a page, .*, got 5"),
        ({"num_pages": 10**15}, "num_pages must be at most .*, got 1000000000000000"),
        ({"kv_bytes": 10**18}, "kv_bytes must be at most .*, got 1000000000000000000"),
        ({"page_size": 10**12}, "page_size must be small enough for free memory, got"),
        ({"dtype": "int8"}, "dtype must be one of .*, got 'int8'"),
        ({"kv_dtype": "int4"}, "kv_dtype must be fp8 or None, got 'int4'"),
        ({"max_model_len": 9999}, "max_model_len must be at most the model's context 512, got"),
        ({"device": 3}, "device must be a name or a Device, got 3"),
        ({"device": "abacus"}, "device must be one of .*, got 'abacus'"),
    ],
)
def test_options_out_of_range_are_named(model: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LLM(model, **{"device": "cpu", **options})


def test_an_unknown_option_is_an_error(model: Path) -> None:
    with pytest.raises(TypeError, match="gpu_memory"):
        LLM(model, gpu_memory=1)


def test_memory_for_kv_is_counted_in_pages(model: Path) -> None:
    page_bytes = 3 * 2 * (2 * 16) * 16 * 4  # layers, k and v, heads x dim, slots, bytes
    assert LLM(model, device="cpu", kv_bytes=10 * page_bytes + 1).num_pages == 10
    whole = LLM(model, device="cpu", max_num_seqs=3, max_model_len=100)
    assert whole.num_pages == 3 * 7
