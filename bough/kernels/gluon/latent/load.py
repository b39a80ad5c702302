"""The producer: rows of stored tokens, gathered by page into shared memory."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma

from bough.kernels.gluon.latent.walk import segment_tokens


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
    NUM_KV_HEADS: gl.constexpr,
    V_DIM: gl.constexpr,
    ROPE_DIM: gl.constexpr,
    PAGE_SIZE: gl.constexpr,
    HAS_BOXES: gl.constexpr,
    BLOCK_KV: gl.constexpr,
    NUM_STAGES: gl.constexpr,
):
    """Fill stage after stage with a block's states and rotary keys, zeros beyond its tokens.

    A whole block inside one page is one box of the copy engine. Any other is gathered: eight
    neighbouring threads copy a row, 128 bytes at a time, so that each works out the row's address
    once for all of its columns. Page ids are read one block ahead either way.
    """
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    NUM_BYTES: gl.constexpr = BLOCK_KV * (V_DIM + ROPE_DIM) * 2
    offs_kv = gl.arange(0, BLOCK_KV, layout=gl.SliceLayout(1, LAYOUT))
    state_ptr = plane.ptr + work.head * plane.stride_head
    rope_ptr = plane.ptr + NUM_KV_HEADS * V_DIM

    segment = work.first_segment
    num_tokens = 0
    slot = 0
    page_ptr = tables.pages
    if work.num_blocks > 0:
        num_tokens = segment_tokens(tables, segment, work.stop)
        slot = gl.load(tables.segment_first_slot + segment)
        page_ptr = tables.pages + gl.load(tables.segment_page_start + segment)
    page = gl.load(page_ptr + (slot + offs_kv) // PAGE_SIZE, mask=offs_kv < num_tokens, other=0)
    first_page = gl.load(page_ptr + slot // PAGE_SIZE)
    stage = 0
    phase = 1
    for block in range(work.num_blocks):
        is_box = (num_tokens >= BLOCK_KV) & (slot % BLOCK_KV == 0)
        row = page.to(gl.int64) * plane.stride_page
        row += ((slot + offs_kv) % PAGE_SIZE) * plane.stride_slot
        mask = offs_kv < num_tokens
        box = first_page * PAGE_SIZE + slot % PAGE_SIZE
        num_tokens -= BLOCK_KV
        slot += BLOCK_KV
        if (num_tokens <= 0) & (block + 1 < work.num_blocks):
            while num_tokens <= 0:
                segment += 1
                num_tokens = segment_tokens(tables, segment, work.stop)
            slot = gl.load(tables.segment_first_slot + segment)
            page_ptr = tables.pages + gl.load(tables.segment_page_start + segment)
        if HAS_BOXES:
            first_page = gl.load(page_ptr + slot // PAGE_SIZE, mask=num_tokens > 0, other=0)
        if not HAS_BOXES or (num_tokens < BLOCK_KV) | (slot % BLOCK_KV != 0):
            page = gl.load(
                page_ptr + (slot + offs_kv) // PAGE_SIZE, mask=offs_kv < num_tokens, other=0
            )

        mbarrier.wait(empty.index(stage), phase)
        states = state_blocks.index(stage)
        rope = rope_blocks.index(stage)
        if HAS_BOXES:
            if is_box:
                column = work.head * V_DIM
                mbarrier.expect(full.index(stage), NUM_BYTES)
                mbarrier.arrive(full.index(stage), count=127)
                tma.async_copy_global_to_shared(
                    state_boxes, [box, column], full.index(stage), states
                )
                tma.async_copy_global_to_shared(
                    rope_boxes, [box, NUM_KV_HEADS * V_DIM], full.index(stage), rope
                )
            else:
                # These few are fenced here, so that consumers need not fence each block.
                _gather(state_ptr, row, mask, states, V_DIM, LAYOUT)
                _gather(rope_ptr, row, mask, rope, ROPE_DIM, LAYOUT)
                async_copy.commit_group()
                async_copy.wait_group(0)
                fence_async_shared()
                gl.thread_barrier()
                mbarrier.arrive(full.index(stage), count=128)
        else:
            _gather(state_ptr, row, mask, states, V_DIM, LAYOUT)
            _gather(rope_ptr, row, mask, rope, ROPE_DIM, LAYOUT)
            async_copy.mbarrier_arrive(full.index(stage), increment_count=False)
        stage += 1
        if stage == NUM_STAGES:
            stage = 0
            phase ^= 1


@gluon.jit
def _gather(ptr, row, mask, block, COLUMNS: gl.constexpr, LAYOUT: gl.constexpr):
    """Begin to copy rows, the first columns from `ptr`, and zeros where the mask is off."""
    offs = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, LAYOUT))
    ptrs = ptr + row[:, None] + offs[None, :]
    async_copy.async_copy_global_to_shared(block, ptrs, mask=mask[:, None])


@gluon.jit
def wait_for_block(full, phase, HAS_BOXES: gl.constexpr):
    """Wait until a block is there for products to read."""
    mbarrier.wait(full, phase)
    if not HAS_BOXES:
        fence_async_shared()
