"""What the Gluon kernels take, and that each of their configurations compiles for Hopper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bough.kernels.gluon.latent.config import (
    choose_fp8_kernel,
    choose_kernel,
    latent_shape,
    merge_block,
    refusal,
)
from bough.kernels.gluon.quantized.config import block_shape
from bough.spec import AttentionSpec
from tests.kernels.compiled import assert_fits_without_spills, compile_all

HOPPER = (9, 0)


@pytest.mark.parametrize("text", ["gla:128:2", "gla:64:4:128:32", "mla:128", "mla:16"])
def test_latents_in_half_precision_are_taken_on_hopper(text: str) -> None:
    spec = AttentionSpec.parse(text)
    assert refusal(spec, torch.bfloat16, HOPPER) is None
    assert refusal(spec, torch.float16, HOPPER) is None
    assert "compute capability 9, got 8.0" in (refusal(spec, torch.bfloat16, (8, 0)) or "")
    assert "got torch.float32" in (refusal(spec, torch.float32, HOPPER) or "")


def test_what_the_kernels_do_not_compute_is_refused_by_name() -> None:
    latent = AttentionSpec.gla(128, 2)
    refused = {
        "latents": AttentionSpec.gqa(32, 8, 128),
        "keys hold the whole value": AttentionSpec.gta(32, 8, 128),
        "got 192 and 64": AttentionSpec.gla(128, 2, latent_dim=192),
        "got 512 and 32": AttentionSpec.mla(128, rope_dim=32),
        "no window": replace(latent, window=128),
        "no softcap": replace(latent, softcap=30.0),
    }
    for reason, spec in refused.items():
        assert reason in (refusal(spec, torch.bfloat16, HOPPER) or "")


def test_as_many_blocks_are_in_flight_as_fit() -> None:
    for text, name, num_stages in (
        ("mla:128", "wide", 3),
        ("gla:128:2", "narrow", 3),
        ("gla:64:4:128", "narrow", 6),
    ):
        kernel = choose_kernel(AttentionSpec.parse(text))
        assert (kernel.name, kernel.num_stages) == (name, num_stages)


@pytest.mark.parametrize(
    ("page_size", "is_contiguous", "has_boxes"),
    [(64, True, True), (128, True, True), (64, False, False), (16, True, False), (1, True, False)],
)
def test_the_copy_engine_fetches_blocks_that_divide_pages(
    page_size: int, is_contiguous: bool, has_boxes: bool
) -> None:
    for text, num_slices in (("gla:128:2", 1), ("mla:128", 2)):
        spec = AttentionSpec.parse(text)
        shape = latent_shape(
            spec,
            choose_kernel(spec),
            page_size=page_size,
            is_contiguous=is_contiguous,
            most_rows=spec.group_size,
        )
        assert (has_boxes, num_slices) == (shape.HAS_BOXES, shape.NUM_SLICES)


@pytest.mark.parametrize(("most_rows", "block_rows"), [(1, 16), (16, 16), (17, 32), (32, 32)])
def test_few_rows_of_fp8_take_products_as_wide_as_they_are(most_rows: int, block_rows: int) -> None:
    kernel = choose_fp8_kernel(AttentionSpec.gla(16, 1), most_rows)
    assert (kernel.name, kernel.block_rows) == ("few", block_rows)
    assert kernel.num_stages % 2 == 0
    assert kernel.num_stages * 64 * (256 + 2 * 64 + 4) <= 200 * 1024


@pytest.mark.parametrize(("most_rows", "block_rows"), [(16, 16), (32, 32), (64, 32), (128, 32)])
def test_all_rows_of_fp8_of_512_columns_are_taken_in_slices_of_few(
    most_rows: int, block_rows: int
) -> None:
    spec = AttentionSpec.mla(16)
    kernel = choose_fp8_kernel(spec, most_rows)
    assert (kernel.name, kernel.block_rows, kernel.num_stages) == ("few", block_rows, 4)
    shape = latent_shape(spec, kernel, page_size=1, is_contiguous=True, most_rows=most_rows)
    assert shape.NUM_SLICES * block_rows == max(16, most_rows)


def test_up_to_64_rows_of_fp8_leave_a_warpgroup_and_memory_to_producers() -> None:
    few, many = (choose_fp8_kernel(AttentionSpec.gla(16, 1), rows) for rows in (64, 65))
    assert (few.block_rows, few.num_stages, few.num_staged) == (64, 3, 1)
    assert (many.block_rows, many.num_stages, many.num_staged) == (128, 2, 2)


@pytest.mark.parametrize("text", ["gqa:32:8:128", "mha:16:64", "gta:32:8:128"])
def test_as_many_bytes_of_fp8_are_in_flight_whatever_the_rows(text: str) -> None:
    spec = AttentionSpec.parse(text)
    block = block_shape(spec, frozenset({16}))
    assert block.NUM_STAGES * 64 * 2 * spec.v_dim == 128 * 1024
    for heights in ({16}, {64}, {16, 128}):
        block = block_shape(spec, frozenset(heights))
        assert (16 in heights, heights != {16}) == (block.HAS_FEW, block.HAS_MANY)
        assert (block.NUM_TURNED > 0) == block.HAS_MANY
        warps = 2 * block.CONSUMER_REGISTERS + block.PRODUCER_REGISTERS + block.SCOUT_REGISTERS
        assert 128 * warps <= 65536


@pytest.mark.parametrize("v_dim", [128, 256, 512])
@pytest.mark.parametrize("num_queries", [1, 16, 300])
@pytest.mark.parametrize("most", [2, 5, 33, 128, 1000])
def test_merging_programs_cover_all_columns_once(most: int, num_queries: int, v_dim: int) -> None:
    block = merge_block(most, num_queries, v_dim)
    assert v_dim % block.columns == 0
    assert block.partials * block.heads * block.columns <= 4096
    assert block.few * block.heads * v_dim <= 4096
    assert all(count & (count - 1) == 0 for count in (block.partials, block.few))


def test_no_configuration_spills_registers_on_sm_90() -> None:
    assert_fits_without_spills(compile_all("tests.kernels.compile_gluon"))
