"""The producer: rows of stored tokens, gathered by page into shared memory."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma

from bough.kernels.gluon.latent.walk import open_segment, segment_tokens

# Rows of which eight threads hold 128 bytes each.
ROW_WISE = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))


@gluon.jit
def load_blocks(
    plane,
    state_boxes,
    rope_boxes,
    tables,
    work,
    state_blocks,
    rope_blocks,
    full,
    empty,
    SHAPE: gl.constexpr,
):
    """Fill stage after stage with a block's states and rotary keys, zeros beyond its tokens.

    A whole block inside one page is one box of the copy engine. Any other is gathered: eight
    neighbouring threads copy a row, 128 bytes at a time, so that each works out the row's address
    once for all of its columns. Page ids are read one block ahead either way.
    """
    NUM_BYTES: gl.constexpr = SHAPE.BLOCK_KV * (SHAPE.V_DIM + SHAPE.ROPE_DIM) * 2
    ROPE_COLUMN: gl.constexpr = SHAPE.NUM_KV_HEADS * SHAPE.V_DIM
    first_column = work.head * SHAPE.V_DIM
    offs_kv = gl.arange(0, SHAPE.BLOCK_KV, layout=gl.SliceLayout(1, ROW_WISE))
    if work.num_blocks > 0:
        segment = work.first_segment
        num_tokens, slot, page_ptr = open_segment(tables, work, segment, SHAPE)
        page = find_pages(page_ptr, slot, num_tokens, SHAPE)
        first_page = gl.load(page_ptr + slot // SHAPE.PAGE_SIZE)
        stage = 0
        phase = 1
        for block in range(work.num_blocks):
            is_box = (num_tokens >= SHAPE.BLOCK_KV) & (slot % SHAPE.BLOCK_KV == 0)
            row = page.to(gl.int64) * plane.stride_page
            row += ((slot + offs_kv) % SHAPE.PAGE_SIZE) * plane.stride_slot
            mask = offs_kv < num_tokens
            box = first_page * SHAPE.PAGE_SIZE + slot % SHAPE.PAGE_SIZE
            num_tokens -= SHAPE.BLOCK_KV
            slot += SHAPE.BLOCK_KV
            if (num_tokens <= 0) & (block + 1 < work.num_blocks):
                while num_tokens <= 0:
                    segment += 1
                    num_tokens = segment_tokens(tables, segment, work.stop)
                num_tokens, slot, page_ptr = open_segment(tables, work, segment, SHAPE)
            if SHAPE.HAS_BOXES:
                first_page = gl.load(
                    page_ptr + slot // SHAPE.PAGE_SIZE, mask=num_tokens > 0, other=0
                )
            if not SHAPE.HAS_BOXES or (num_tokens < SHAPE.BLOCK_KV) | (slot % SHAPE.BLOCK_KV != 0):
                page = find_pages(page_ptr, slot, num_tokens, SHAPE)

            mbarrier.wait(empty.index(stage), phase)
            states = state_blocks.index(stage)
            rope = rope_blocks.index(stage)
            if SHAPE.HAS_BOXES and is_box:
                mbarrier.expect(full.index(stage), NUM_BYTES)
                mbarrier.arrive(full.index(stage), count=127)
                tma.async_copy_global_to_shared(
                    state_boxes, [box, first_column], full.index(stage), states
                )
                tma.async_copy_global_to_shared(
                    rope_boxes, [box, ROPE_COLUMN], full.index(stage), rope
                )
            else:
                gather_rows(plane.ptr + first_column, row, mask, states)
                gather_rows(plane.ptr + ROPE_COLUMN, row, mask, rope)
                if SHAPE.HAS_BOXES:
                    # These few are fenced here, so that consumers need not fence each block.
                    async_copy.commit_group()
                    async_copy.wait_group(0)
                    hand_over(full.index(stage), 128)
                else:
                    async_copy.mbarrier_arrive(full.index(stage), increment_count=False)
            stage += 1
            if stage == SHAPE.NUM_STAGES:
                stage = 0
                phase ^= 1


@gluon.jit
def find_pages(page_ptr, slot, num_tokens, SHAPE: gl.constexpr):
    """Page of each row of a block that starts at a slot of a segment."""
    offs_kv = gl.arange(0, SHAPE.BLOCK_KV, layout=gl.SliceLayout(1, ROW_WISE))
    page_ptrs = page_ptr + (slot + offs_kv) // SHAPE.PAGE_SIZE
    return gl.load(page_ptrs, mask=offs_kv < num_tokens, other=0)


@gluon.jit
def gather_rows(ptr, row, mask, block):
    """Begin to copy rows, the first columns from `ptr` on, and zeros where the mask is off."""
    offs = gl.arange(0, block.shape[1], layout=gl.SliceLayout(0, ROW_WISE))
    ptrs = ptr + row[:, None] + offs[None, :]
    async_copy.async_copy_global_to_shared(block, ptrs, mask=mask[:, None])


@gluon.jit
def hand_over(full, COUNT: gl.constexpr):
    """Let products read what the threads here have gathered and waited for."""
    fence_async_shared()
    gl.thread_barrier()
    mbarrier.arrive(full, count=COUNT)


@gluon.jit
def wait_for_block(full, phase, SHAPE: gl.constexpr):
    """Wait until a block is there for products to read."""
    mbarrier.wait(full, phase)
    if not SHAPE.HAS_BOXES:
        fence_async_shared()
