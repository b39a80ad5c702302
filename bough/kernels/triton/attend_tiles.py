"""Attention of a plan's tiles: one program an item, which is a tile on some of its stored heads."""

from __future__ import annotations

import triton
import triton.language as tl

from bough.kernels.triton.attend_heads import attend_heads
from bough.kernels.triton.padding import padded
from bough.kernels.triton.quantized import in_ones
from bough.kernels.triton.rows import find_rows, load_queries, store_states
from bough.kernels.triton.segments import find_segment
from bough.kernels.triton.visit_block import visit_block


@triton.jit
def attend_tiles(
    queries,
    kv,
    sinks_ptr,
    tables,
    states,
    scale,
    SHAPE: tl.constexpr,
    SMALL: tl.constexpr,
    BLOCK: tl.constexpr,
    MOST_HEADS: tl.constexpr,
):
    """Attend rows to segments; write outputs, or partials of queries that other tiles see too.

    Tiles of at most `SMALL.BLOCK_Q` rows run at that height, on all heads of the item; of others,
    which have at most MOST_HEADS, slice `program_id(1)` of `BLOCK.BLOCK_Q` rows runs here, on head
    `program_id(2)` of the item.
    """
    program = tl.program_id(0)
    if program < tl.load(tables.num_items):
        item = tl.load(tables.items + program)
        tile = item // SHAPE.NUM_KV_HEADS
        head = item % SHAPE.NUM_KV_HEADS
        num_rows = tl.load(tables.tile_num_queries + tile) * SHAPE.GROUP_SIZE
        first_row = tl.program_id(1) * BLOCK.BLOCK_Q
        is_own = first_row < num_rows
        if MOST_HEADS > 1:
            is_own = is_own & (tl.program_id(2) < tl.load(tables.tile_num_heads + tile))
        if num_rows <= SMALL.BLOCK_Q:
            if first_row + tl.program_id(2) == 0:
                attend_heads(
                    queries, kv, sinks_ptr, tables, states, scale, tile, head, num_rows,
                    SHAPE, SMALL,
                )  # fmt: skip
        elif is_own:
            if MOST_HEADS > 1:
                head += tl.program_id(2)
            _attend_rows(
                queries, kv, sinks_ptr, tables, states, scale, tile, head, first_row,
                num_rows, SHAPE, BLOCK,
            )  # fmt: skip


@triton.jit
def _attend_rows(
    queries,
    kv,
    sinks_ptr,
    tables,
    states,
    scale,
    tile,
    head,
    first_row,
    num_rows,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    BLOCK_Q: tl.constexpr = BLOCK.BLOCK_Q
    V_PAD: tl.constexpr = padded(SHAPE.V_DIM)
    offs_row, mask_row, query, position, hidden, stop = find_rows(
        tables, tile, first_row, num_rows, SHAPE, BLOCK_Q
    )
    q, q_rope = load_queries(queries, query, head, offs_row, mask_row, SHAPE)

    peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, V_PAD], tl.float32)
    unit = 0
    first_segment = tl.load(tables.tile_segment_indptr + tile)
    last_segment = tl.load(tables.tile_segment_indptr + tile + 1)
    for segment in range(first_segment, last_segment):
        origin, num_tokens, first_slot, page_start = find_segment(tables, segment, stop)
        page_ptr = tables.pages + page_start
        peak, total, acc, unit = _attend_segment(
            kv, page_ptr, first_slot, num_tokens, origin, head, q, q_rope, position,
            hidden, scale, peak, total, acc, unit, SHAPE, BLOCK,
        )  # fmt: skip
    store_states(
        sinks_ptr, tables, states, tile, head, query, offs_row, mask_row, peak, total,
        in_ones(acc, unit, SHAPE), SHAPE,
    )  # fmt: skip


@triton.jit
def _attend_segment(
    kv,
    page_ptr,
    first_slot,
    num_tokens,
    origin,
    head,
    q,
    q_rope,
    position,
    hidden,
    scale,
    peak,
    total,
    acc,
    unit,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Visit a run of tokens whose pages follow `page_ptr`; return the states with it merged in."""
    offs_kv = tl.arange(0, BLOCK.BLOCK_KV)
    last = tl.maximum(num_tokens - 1, 0)
    # Page ids ride one block ahead in a register: loading them next to their rows would make the
    # rows wait for them.
    page = tl.load(page_ptr + (first_slot + tl.minimum(offs_kv, last)) // SHAPE.PAGE_SIZE)
    for low in tl.range(0, num_tokens, BLOCK.BLOCK_KV, num_stages=BLOCK.NUM_STAGES):
        token = low + offs_kv
        mask_kv = token < num_tokens
        slot = (first_slot + tl.minimum(token, last)) % SHAPE.PAGE_SIZE
        peak, total, acc, unit = visit_block(
            kv, page, slot, origin + token, mask_kv, head, q, q_rope, position, hidden, scale,
            peak, total, acc, unit, SHAPE,
        )  # fmt: skip
        ahead = first_slot + tl.minimum(token + BLOCK.BLOCK_KV, last)
        page = tl.load(page_ptr + ahead // SHAPE.PAGE_SIZE)
    return peak, total, acc, unit
