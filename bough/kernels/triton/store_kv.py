"""The store of new rows into their slots: one program a token."""

from __future__ import annotations

import triton
import triton.language as tl


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
