"""Half of the columns of wide latents: added up, and loaded again where they are used up."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from bough.kernels.gluon.latent.load import find_pages, gather_rows, hand_over
from bough.kernels.gluon.latent.rows import store_columns
from bough.kernels.gluon.latent.walk import open_segment, segment_tokens

# Barriers, one each for: the rotary block is there, weights are there, scores of the next block
# are there, both halves are added, the last factors are there.
HAS_ROPE = gl.constexpr(0)
HAS_WEIGHTS = gl.constexpr(1)
HAS_SCORES = gl.constexpr(2)
ADDED = gl.constexpr(3)
HAS_INVERSE = gl.constexpr(4)


@gluon.jit
def add_half(
    plane,
    state_boxes,
    rope_boxes,
    tables,
    states,
    work,
    buffers,
    SHAPE: gl.constexpr,
    HALF: gl.constexpr,
):
    """Add up half of the columns, a block while the next is weighed, and refill that half.

    The second half sees to the rotary keys too: they are loaded two blocks ahead of those added,
    states three. What is gathered is handed over while a later block is added.
    """
    WIDTH: gl.constexpr = SHAPE.V_DIM // 2
    OUT: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, WIDTH, 16]
    )
    ROWS: gl.constexpr = gl.SliceLayout(1, OUT)
    ROPE_COLUMN: gl.constexpr = SHAPE.NUM_KV_HEADS * SHAPE.V_DIM
    if work.num_blocks > 0:
        segment = work.first_segment
        num_tokens, slot, page_ptr = open_segment(tables, work, segment, SHAPE)
        first_column = work.head * SHAPE.V_DIM + HALF * WIDTH
        has_rope = buffers.signals.index(HAS_ROPE)
        acc = gl.zeros([64, WIDTH], gl.float32, OUT)
        rows = _find_rows(plane, page_ptr, slot, num_tokens, SHAPE)
        tokens = num_tokens
        stage = 0
        phase = 0
        for load in range(work.num_blocks + SHAPE.NUM_STAGES):
            block = load - SHAPE.NUM_STAGES
            last_rows = rows
            last_tokens = tokens
            if load < work.num_blocks:
                rows = _find_rows(plane, page_ptr, slot, num_tokens, SHAPE)
                tokens = num_tokens
            full = buffers.full.index(2 * stage + HALF)
            half = buffers.state_blocks.index(2 * stage + HALF)
            if block >= 0:
                mbarrier.wait(full, phase)
                mbarrier.wait(buffers.signals.index(HAS_WEIGHTS), block & 1)
                acc = acc * buffers.factors.index(0).load(ROWS)[:, None]
                mbarrier.wait(buffers.signals.index(HAS_SCORES), (block & 1) ^ 1)
                adding = warpgroup_mma(buffers.weights, half, acc, is_async=True)
                if load <= work.num_blocks:
                    if HALF == 1:
                        _load_rows(
                            plane, rope_boxes, last_rows, last_tokens, ROPE_COLUMN, has_rope,
                            buffers.rope_block, SHAPE,
                        )  # fmt: skip
                    if not SHAPE.HAS_BOXES:
                        async_copy.wait_group(HALF)
                        last_stage = (stage + SHAPE.NUM_STAGES - 1) % SHAPE.NUM_STAGES
                        hand_over(buffers.full.index(2 * last_stage + HALF), 1)
                acc = warpgroup_mma_wait(0, deps=[adding])
                mbarrier.arrive(buffers.signals.index(ADDED), count=1)
            elif HALF == 1 and load == 0:
                _load_rows(
                    plane, rope_boxes, rows, tokens, ROPE_COLUMN, has_rope, buffers.rope_block,
                    SHAPE,
                )  # fmt: skip
            if load < work.num_blocks:
                _load_rows(plane, state_boxes, rows, tokens, first_column, full, half, SHAPE)
                num_tokens -= SHAPE.BLOCK_KV
                slot += SHAPE.BLOCK_KV
                if (num_tokens <= 0) & (load + 1 < work.num_blocks):
                    while num_tokens <= 0:
                        segment += 1
                        num_tokens = segment_tokens(tables, segment, work.stop)
                    num_tokens, slot, page_ptr = open_segment(tables, work, segment, SHAPE)
            elif not SHAPE.HAS_BOXES:
                async_copy.commit_group()
            if not SHAPE.HAS_BOXES:
                if load == 2:
                    _hand_over_first(buffers, HALF)
                if HALF == 1 and (block >= 0) & (load <= work.num_blocks):
                    async_copy.wait_group(1)
                    hand_over(has_rope, 1)
            if HALF == 1 and (load == 2) & (work.num_blocks > 1):
                mbarrier.wait(buffers.signals.index(HAS_SCORES), 0)
                _load_rows(
                    plane, rope_boxes, last_rows, last_tokens, ROPE_COLUMN, has_rope,
                    buffers.rope_block, SHAPE,
                )  # fmt: skip
                if not SHAPE.HAS_BOXES:
                    async_copy.wait_group(0)
                    hand_over(has_rope, 1)
            stage += 1
            if stage == SHAPE.NUM_STAGES:
                stage = 0
                if load >= SHAPE.NUM_STAGES:
                    phase ^= 1
        mbarrier.wait(buffers.signals.index(HAS_INVERSE), 0)
        acc = acc * buffers.factors.index(1).load(ROWS)[:, None]
        target = buffers.targets.load(ROWS)
        store_columns(states, work, work.first_row, target, acc, HALF * WIDTH, SHAPE)


@gluon.jit
def _hand_over_first(buffers, HALF: gl.constexpr):
    """Hand over the first two blocks and rotary keys, when three have begun to be gathered."""
    async_copy.wait_group(2)
    hand_over(buffers.full.index(HALF), 1)
    if HALF == 1:
        hand_over(buffers.signals.index(HAS_ROPE), 1)
    async_copy.wait_group(1)
    hand_over(buffers.full.index(2 + HALF), 1)


@gluon.jit
def _find_rows(plane, page_ptr, slot, num_tokens, SHAPE: gl.constexpr):
    """Where a block lies: its first row over all pages, or each row in units of 16 bytes."""
    if SHAPE.HAS_BOXES:
        page = gl.load(page_ptr + slot // SHAPE.PAGE_SIZE)
        rows = page * SHAPE.PAGE_SIZE + slot % SHAPE.PAGE_SIZE
    else:
        page = find_pages(page_ptr, slot, num_tokens, SHAPE)
        at = (slot + gl.arange(0, SHAPE.BLOCK_KV, layout=page.type.layout)) % SHAPE.PAGE_SIZE
        rows = page * (plane.stride_page // 8) + at * (plane.stride_slot // 8)
    return rows


@gluon.jit
def _load_rows(plane, boxes, rows, num_tokens, first_column, barrier, block, SHAPE: gl.constexpr):
    """Begin to copy columns of a block's rows; what is gathered is a group of copies."""
    if SHAPE.HAS_BOXES:
        mbarrier.expect(barrier, block.shape[0] * block.shape[1] * 2)
        tma.async_copy_global_to_shared(boxes, [rows, first_column], barrier, block)
    else:
        offs_kv = gl.arange(0, SHAPE.BLOCK_KV, layout=rows.type.layout)
        # Units up to 64 GiB: the sign is the highest bit.
        start = rows.to(gl.uint32).to(gl.int64) * 8
        gather_rows(plane.ptr + first_column, start, offs_kv < num_tokens, block)
        async_copy.commit_group()
