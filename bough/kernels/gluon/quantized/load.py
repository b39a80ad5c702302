"""The producer: query rows, and blocks of KV as they are stored, copied into shared memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.grouped.claim import NUM_CLAIMS, for_each_item
from bough.kernels.gluon.grouped.load import LEAD
from bough.kernels.gluon.grouped.load_queries import load_queries
from bough.kernels.gluon.grouped.tile import count_lanes, count_rounds
from bough.kernels.gluon.grouped.walk import TOKEN, begin_walk, look_up, walk_on
from bough.kernels.gluon.quantized.operands import KV


class Starts(NamedTuple):
    """Where the rows of a block's tokens begin in each plane."""

    key: Any
    value: Any
    word: Any


@triton.constexpr_function
def _threads_of(columns, itemsize):
    """Neighbouring threads copy a row, sixteen bytes each."""
    threads = columns * itemsize // 16
    return gl.BlockedLayout([1, 16 // itemsize], [32 // threads, threads], [4, 1], [1, 0])


@gluon.jit
def load_items(queries, kv, tables, shared, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Stream item after item, head after head, block after block, without a pause."""
    for_each_item(_load_item, (queries, kv, tables, shared), shared.claims, SHAPE, BLOCK)


@gluon.jit
def _load_item(arguments, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Begin to copy query rows and blocks of every head of an item.

    A thread looks one token's page up, a block ahead; those that copy its rows are told.
    """
    queries, kv, tables, shared = arguments
    if BLOCK.HAS_MANY:
        async_copy.mbarrier_arrive(shared.begun.index(turn % NUM_CLAIMS), increment_count=False)
    ROW: gl.constexpr = gl.SliceLayout(1, _threads_of(SHAPE.V_DIM, 1))
    num_tokens = 1 << tile.token_bits
    own = gl.arange(0, KV, layout=TOKEN)
    row = gl.arange(0, KV, layout=ROW)
    own_token = own & (num_tokens - 1)
    token = row & (num_tokens - 1)
    step = 1 << tile.pack_bits
    lanes = count_lanes(tile)
    walk = begin_walk(tables, tile)
    page = look_up(walk, own_token, SHAPE)
    block = tile.block
    units = (tile.unit_0, tile.unit_1)
    units = load_queries(queries, shared, turn, tile, walk.head, units, SHAPE, BLOCK)
    num_steps = count_rounds(tile) * tile.num_blocks
    for left in range(num_steps, 0, -1):
        if left == gl.minimum(num_steps, LEAD):
            mbarrier.arrive(shared.claims.wanted.index(0), count=1)
        run, _, low, first_lane = walk
        starts = _locate(kv, run, low + own_token, page, own >> tile.token_bits, SHAPE)
        row_page = gl.convert_layout(page, ROW)
        row_starts = _locate(kv, run, low + token, row_page, row >> tile.token_bits, SHAPE)
        starts = Starts(row_starts.key, row_starts.value, starts.word)
        is_own = low + own_token < run.num_tokens
        is_row = low + token < run.num_tokens
        walk, is_new_round = walk_on(tables, tile, walk, num_tokens, True)
        page = look_up(walk, own_token, SHAPE)
        for lane in range(lanes):
            stage = block % BLOCK.NUM_STAGES
            phase = ((block // BLOCK.NUM_STAGES) & 1) ^ 1
            mbarrier.wait(shared.places.empty.index(stage), phase)
            lane_head = first_lane + lane * step
            _copy_block(kv, starts, is_row, is_own, lane_head, shared.places, stage, SHAPE)
            block += 1
        if is_new_round and left > 1:
            units = load_queries(queries, shared, turn, tile, walk.head, units, SHAPE, BLOCK)


@gluon.jit
def _locate(kv, run, token, page, later_head, SHAPE: gl.constexpr):
    """Work out where tokens' rows lie in each plane, `later_head` heads behind the first."""
    page64 = page.to(gl.int64)
    slot = (run.first_slot + token) % SHAPE.PAGE_SIZE
    value = page64 * kv.value.stride_page + slot * kv.value.stride_slot
    value += later_head * kv.value.stride_head
    word = page64 * kv.scales.stride_page + slot * kv.scales.stride_slot
    word += later_head * kv.scales.stride_head
    key = value
    if SHAPE.ROPE_DIM > 0:
        key = page64 * kv.key.stride_page + slot * kv.key.stride_slot
    return Starts(key, value, word)


@gluon.jit
def _copy_block(kv, starts, is_row, is_own, head, places, stage, SHAPE: gl.constexpr):
    """Begin to copy a block to its place. Keys and values lie at the same steps."""
    of_head = head * kv.value.stride_head
    # One rotary key serves the states of all heads.
    key_ptr = kv.key.ptr if SHAPE.ROPE_DIM > 0 else kv.key.ptr + of_head
    _copy_rows(key_ptr, starts.key, is_row, places.k_rows.index(stage))
    _copy_rows(kv.value.ptr + of_head, starts.value, is_row, places.v_rows.index(stage))
    word_ptrs = kv.scales.ptr + head * kv.scales.stride_head + starts.word
    async_copy.async_copy_global_to_shared(places.words.index(stage), word_ptrs, mask=is_own)
    async_copy.mbarrier_arrive(places.full.index(stage), increment_count=False)


@gluon.jit
def _copy_rows(ptr, start, is_row, block):
    DIM: gl.constexpr = block.shape[1]
    THREADS: gl.constexpr = _threads_of(DIM, block.dtype.primitive_bitwidth // 8)
    ROW: gl.constexpr = gl.SliceLayout(1, THREADS)
    offs = gl.arange(0, DIM, layout=gl.SliceLayout(0, THREADS))[None, :]
    start = gl.convert_layout(start, ROW, assert_trivial=True)[:, None]
    mask = gl.convert_layout(is_row, ROW, assert_trivial=True)[:, None]
    async_copy.async_copy_global_to_shared(block, ptr + start + offs, mask=mask)
