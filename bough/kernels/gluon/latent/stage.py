"""Blocks of latents stored in fp8, on their way into shared memory as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from bough.kernels.gluon.latent.walk import segment_tokens
from bough.kernels.gluon.quantized.operands import staged_layout

# Eight neighbouring threads copy a row, sixteen bytes each, of states and of rotary keys alike.
_BYTES = gl.constexpr(gl.BlockedLayout([1, 16], [4, 8], [4, 1], [1, 0]))
ROPE_ROWS = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))
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
    ROWS: gl.constexpr = staged_layout(SHAPE.V_DIM, 1)
    ROPE: gl.constexpr = staged_layout(SHAPE.ROPE_DIM, 2)
    WORDS: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    return Staged(
        gl.allocate_shared_memory(gl.float8e4nv, [NUM_PLACES, BLOCK_KV, SHAPE.V_DIM], ROWS),
        gl.allocate_shared_memory(gl.int32, [NUM_PLACES, BLOCK_KV], WORDS),
        gl.allocate_shared_memory(gl.bfloat16, [NUM_PLACES, BLOCK_KV, SHAPE.ROPE_DIM], ROPE),
    )


@gluon.jit
def first_block(tables, work):
    """Stand before the first block, if there is one."""
    cursor = Cursor(0, work.first_segment, 0, 0, tables.pages)
    if work.num_blocks > 0:
        cursor = Cursor(
            0,
            work.first_segment,
            segment_tokens(tables, work.first_segment, work.stop),
            gl.load(tables.segment_first_slot + work.first_segment),
            tables.pages + gl.load(tables.segment_page_start + work.first_segment),
        )
    return cursor


@gluon.jit
def next_block(tables, work, cursor, SHAPE: gl.constexpr):
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
def look_up(cursor, SHAPE: gl.constexpr):
    """Page of each token of the cursor's block."""
    offs_kv = gl.arange(0, SHAPE.BLOCK_KV, layout=_ROW)
    ptrs = cursor.page_ptr + (cursor.slot + offs_kv) // SHAPE.PAGE_SIZE
    return gl.load(ptrs, mask=offs_kv < cursor.num_tokens, other=0)


@gluon.jit
def copy_block(stored, work, staged, cursor, page, place, SHAPE: gl.constexpr):
    """Begin to copy the cursor's block; zeros where it has no tokens."""
    offs_kv = gl.arange(0, SHAPE.BLOCK_KV, layout=_ROW)
    slot = (cursor.slot + offs_kv) % SHAPE.PAGE_SIZE
    mask = offs_kv < cursor.num_tokens
    page64 = page.to(gl.int64)
    row = page64 * stored.key.stride_page + slot * stored.key.stride_slot
    row += work.head * stored.key.stride_head
    _copy_rows(stored.key.ptr, row, mask, staged.states.index(place), _BYTES)
    row = page64 * stored.rope.stride_page + slot * stored.rope.stride_slot
    HALF_ROW: gl.constexpr = gl.SliceLayout(1, ROPE_ROWS)
    row = gl.convert_layout(row, HALF_ROW, assert_trivial=True)
    is_row = gl.convert_layout(mask, HALF_ROW, assert_trivial=True)
    _copy_rows(stored.rope.ptr, row, is_row, staged.rope.index(place), ROPE_ROWS)
    row = page64 * stored.scales.stride_page + slot * stored.scales.stride_slot
    row += work.head * stored.scales.stride_head
    words = staged.words.index(place)
    async_copy.async_copy_global_to_shared(words, stored.scales.ptr + row, mask=mask)


@gluon.jit
def _copy_rows(ptr, row, mask, block, LAYOUT: gl.constexpr):
    offs = gl.arange(0, block.shape[1], layout=gl.SliceLayout(0, LAYOUT))
    ptrs = ptr + row[:, None] + offs[None, :]
    async_copy.async_copy_global_to_shared(block, ptrs, mask=mask[:, None])
