"""The merge of partials: one program a query and block of heads, in the order of its merge list."""

from __future__ import annotations

import triton
import triton.language as tl

from bough.kernels.triton.padding import padded

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def merge_states(
    states,
    sinks_ptr,
    merge_indptr_ptr,
    merge_indices_ptr,
    query_num_tiles_ptr,
    NUM_Q_HEADS: tl.constexpr,
    V_DIM: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
):
    """Combine partials by their log-sum-exp; write 0 and -inf for queries that no tile serves."""
    query = tl.program_id(0)
    num_tiles = tl.load(query_num_tiles_ptr + query)
    if num_tiles != 1:
        offs_head = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
        offs_v = tl.arange(0, padded(V_DIM))
        mask_head = offs_head < NUM_Q_HEADS
        mask = mask_head[:, None] & (offs_v < V_DIM)[None, :]
        peak = tl.full([BLOCK_HEADS], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_HEADS], tl.float32)
        acc = tl.zeros([BLOCK_HEADS, padded(V_DIM)], tl.float32)
        first = tl.load(merge_indptr_ptr + query)
        for at in range(first, tl.load(merge_indptr_ptr + query + 1)):
            partial = tl.load(merge_indices_ptr + at).to(tl.int64)
            row = partial * NUM_Q_HEADS + offs_head
            lse = tl.load(states.partial_lse + row, mask=mask_head, other=float("-inf")) * LOG2_E
            out = tl.load(
                states.partial_out + row[:, None] * V_DIM + offs_v[None, :], mask=mask, other=0.0
            )
            next_peak = tl.maximum(peak, lse)
            base = tl.where(next_peak == float("-inf"), 0.0, next_peak)
            decay = tl.exp2(peak - base)
            weight = tl.exp2(lse - base)
            total = total * decay + weight
            acc = acc * decay[:, None] + out * weight[:, None]
            peak = next_peak
        if HAS_SINKS:
            sink = tl.load(sinks_ptr + offs_head, mask=mask_head, other=0.0).to(tl.float32)
            is_seen = total > 0
            total += tl.where(is_seen, tl.exp2(sink * LOG2_E - tl.where(is_seen, peak, 0.0)), 0.0)
        row = query.to(tl.int64) * NUM_Q_HEADS + offs_head
        divisor = tl.where(total > 0, total, 1.0)
        tl.store(
            states.out + row[:, None] * V_DIM + offs_v[None, :],
            (acc / divisor[:, None]).to(states.out.dtype.element_ty),
            mask=mask,
        )
        tl.store(states.lse + row, (peak + tl.log2(total)) * LN_2, mask=mask_head)
