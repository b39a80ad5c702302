"""The producer: query rows and KV, copied into shared memory ahead of the products."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.grouped.claim import ONE, claim, publish, reset_claims
from bough.kernels.gluon.grouped.load_queries import ROW, ROWS, load_queries
from bough.kernels.gluon.grouped.shared import as_pairs
from bough.kernels.gluon.grouped.tile import (
    BLOCK_BITS,
    MANY_ROWS,
    count_lanes,
    find_segment,
    find_tile,
    key_columns,
    no_tile,
)


class Segment(NamedTuple):
    """A run of tokens: its pages, the slot of its first token in the first, and its length."""

    pages: Any
    first_slot: Any
    num_tokens: Any


@gluon.jit
def load_items(queries, key, value, tables, shared, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Claim item after item and stream its heads, block after block, without a pause."""
    num_items = gl.load(tables.num_items)
    at = gl.program_id(0)
    turn = 0
    block = 0
    units = (0, 0)
    while at < num_items:
        tile = find_tile(tables, at, block, units, SHAPE, BLOCK)
        publish(shared.claims, turn, tile)
        turn += 1
        at = claim(tables)
        if BLOCK.TALL_BITS > 0 and tile.num_rows > MANY_ROWS:
            if BLOCK.TALL_BITS > BLOCK_BITS:
                block = _skip_odd(shared, block, BLOCK)
            block, units = _load_item(
                queries, key, value, tables, shared, tile, block, units, SHAPE, BLOCK, True
            )
        if (BLOCK.HAS_FEW or BLOCK.HAS_MANY) and tile.num_rows <= MANY_ROWS:
            block, units = _load_item(
                queries, key, value, tables, shared, tile, block, units, SHAPE, BLOCK, False
            )
    publish(shared.claims, turn, no_tile())
    reset_claims(tables)


@gluon.jit
def _skip_odd(shared, block, BLOCK: gl.constexpr):
    """Leave an odd place empty: of the two that a long block takes, the first is even."""
    if block % 2 == 1:
        stage = block % BLOCK.NUM_STAGES
        phase = ((block // BLOCK.NUM_STAGES) & 1) ^ 1
        mbarrier.wait(shared.k_empty.index(stage), phase)
        mbarrier.arrive(shared.k_full.index(stage), count=128)
        mbarrier.wait(shared.v_empty.index(stage), phase)
        mbarrier.arrive(shared.v_full.index(stage), count=128)
        block += 1
    return block


@gluon.jit
def _load_item(
    queries, key, value, tables, shared, tile, block, units, SHAPE: gl.constexpr,
    BLOCK: gl.constexpr, IS_TALL: gl.constexpr,
):  # fmt: skip
    """Begin to copy query rows and blocks of every head of an item.

    A thread looks one token's page up, a block ahead, and works its row out; threads that copy
    the row are told. Keys and values lie at the same steps; of tied specs, `key` is the rotary key
    and `value` the states. Returns the numbers of blocks and of each consumer's query tiles so far.
    """
    BITS: gl.constexpr = BLOCK.TALL_BITS if IS_TALL else BLOCK_BITS
    K_DIM: gl.constexpr = key_columns(SHAPE)
    offs_key = gl.arange(0, K_DIM, layout=gl.SliceLayout(0, ROWS))[None, :]
    offs_value = gl.arange(0, SHAPE.V_DIM, layout=gl.SliceLayout(0, ROWS))[None, :]
    num_tokens = 1 << BITS if IS_TALL else 1 << tile.token_bits
    block_row = gl.arange(0, 1 << BITS, layout=ROW)
    token = block_row & (num_tokens - 1)
    column = ((block_row >> tile.token_bits) * value.stride_head)[:, None]
    own_token = gl.arange(0, 1 << BITS, layout=ONE) & (num_tokens - 1)
    step = 1 if IS_TALL else 1 << tile.pack_bits
    lanes = 1 if IS_TALL else count_lanes(tile)
    segment = tile.first_segment
    run = _find_run(tables, segment, tile)
    page = _look_up(run, own_token, SHAPE)
    low = 0
    head = tile.first_head
    is_new_head = True
    while head < tile.first_head + tile.num_heads:
        if is_new_head:
            units = load_queries(queries, tables, shared, tile, head, units, SHAPE, BLOCK, IS_TALL)
        row = page.to(gl.int64) * value.stride_page
        row += (run.first_slot + low + own_token) % SHAPE.PAGE_SIZE * value.stride_slot
        row = gl.convert_layout(row, ROW)[:, None]
        is_token = (low + token < run.num_tokens)[:, None]
        first_lane = head
        low += num_tokens
        is_new_head = False
        if low >= run.num_tokens:
            low = 0
            segment += 1
            is_new_head = segment == tile.last_segment
            segment = gl.where(is_new_head, tile.first_segment, segment)
            head += gl.where(is_new_head, lanes * step, 0)
            if tile.last_segment - tile.first_segment > 1:
                run = _find_run(tables, segment, tile)
        page = _look_up(run, low + own_token, SHAPE)
        for lane in range(lanes):
            of_head = row + (first_lane + lane * step) * value.stride_head + column
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
    return block, units


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
