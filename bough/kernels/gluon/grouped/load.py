"""The producer: query rows and KV, copied into shared memory ahead of the products."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.grouped.claim import end_item, next_item
from bough.kernels.gluon.grouped.load_queries import NUM_WARPS, ROW, ROWS, load_queries
from bough.kernels.gluon.grouped.shared import as_pairs
from bough.kernels.gluon.grouped.tile import (
    BLOCK_BITS,
    MANY_ROWS,
    count_lanes,
    count_rounds,
    find_segment,
    key_columns,
)

# A thread of the producer has tokens of its own.
TOKEN = gl.constexpr(gl.BlockedLayout([1], [32], [NUM_WARPS], [0]))
# Blocks before the end of an item at which the scout takes the next one.
LEAD = gl.constexpr(4)


class Segment(NamedTuple):
    """A run of tokens: its pages, the slot of its first token in the first, and its length."""

    pages: Any
    first_slot: Any
    num_tokens: Any


@gluon.jit
def load_items(queries, key, value, tables, shared, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Stream item after item, head after head, block after block, without a pause."""
    turn = 0
    tile = next_item(shared.claims, turn)
    while tile.num_rows > 0:
        if BLOCK.TALL_BITS > 0 and tile.num_rows > MANY_ROWS:
            _load_item(queries, key, value, tables, shared, turn, tile, SHAPE, BLOCK, True)
        if (BLOCK.HAS_FEW or BLOCK.HAS_MANY) and tile.num_rows <= MANY_ROWS:
            _load_item(queries, key, value, tables, shared, turn, tile, SHAPE, BLOCK, False)
        end_item(shared.claims, turn)
        turn += 1
        tile = next_item(shared.claims, turn)


@gluon.jit
def _load_item(
    queries, key, value, tables, shared, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr,
    IS_TALL: gl.constexpr,
):  # fmt: skip
    """Begin to copy query rows and blocks of every head of an item.

    A thread looks one token's page up, a block ahead, and works its row out; threads that copy
    the row are told. Keys and values lie at the same steps; of tied specs, `key` is the rotary key
    and `value` the states.
    """
    BITS: gl.constexpr = BLOCK.TALL_BITS if IS_TALL else BLOCK_BITS
    K_DIM: gl.constexpr = key_columns(SHAPE)
    offs_key = gl.arange(0, K_DIM, layout=gl.SliceLayout(0, ROWS))[None, :]
    offs_value = gl.arange(0, SHAPE.V_DIM, layout=gl.SliceLayout(0, ROWS))[None, :]
    num_tokens = 1 << BITS if IS_TALL else 1 << tile.token_bits
    block_row = gl.arange(0, 1 << BITS, layout=ROW)
    token = block_row & (num_tokens - 1)
    column = ((block_row >> tile.token_bits) * value.stride_head)[:, None]
    own_token = gl.arange(0, 1 << BITS, layout=TOKEN) & (num_tokens - 1)
    step = 1 if IS_TALL else 1 << tile.pack_bits
    lanes = 1 if IS_TALL else count_lanes(tile)
    segment = tile.first_segment
    run = Segment(tables.pages + tile.page_start, tile.first_slot, tile.num_tokens)
    page = _look_up(run, own_token, SHAPE)
    low = 0
    head = tile.first_head
    block = tile.block
    units = (tile.unit_0, tile.unit_1)
    units = load_queries(queries, shared, turn, tile, head, units, SHAPE, BLOCK, IS_TALL)
    num_steps = count_rounds(tile) * tile.num_blocks
    for left in range(num_steps, 0, -1):
        if left == gl.minimum(num_steps, LEAD):
            mbarrier.arrive(shared.claims.wanted.index(0), count=1)
        row = page.to(gl.int64) * value.stride_page
        row += (run.first_slot + low + own_token) % SHAPE.PAGE_SIZE * value.stride_slot
        row = gl.convert_layout(row, ROW)[:, None]
        is_token = (low + token < run.num_tokens)[:, None]
        of_heads = row + head * value.stride_head
        low += num_tokens
        is_new_round = False
        if low >= run.num_tokens:
            low = 0
            segment += 1
            is_new_round = segment == tile.last_segment
            segment = gl.where(is_new_round, tile.first_segment, segment)
            head += gl.where(is_new_round, lanes * step, 0)
            if tile.last_segment - tile.first_segment > 1:
                run = _find_run(tables, segment, tile)
        page = _look_up(run, low + own_token, SHAPE)
        for lane in range(lanes):
            of_head = of_heads + lane * step * value.stride_head + column
            # One rotary key serves the states of all heads.
            of_key = row if SHAPE.ROPE_DIM > 0 else of_head
            _copy_block(
                key.ptr + of_key + offs_key, is_token, shared.k_blocks, shared.k_full,
                shared.k_empty, block, BLOCK, BITS,
            )  # fmt: skip
            _copy_block(
                value.ptr + of_head + offs_value, is_token, shared.v_blocks, shared.v_full,
                shared.v_empty, block, BLOCK, BITS,
            )  # fmt: skip
            block += 1 << (BITS - BLOCK_BITS)
        if is_new_round and left > 1:
            units = load_queries(queries, shared, turn, tile, head, units, SHAPE, BLOCK, IS_TALL)


@gluon.jit
def _copy_block(
    ptrs, is_token, blocks, full, empty, block, BLOCK: gl.constexpr, BITS: gl.constexpr
):
    """Begin to copy a block to its place, or to its two places."""
    stage = block % BLOCK.NUM_STAGES
    phase = ((block // BLOCK.NUM_STAGES) & 1) ^ 1
    mbarrier.wait(empty.index(stage), phase)
    if BITS > BLOCK_BITS:
        mbarrier.wait(empty.index(stage + 1), phase)
        place = as_pairs(blocks, BLOCK).index(stage // 2)
        async_copy.async_copy_global_to_shared(place, ptrs, mask=is_token)
        async_copy.mbarrier_arrive(full.index(stage + 1), increment_count=False)
    else:
        async_copy.async_copy_global_to_shared(blocks.index(stage), ptrs, mask=is_token)
    async_copy.mbarrier_arrive(full.index(stage), increment_count=False)


@gluon.jit
def _find_run(tables, segment, tile):
    _, num_tokens = find_segment(tables, segment, tile.newest)
    return Segment(
        tables.pages + gl.load(tables.segment_page_start + segment),
        gl.load(tables.segment_first_slot + segment),
        num_tokens,
    )


@gluon.jit
def _look_up(run, token, SHAPE: gl.constexpr):
    """Page of each of some tokens, counted in their segment."""
    ptrs = run.pages + (run.first_slot + token) // SHAPE.PAGE_SIZE
    return gl.load(ptrs, mask=token < run.num_tokens, other=0)
