"""Attention of a tile of few rows, on one stored head after the other."""

from __future__ import annotations

import triton
import triton.language as tl

from bough.kernels.triton.padding import padded
from bough.kernels.triton.quantized import in_ones
from bough.kernels.triton.rows import find_rows, load_queries, store_states
from bough.kernels.triton.segments import find_segment
from bough.kernels.triton.visit_block import visit_block


@triton.jit
def attend_heads(
    queries,
    kv,
    sinks_ptr,
    tables,
    states,
    scale,
    tile,
    first_head,
    num_rows,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Visit every (head, segment, block) in one loop, so that loads run ahead from head to head."""
    BLOCK_Q: tl.constexpr = BLOCK.BLOCK_Q
    V_PAD: tl.constexpr = padded(SHAPE.V_DIM)
    offs_row, mask_row, query, position, hidden, stop = find_rows(
        tables, tile, 0, num_rows, SHAPE, BLOCK_Q
    )
    first_segment = tl.load(tables.tile_segment_indptr + tile)
    last_segment = tl.load(tables.tile_segment_indptr + tile + 1) - 1
    num_blocks = 0
    for segment in range(first_segment, last_segment + 1):
        _, num_tokens, _, _ = find_segment(tables, segment, stop)
        num_blocks += tl.maximum(tl.cdiv(num_tokens, BLOCK.BLOCK_KV), 1)
    num_blocks *= tl.load(tables.tile_num_heads + tile)

    peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, V_PAD], tl.float32)
    unit = 0
    offs_kv = tl.arange(0, BLOCK.BLOCK_KV)
    head = first_head
    segment = first_segment
    low = 0
    origin, num_tokens, first_slot, page_start = find_segment(tables, segment, stop)
    token = tl.minimum(offs_kv, tl.maximum(num_tokens - 1, 0))
    page = tl.load(tables.pages + page_start + (first_slot + token) // SHAPE.PAGE_SIZE)
    for _ in tl.range(0, num_blocks, num_stages=BLOCK.NUM_STAGES):
        token = low + offs_kv
        mask_kv = token < num_tokens
        last = tl.maximum(num_tokens - 1, 0)
        slot = (first_slot + tl.minimum(token, last)) % SHAPE.PAGE_SIZE
        q, q_rope = load_queries(queries, query, head, offs_row, mask_row, SHAPE)
        peak, total, acc, unit = visit_block(
            kv, page, slot, origin + token, mask_kv, head, q, q_rope, position, hidden, scale,
            peak, total, acc, unit, SHAPE,
        )  # fmt: skip

        is_segment_over = low + BLOCK.BLOCK_KV >= num_tokens
        is_head_over = is_segment_over & (segment == last_segment)
        if is_head_over:
            store_states(
                sinks_ptr, tables, states, tile, head, query, offs_row, mask_row, peak, total,
                in_ones(acc, unit, SHAPE), SHAPE,
            )  # fmt: skip
        # A peak of -inf wipes the states: they shrink to nothing against the next head's.
        peak = tl.where(is_head_over, float("-inf"), peak)
        unit = tl.where(is_head_over, 0, unit)
        # Where the next block lies is looked up a block ahead, so that its rows need not wait.
        low = tl.where(is_segment_over, 0, low + BLOCK.BLOCK_KV)
        segment = tl.where(is_head_over, first_segment, segment + is_segment_over.to(tl.int32))
        head += is_head_over.to(tl.int32)
        if is_segment_over:
            origin, num_tokens, first_slot, page_start = find_segment(tables, segment, stop)
        token = tl.minimum(low + offs_kv, tl.maximum(num_tokens - 1, 0))
        page = tl.load(tables.pages + page_start + (first_slot + token) // SHAPE.PAGE_SIZE)
