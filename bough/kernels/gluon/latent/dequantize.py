"""The producers where latents are stored in fp8: rows staged as they are, then written as 16 bits.

An e4m3 number times a power of two is a bfloat16 number, so products read the very values that are
stored, and consumers know nothing of fp8.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

from bough.kernels.gluon.latent.walk import segment_tokens

# Columns that a power is for.
_SCALE_COLUMNS = gl.constexpr(128)
# Eight neighbouring threads copy a row, sixteen bytes each, of states and of rotary keys alike.
_BYTES = gl.constexpr(gl.BlockedLayout([1, 16], [4, 8], [4, 1], [1, 0]))
_HALVES = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))
_ROW = gl.constexpr(gl.SliceLayout(1, _BYTES))


class Staged(NamedTuple):
    """Places for blocks as they are stored: e4m3 states, words of exponents, rotary keys."""

    states: Any
    words: Any
    rope: Any


class Cursor(NamedTuple):
    """A block: where it begins, and how many tokens of its segment are left."""

    block: Any
    segment: Any
    num_tokens: Any
    slot: Any
    page_ptr: Any


@gluon.jit
def stage_blocks(NUM_PLACES: gl.constexpr, SHAPE: gl.constexpr):
    """Allocate the places."""
    BLOCK_KV: gl.constexpr = SHAPE.BLOCK_KV
    ROWS: gl.constexpr = gl.SwizzledSharedLayout(16, 1, 8, [1, 0])
    ROPE: gl.constexpr = gl.SwizzledSharedLayout(8, 1, 4, [1, 0])
    WORDS: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    return Staged(
        gl.allocate_shared_memory(gl.float8e4nv, [NUM_PLACES, BLOCK_KV, SHAPE.V_DIM], ROWS),
        gl.allocate_shared_memory(gl.int32, [NUM_PLACES, BLOCK_KV], WORDS),
        gl.allocate_shared_memory(gl.bfloat16, [NUM_PLACES, BLOCK_KV, SHAPE.ROPE_DIM], ROPE),
    )


@gluon.jit
def load_quantized_blocks(
    LOADER: gl.constexpr,
    stored,
    tables,
    work,
    staged,
    buffers,
    SHAPE: gl.constexpr,
    NUM_STAGED: gl.constexpr,
    NUM_LOADERS: gl.constexpr,
):
    """Fill stage after stage with a block's states and rotary keys, zeros beyond its tokens.

    Producer LOADER takes every NUM_LOADERS-th block, and has NUM_STAGED places: while one block is
    turned into 16 bits, others are on their way.
    """
    AHEAD: gl.constexpr = NUM_STAGED - 1
    # Few registers turn few columns at a time.
    COLUMNS: gl.constexpr = 64 if NUM_LOADERS == 2 else 32
    cursor = Cursor(0, work.first_segment, 0, 0, tables.pages)
    if work.num_blocks > 0:
        cursor = _open_segment(tables, 0, work.first_segment, work.stop)
    if LOADER == 1:
        cursor = _next_block(tables, work, cursor, SHAPE)
    page = _look_up(cursor, SHAPE)
    num_own = (work.num_blocks - LOADER + NUM_LOADERS - 1) // NUM_LOADERS
    for turn in range(num_own + AHEAD):
        place = turn % NUM_STAGED * NUM_LOADERS + LOADER
        _copy_block(stored, work, staged, cursor, page, place, SHAPE)
        for _ in gl.static_range(NUM_LOADERS):
            cursor = _next_block(tables, work, cursor, SHAPE)
        page = _look_up(cursor, SHAPE)
        if turn >= AHEAD:
            block = (turn - AHEAD) * NUM_LOADERS + LOADER
            place = (turn - AHEAD) % NUM_STAGED * NUM_LOADERS + LOADER
            stage = block % SHAPE.NUM_STAGES
            async_copy.wait_group(AHEAD)
            gl.thread_barrier()
            mbarrier.wait(buffers.empty.index(stage), ((block // SHAPE.NUM_STAGES) & 1) ^ 1)
            states = buffers.state_blocks.index(stage)
            _turn(staged, place, states, buffers.rope_blocks.index(stage), COLUMNS)
            fence_async_shared()
            gl.thread_barrier()
            mbarrier.arrive(buffers.full.index(stage), count=128)


@gluon.jit
def _open_segment(tables, block, segment, stop):
    return Cursor(
        block,
        segment,
        segment_tokens(tables, segment, stop),
        gl.load(tables.segment_first_slot + segment),
        tables.pages + gl.load(tables.segment_page_start + segment),
    )


@gluon.jit
def _next_block(tables, work, cursor, SHAPE: gl.constexpr):
    """Move on; behind the last block no tokens are left."""
    block, segment, num_tokens, slot, page_ptr = cursor
    block += 1
    num_tokens -= SHAPE.BLOCK_KV
    slot += SHAPE.BLOCK_KV
    if (num_tokens <= 0) & (block < work.num_blocks):
        while num_tokens <= 0:
            segment += 1
            num_tokens = segment_tokens(tables, segment, work.stop)
        slot = gl.load(tables.segment_first_slot + segment)
        page_ptr = tables.pages + gl.load(tables.segment_page_start + segment)
    return Cursor(block, segment, num_tokens, slot, page_ptr)


@gluon.jit
def _look_up(cursor, SHAPE: gl.constexpr):
    """Page of each token of the cursor's block."""
    offs_kv = gl.arange(0, SHAPE.BLOCK_KV, layout=_ROW)
    ptrs = cursor.page_ptr + (cursor.slot + offs_kv) // SHAPE.PAGE_SIZE
    return gl.load(ptrs, mask=offs_kv < cursor.num_tokens, other=0)


@gluon.jit
def _copy_block(stored, work, staged, cursor, page, place, SHAPE: gl.constexpr):
    """Begin to copy the cursor's block; zeros where it has no tokens."""
    offs_kv = gl.arange(0, SHAPE.BLOCK_KV, layout=_ROW)
    slot = (cursor.slot + offs_kv) % SHAPE.PAGE_SIZE
    mask = offs_kv < cursor.num_tokens
    page64 = page.to(gl.int64)
    row = page64 * stored.key.stride_page + slot * stored.key.stride_slot
    row += work.head * stored.key.stride_head
    _copy_rows(stored.key.ptr, row, mask, staged.states.index(place), _BYTES)
    row = page64 * stored.rope.stride_page + slot * stored.rope.stride_slot
    HALF_ROW: gl.constexpr = gl.SliceLayout(1, _HALVES)
    row = gl.convert_layout(row, HALF_ROW, assert_trivial=True)
    is_row = gl.convert_layout(mask, HALF_ROW, assert_trivial=True)
    _copy_rows(stored.rope.ptr, row, is_row, staged.rope.index(place), _HALVES)
    row = page64 * stored.scales.stride_page + slot * stored.scales.stride_slot
    row += work.head * stored.scales.stride_head
    words = staged.words.index(place)
    async_copy.async_copy_global_to_shared(words, stored.scales.ptr + row, mask=mask)
    async_copy.commit_group()


@gluon.jit
def _copy_rows(ptr, row, mask, block, LAYOUT: gl.constexpr):
    offs = gl.arange(0, block.shape[1], layout=gl.SliceLayout(0, LAYOUT))
    ptrs = ptr + row[:, None] + offs[None, :]
    async_copy.async_copy_global_to_shared(block, ptrs, mask=mask[:, None])


@gluon.jit
def _turn(staged, place, states, rope, COLUMNS: gl.constexpr):
    """Write a staged block as 16-bit numbers."""
    V_DIM: gl.constexpr = states.shape[1]
    dtype: gl.constexpr = states.dtype
    LAYOUT: gl.constexpr = gl.BlockedLayout(
        [1, 16], [512 // COLUMNS, COLUMNS // 16], [4, 1], [1, 0]
    )
    words = staged.words.index(place).load(gl.SliceLayout(1, LAYOUT))
    rows = staged.states.index(place)
    for low in gl.static_range(0, V_DIM, COLUMNS):
        exponent = (words >> (low // _SCALE_COLUMNS * 8)) & 255
        power = (exponent << 23).to(gl.float32, bitcast=True)
        numbers = rows.slice(low, COLUMNS, dim=1).load(LAYOUT).to(gl.float32)
        states.slice(low, COLUMNS, dim=1).store((numbers * power[:, None]).to(dtype))
    rope.store(staged.rope.index(place).load(_HALVES).to(dtype))
