"""The store of new rows into their slots, as they are or in fp8: one program a token."""

from __future__ import annotations

import triton
import triton.language as tl

from bough.kernels.triton.quantized import power

# What a fraction above .75 adds to the bits of a float32 to reach its exponent: 448 is
# 1.75 * 2**8.
_ROUND_UP = tl.constexpr(0x1FFFFF)
_TOP_EXPONENT = tl.constexpr(8)
_LEAST = tl.constexpr(1)


@triton.jit
def store_rows(
    plane,
    rows_ptr,
    rows_stride_token,
    rows_stride_head,
    slots_ptr,
    PAGE_SIZE: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Copy token `program_id(0)`, [NUM_HEADS, DIM], to its slot; -1 leaves it out."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    if slot >= 0:
        offs_head = tl.arange(0, BLOCK_HEADS)[:, None]
        offs_dim = tl.arange(0, BLOCK_DIM)[None, :]
        mask = (offs_head < NUM_HEADS) & (offs_dim < DIM)
        source = rows_ptr + token * rows_stride_token + offs_head * rows_stride_head + offs_dim
        row = tl.load(source, mask=mask)
        target = plane.ptr + (slot // PAGE_SIZE) * plane.stride_page
        target += (slot % PAGE_SIZE) * plane.stride_slot
        tl.store(
            target + offs_head * plane.stride_head + offs_dim,
            row.to(plane.ptr.dtype.element_ty),
            mask=mask,
        )


@triton.jit
def store_quantized_rows(
    plane,
    exponents,
    rows_ptr,
    rows_stride_token,
    rows_stride_head,
    slots_ptr,
    PAGE_SIZE: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    NUM_SCALES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Quantise token `program_id(0)`, [NUM_HEADS, DIM], into its slot, as `bough.fp8` does.

    `exponents` are bytes: those of a head's first columns, then of the next COLUMNS.
    """
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    if slot >= 0:
        offs_head = tl.arange(0, BLOCK_HEADS)[:, None]
        offs_scale = tl.arange(0, NUM_SCALES)[None, :]
        # [BLOCK_HEADS, NUM_SCALES, COLUMNS]
        offs_dim = offs_scale[:, :, None] * COLUMNS + tl.arange(0, COLUMNS)[None, None, :]
        mask = (offs_head < NUM_HEADS)[:, :, None] & (offs_dim < DIM)
        source = rows_ptr + token * rows_stride_token + (offs_head * rows_stride_head)[:, :, None]
        row = tl.load(source + offs_dim, mask=mask, other=0.0).to(tl.float32)
        bits = tl.max(tl.abs(row), 2).to(tl.int32, bitcast=True)
        exponent = tl.maximum(((bits + _ROUND_UP) >> 23) - _TOP_EXPONENT, _LEAST)
        page, at = slot // PAGE_SIZE, slot % PAGE_SIZE
        target = plane.ptr + page * plane.stride_page + at * plane.stride_slot
        tl.store(
            target + (offs_head * plane.stride_head)[:, :, None] + offs_dim,
            (row * power(254 - exponent)[:, :, None]).to(plane.ptr.dtype.element_ty),
            mask=mask,
        )
        target = exponents.ptr + page * exponents.stride_page + at * exponents.stride_slot
        tl.store(
            target + offs_head * exponents.stride_head + offs_scale,
            exponent.to(tl.uint8),
            mask=(offs_head < NUM_HEADS) & (offs_scale * COLUMNS < DIM),
        )
