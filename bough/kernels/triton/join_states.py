"""The union of two states of each query: one program a query and some of its heads."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def join_states(
    above_out,
    above_out_stride_query,
    above_out_stride_head,
    above_lse,
    above_lse_stride_query,
    above_lse_stride_head,
    below_out,
    below_out_stride_query,
    below_out_stride_head,
    below_lse,
    below_lse_stride_query,
    below_lse_stride_head,
    out,
    lse,
    NUM_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Weigh both outputs by their log-sum-exp; that of `below` may be -inf."""
    query = tl.program_id(0).to(tl.int64)
    offs_head = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    offs_dim = tl.arange(0, BLOCK_DIM)
    mask_head = offs_head < NUM_HEADS
    mask = mask_head[:, None] & (offs_dim < DIM)[None, :]
    upper = tl.load(
        above_lse + query * above_lse_stride_query + offs_head * above_lse_stride_head,
        mask=mask_head,
        other=0.0,
    )
    lower = tl.load(
        below_lse + query * below_lse_stride_query + offs_head * below_lse_stride_head,
        mask=mask_head,
        other=0.0,
    )
    peak = tl.maximum(upper, lower)
    upper_weight = tl.exp(upper - peak)
    lower_weight = tl.exp(lower - peak)
    total = upper_weight + lower_weight
    upper_row = query * above_out_stride_query + offs_head * above_out_stride_head
    lower_row = query * below_out_stride_query + offs_head * below_out_stride_head
    upper_out = tl.load(above_out + upper_row[:, None] + offs_dim[None, :], mask=mask, other=0.0)
    lower_out = tl.load(below_out + lower_row[:, None] + offs_dim[None, :], mask=mask, other=0.0)
    joined = upper_out.to(tl.float32) * (upper_weight / total)[:, None]
    joined += lower_out.to(tl.float32) * (lower_weight / total)[:, None]
    row = query * NUM_HEADS + offs_head
    target = out + row[:, None] * DIM + offs_dim[None, :]
    tl.store(target, joined.to(out.dtype.element_ty), mask=mask)
    tl.store(lse + row, peak + tl.log(total), mask=mask_head)
