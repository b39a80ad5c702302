"""The producer: query rows and KV, copied into shared memory ahead of the products."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.grouped.claim import for_each_item
from bough.kernels.gluon.grouped.load_queries import ROW, ROWS, load_queries
from bough.kernels.gluon.grouped.shared import as_blocks
from bough.kernels.gluon.grouped.tile import BLOCK_BITS, count_lanes, count_rounds, key_columns
from bough.kernels.gluon.grouped.walk import TOKEN, begin_walk, look_up, walk_on

# Blocks before the end of an item at which the scout takes the next one.
LEAD = gl.constexpr(4)


@gluon.jit
def load_items(queries, key, value, tables, shared, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Stream item after item, head after head, block after block, without a pause."""
    for_each_item(_load_item, (queries, key, value, tables, shared), shared.claims, SHAPE, BLOCK)


@gluon.jit
def _load_item(arguments, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Begin to copy query rows and blocks of every head of an item.

    A thread looks one token's page up, a block ahead, and works its row out; threads that copy
    the row are told. Keys and values lie at the same steps; of tied specs, `key` is the rotary key
    and `value` the states.
    """
    queries, key, value, tables, shared = arguments
    KV: gl.constexpr = 1 << BLOCK_BITS
    NUM_PLACES: gl.constexpr = BLOCK.NUM_PLACES
    K_DIM: gl.constexpr = key_columns(SHAPE)
    offs_key = gl.arange(0, K_DIM, layout=gl.SliceLayout(0, ROWS))[None, :]
    offs_value = gl.arange(0, SHAPE.V_DIM, layout=gl.SliceLayout(0, ROWS))[None, :]
    num_tokens = gl.minimum(1 << tile.token_bits, KV)
    block_row = gl.arange(0, KV, layout=ROW)
    token = block_row & (num_tokens - 1)
    column = ((block_row >> tile.token_bits) * value.stride_head)[:, None]
    own_token = gl.arange(0, KV, layout=TOKEN) & (num_tokens - 1)
    step = 1 << tile.pack_bits
    lanes = count_lanes(tile)
    walk = begin_walk(tables, tile)
    page = look_up(walk, own_token, SHAPE)
    place = tile.block
    units = (tile.unit_0, tile.unit_1)
    units = load_queries(queries, shared, turn, tile, walk.head, units, SHAPE, BLOCK)
    num_steps = count_rounds(tile) * tile.num_blocks * NUM_PLACES
    for left in range(num_steps, 0, -1):
        if left == gl.minimum(num_steps, LEAD):
            mbarrier.arrive(shared.claims.wanted.index(0), count=1)
        row = page.to(gl.int64) * value.stride_page
        row += (walk.run.first_slot + walk.low + own_token) % SHAPE.PAGE_SIZE * value.stride_slot
        row = gl.convert_layout(row, ROW)[:, None]
        is_token = (walk.low + token < walk.run.num_tokens)[:, None]
        of_heads = row + walk.head * value.stride_head
        # A block ends with its last place, be there tokens for it or not.
        is_last_place = (left - 1) % NUM_PLACES == 0
        walk, is_new_round = walk_on(tables, tile, walk, num_tokens, is_last_place)
        page = look_up(walk, own_token, SHAPE)
        for lane in range(lanes):
            of_head = of_heads + lane * step * value.stride_head + column
            # One rotary key serves the states of all heads.
            of_key = row if SHAPE.ROPE_DIM > 0 else of_head
            _copy_rows(
                key.ptr + of_key + offs_key, is_token, shared.k_blocks, shared.k_full,
                shared.k_empty, place, BLOCK,
            )  # fmt: skip
            _copy_rows(
                value.ptr + of_head + offs_value, is_token, shared.v_blocks, shared.v_full,
                shared.v_empty, place, BLOCK,
            )  # fmt: skip
            place += 1
        if is_new_round and left > 1:
            units = load_queries(queries, shared, turn, tile, walk.head, units, SHAPE, BLOCK)


@gluon.jit
def _copy_rows(ptrs, is_token, places, full, empty, place, BLOCK: gl.constexpr):
    """Begin to copy rows to their place in a block."""
    KV: gl.constexpr = places.shape[1]
    stage = place % BLOCK.NUM_STAGES
    mbarrier.wait(empty.index(stage), ((place // BLOCK.NUM_STAGES) & 1) ^ 1)
    block = as_blocks(places, BLOCK).index(stage // BLOCK.NUM_PLACES)
    if BLOCK.NUM_PLACES == 1:
        async_copy.async_copy_global_to_shared(block, ptrs, mask=is_token)
    elif stage % 2 == 0:
        async_copy.async_copy_global_to_shared(block.slice(0, KV), ptrs, mask=is_token)
    else:
        async_copy.async_copy_global_to_shared(block.slice(KV, KV), ptrs, mask=is_token)
    async_copy.mbarrier_arrive(full.index(stage), increment_count=False)
