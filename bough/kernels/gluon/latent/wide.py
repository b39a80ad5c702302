"""Attention of latents of 512 columns: a warpgroup weighs, two add up half of the columns each."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from bough.kernels.gluon.late import late, late_range
from bough.kernels.gluon.latent.add_half import (
    ADDED,
    HAS_INVERSE,
    HAS_ROPE,
    HAS_SCORES,
    HAS_WEIGHTS,
    add_half,
)
from bough.kernels.gluon.latent.load import ROW_WISE
from bough.kernels.gluon.latent.rows import (
    find_targets,
    finish_rows,
    locate_rows,
)
from bough.kernels.gluon.latent.scores import mask_drafts
from bough.kernels.gluon.latent.walk import find_work, segment_span, slots_before
from bough.kernels.gluon.softmax import weigh
from bough.kernels.triton.softmax import LOG2_E


class Buffers(NamedTuple):
    """What warpgroups share: tiles, vectors, and barriers that tell who may use them."""

    state_blocks: Any
    rope_block: Any
    q_columns: Any
    weights: Any
    factors: Any
    targets: Any
    full: Any
    signals: Any


@gluon.jit
def attend_wide(
    queries,
    plane,
    state_boxes,
    rope_boxes,
    sinks_ptr,
    tables,
    states,
    scale,
    SHAPE: gl.constexpr,
    REGISTERS: gl.constexpr,
):
    """Attend 64 rows to segments; queries stay in registers, so that three blocks fit."""
    NUM_HALVES: gl.constexpr = 2 * SHAPE.NUM_STAGES
    dtype: gl.constexpr = plane.ptr.dtype.element_ty
    work = find_work(tables, SHAPE)
    TILE: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    VECTOR: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    BARRIER: gl.constexpr = mbarrier.MBarrierLayout()
    state_blocks = gl.allocate_shared_memory(
        dtype, [NUM_HALVES, SHAPE.BLOCK_KV, SHAPE.V_DIM // 2], TILE
    )
    rope_block = gl.allocate_shared_memory(dtype, [SHAPE.BLOCK_KV, SHAPE.ROPE_DIM], TILE)
    q_columns = gl.allocate_shared_memory(dtype, [2, 64, 64], TILE)
    weights = gl.allocate_shared_memory(dtype, [64, SHAPE.BLOCK_KV], TILE)
    factors = gl.allocate_shared_memory(gl.float32, [2, 64], VECTOR)
    targets = gl.allocate_shared_memory(gl.int32, [64], VECTOR)
    full = gl.allocate_shared_memory(gl.int64, [NUM_HALVES, 1], BARRIER)
    signals = gl.allocate_shared_memory(gl.int64, [5, 1], BARRIER)
    for half in gl.static_range(NUM_HALVES):
        mbarrier.init(full.index(half), count=1)
    for signal in gl.static_range(5):
        mbarrier.init(signals.index(signal), count=2 if signal == ADDED else 1)
    fence_async_shared()
    buffers = Buffers(state_blocks, rope_block, q_columns, weights, factors, targets, full, signals)
    gl.warp_specialize(
        [
            (_weigh_blocks, (queries, sinks_ptr, tables, states, scale, work, buffers, SHAPE)),
            (add_half, (
                plane, state_boxes, rope_boxes, tables, states, work, buffers, SHAPE, 0,
            )),
            (add_half, (
                plane, state_boxes, rope_boxes, tables, states, work, buffers, SHAPE, 1,
            )),
        ],
        [4, 4],
        [REGISTERS.second, REGISTERS.third],
    )  # fmt: skip


@gluon.jit
def _load_columns(ptrs, mask, column: gl.constexpr):
    """Load 64 columns of 64 query rows."""
    offs = column + gl.arange(0, 64, layout=gl.SliceLayout(0, ROW_WISE))
    return gl.load(ptrs[:, None] + offs[None, :], mask=mask[:, None], other=0.0)


@gluon.jit
def _as_factor(columns, staging, LAYOUT: gl.constexpr):
    """Hand columns round by way of shared memory, as the left factor of a product wants them."""
    staging.store(columns)
    return staging.load(LAYOUT)


@gluon.jit
def _weigh_blocks(queries, sinks_ptr, tables, states, scale, work, buffers, SHAPE: gl.constexpr):
    """Turn blocks into weights, which take the place of the rotary keys in shared memory."""
    BLOCK_KV: gl.constexpr = SHAPE.BLOCK_KV
    SCORE: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_KV, 16]
    )
    LEFT: gl.constexpr = gl.DotOperandLayout(0, SCORE, 2)
    ROWS: gl.constexpr = gl.SliceLayout(1, SCORE)
    dtype: gl.constexpr = buffers.weights.dtype
    if work.num_blocks > 0:
        query, q_head, mask_row = locate_rows(
            tables, work, work.first_row, SHAPE, gl.SliceLayout(1, ROW_WISE)
        )
        start = query.to(gl.int64) * queries.stride_token + q_head * queries.stride_head
        ptrs = queries.ptr + start
        # All loads are on their way before the first is waited for.
        c0 = _load_columns(ptrs, mask_row, 0)
        c1 = _load_columns(ptrs, mask_row, 64)
        c2 = _load_columns(ptrs, mask_row, 128)
        c3 = _load_columns(ptrs, mask_row, 192)
        c4 = _load_columns(ptrs, mask_row, 256)
        c5 = _load_columns(ptrs, mask_row, 320)
        c6 = _load_columns(ptrs, mask_row, 384)
        c7 = _load_columns(ptrs, mask_row, 448)
        c8 = _load_columns(ptrs, mask_row, 512)
        staging = buffers.q_columns.index(0)
        q0 = _as_factor(c0, staging, LEFT)
        q1 = _as_factor(c1, staging, LEFT)
        q2 = _as_factor(c2, staging, LEFT)
        q3 = _as_factor(c3, staging, LEFT)
        q4 = _as_factor(c4, staging, LEFT)
        q5 = _as_factor(c5, staging, LEFT)
        q6 = _as_factor(c6, staging, LEFT)
        gl.thread_barrier()
        staging.store(c7)
        buffers.q_columns.index(1).store(c8)
        fence_async_shared()
        gl.thread_barrier()
        position, target = find_targets(tables, work, work.first_row, SHAPE, ROWS)
        buffers.targets.store(target)
        zeros = gl.zeros([64, BLOCK_KV], gl.float32, SCORE)
        peak = gl.full([64], float("-inf"), gl.float32, ROWS)
        total = gl.zeros([64], gl.float32, ROWS)
        scale_log2 = scale * LOG2_E

        segment = work.first_segment
        first, end = segment_span(tables, segment, work.stop)
        low = slots_before(tables, segment, SHAPE)
        first -= low
        weight16 = gl.zeros([64, BLOCK_KV], dtype, SCORE)
        decay = gl.full([64], 1.0, gl.float32, ROWS)
        stage = 0
        phase = 0
        for block in range(work.num_blocks + 1):
            # Past the last block nothing is waited for, and what is multiplied is not used.
            is_block = block < work.num_blocks
            left = buffers.state_blocks.index(2 * stage)
            right = buffers.state_blocks.index(2 * stage + 1)
            mbarrier.wait(buffers.full.index(2 * stage), phase, pred=is_block)
            x = warpgroup_mma(q0, _key(left, 0), zeros, use_acc=False, is_async=True)
            x = warpgroup_mma(q1, _key(left, 64), x, is_async=True)
            x = warpgroup_mma(q2, _key(left, 128), x, is_async=True)
            x = warpgroup_mma(q3, _key(left, 192), x, is_async=True)
            mbarrier.wait(buffers.full.index(2 * stage + 1), phase, pred=is_block)
            x = warpgroup_mma(q4, _key(right, 0), x, is_async=True)
            x = warpgroup_mma(q5, _key(right, 64), x, is_async=True)
            x = warpgroup_mma(q6, _key(right, 128), x, is_async=True)
            x = warpgroup_mma(buffers.q_columns.index(0), _key(right, 192), x, is_async=True)
            mbarrier.wait(buffers.signals.index(HAS_ROPE), block & 1, pred=is_block)
            x = warpgroup_mma(
                buffers.q_columns.index(1), buffers.rope_block.permute((1, 0)), x, is_async=True
            )
            if block > 0:
                mbarrier.wait(buffers.signals.index(ADDED), block & 1)
                buffers.weights.store(weight16)
                buffers.factors.index(0).store(decay)
                fence_async_shared()
                mbarrier.arrive(buffers.signals.index(HAS_WEIGHTS), count=1)
            score = warpgroup_mma_wait(0, deps=[x])
            mbarrier.arrive(buffers.signals.index(HAS_SCORES), count=1)
            if is_block:
                high = end - first
                if (low > 0) | (first + BLOCK_KV > gl.minimum(work.oldest + 1, end)):
                    offs_kv = late_range(BLOCK_KV, gl.SliceLayout(0, SCORE), first)
                    newest = gl.minimum(position, end - 1) - first
                    sees = (offs_kv[None, :] <= newest[:, None]) & (offs_kv >= low)[None, :]
                    score = gl.where(sees, score, float("-inf"))
                    score = mask_drafts(
                        score, first, position, first, tables, work, work.first_row, SHAPE
                    )
                weight, decay, peak = weigh(score, peak, scale_log2)
                total = total * decay + gl.sum(weight, 1)
                weight16 = weight.to(dtype)
                if SHAPE.IS_ALIGNED and (low > 0) | (high < BLOCK_KV):
                    _clear_rows(left, low, high, SHAPE.V_DIM // 2)
                    _clear_rows(right, low, high, SHAPE.V_DIM // 2)
                first += BLOCK_KV
                low = 0
                if (first >= end) & (block + 1 < work.num_blocks):
                    while first >= end:
                        segment += 1
                        first, end = segment_span(tables, segment, work.stop)
                    low = slots_before(tables, segment, SHAPE)
                    first -= low
            stage += 1
            if stage == SHAPE.NUM_STAGES:
                stage = 0
                phase ^= 1
        # Rows are located again, rather than kept throughout the loop.
        first_row = late(work.first_row, work.num_blocks)
        inverse = finish_rows(
            sinks_ptr, states, work, first_row, buffers.targets.load(ROWS), peak, total, SHAPE
        )
        buffers.factors.index(1).store(inverse)
        mbarrier.arrive(buffers.signals.index(HAS_INVERSE), count=1)


@gluon.jit
def _key(half, column: gl.constexpr):
    """64 columns of a block as the right factor of a product."""
    return half.slice(column, 64, dim=1).permute((1, 0))


@gluon.jit
def _clear_rows(half, low, high, WIDTH: gl.constexpr):
    """Zero the rows of a block before `low` and from `high` on: nothing times NaN is NaN."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [16, 2], [4, 1], [1, 0])
    offs_kv = gl.arange(0, half.shape[0], layout=gl.SliceLayout(1, LAYOUT))
    keeps = (offs_kv >= low) & (offs_kv < high)
    for column in gl.static_range(0, WIDTH, 16):
        piece = half.slice(column, 16, dim=1)
        rows = piece.load(LAYOUT)
        piece.store(gl.where(keeps[:, None], rows, gl.zeros_like(rows)))
