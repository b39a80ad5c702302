"""The merge of partials: one program a query and block of heads, in list order."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from bough.kernels.triton.softmax import LN_2, LOG2_E


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
    BLOCK: tl.constexpr,
    ALL_COLUMNS: tl.constexpr,
    IS_EARLY: tl.constexpr,
):
    """Combine partials by their log-sum-exp; write 0 and -inf for queries that no tile serves.

    The partials of a query that has few are merged by the first of its programs, all columns at
    once; else every program merges columns of its own. Programs that are launched early look up
    what the plan says, and wait until the tiles are done.
    """
    query = tl.program_id(0)
    # Asked for together: each would be waited for as long as all of them.
    num_tiles = tl.load(query_num_tiles_ptr + query)
    begin = tl.load(merge_indptr_ptr + query)
    stop = tl.load(merge_indptr_ptr + query + 1)
    if num_tiles != 1:
        of_query = merge_indices_ptr + begin
        first_head = tl.program_id(1) * BLOCK.heads
        first_column = tl.program_id(2) * BLOCK.columns
        if stop - begin > BLOCK.few:
            merge_columns(
                states, sinks_ptr, of_query, stop - begin, query, first_head, first_column,
                NUM_Q_HEADS, V_DIM, HAS_SINKS, IS_EARLY, BLOCK.partials, BLOCK.heads, BLOCK.columns,
            )  # fmt: skip
        elif first_column == 0:
            merge_columns(
                states, sinks_ptr, of_query, stop - begin, query, first_head, 0,
                NUM_Q_HEADS, V_DIM, HAS_SINKS, IS_EARLY, BLOCK.few, BLOCK.heads, ALL_COLUMNS,
            )  # fmt: skip
    if IS_EARLY:
        # Those that merge nothing wait too: who comes next takes tiles for done when all are.
        gdc_wait()


@triton.jit
def merge_columns(
    states,
    sinks_ptr,
    indices_ptr,
    num_partials,
    query,
    first_head,
    first_column,
    NUM_Q_HEADS: tl.constexpr,
    V_DIM: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    IS_EARLY: tl.constexpr,
    BLOCK_PARTIALS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Merge some heads and columns of a query's partials, a block of partials at a time."""
    offs_partial = tl.arange(0, BLOCK_PARTIALS)
    offs_head = first_head + tl.arange(0, BLOCK_HEADS)
    offs_v = first_column + tl.arange(0, BLOCK_V)
    mask_head = offs_head < NUM_Q_HEADS
    mask_v = offs_v < V_DIM
    peak = tl.full([BLOCK_HEADS], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_HEADS], tl.float32)
    acc = tl.zeros([BLOCK_HEADS, BLOCK_V], tl.float32)
    # Which partials come next is looked up a block ahead.
    ahead = tl.load(indices_ptr + offs_partial, mask=offs_partial < num_partials, other=0)
    if IS_EARLY:
        gdc_wait()
    for first in range(0, num_partials, BLOCK_PARTIALS):
        partial = ahead
        mask_partial = first + offs_partial < num_partials
        after = first + BLOCK_PARTIALS + offs_partial
        ahead = tl.load(indices_ptr + after, mask=after < num_partials, other=0)
        # [BLOCK_PARTIALS, BLOCK_HEADS]
        row = partial.to(tl.int64)[:, None] * NUM_Q_HEADS + offs_head[None, :]
        mask = mask_partial[:, None] & mask_head[None, :]
        lse = tl.load(states.partial_lse + row, mask=mask, other=float("-inf")) * LOG2_E
        out = tl.load(  # [BLOCK_PARTIALS, BLOCK_HEADS, BLOCK_V]
            states.partial_out + row[:, :, None] * V_DIM + offs_v[None, None, :],
            mask=mask[:, :, None] & mask_v[None, None, :],
            other=0.0,
        )
        next_peak = tl.maximum(peak, tl.max(lse, 0))
        base = tl.where(next_peak == float("-inf"), 0.0, next_peak)
        decay = tl.exp2(peak - base)
        weight = tl.exp2(lse - base[None, :])
        total = total * decay + tl.sum(weight, 0)
        acc = acc * decay[:, None] + tl.sum(out * weight[:, :, None], 0)
        peak = next_peak
    if HAS_SINKS:
        sink = tl.load(sinks_ptr + offs_head, mask=mask_head, other=0.0).to(tl.float32) * LOG2_E
        is_seen = total > 0
        total += tl.where(is_seen, tl.exp2(sink - tl.where(is_seen, peak, 0.0)), 0.0)
    row = query.to(tl.int64) * NUM_Q_HEADS + offs_head
    divisor = tl.where(total > 0, total, 1.0)
    tl.store(
        states.out + row[:, None] * V_DIM + offs_v[None, :],
        (acc / divisor[:, None]).to(states.out.dtype.element_ty),
        mask=mask_head[:, None] & mask_v[None, :],
    )
    tl.store(states.lse + row, (peak + tl.log2(total)) * LN_2, mask=mask_head)
