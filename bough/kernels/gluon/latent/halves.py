"""Attention of latents of 512 columns in pages of any size: two warpgroups, half of the columns
each; the first weighs too."""

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

from bough.kernels.gluon.latent.load import load_blocks, wait_for_block
from bough.kernels.gluon.latent.rows import (
    LOG2_E,
    find_targets,
    finish_rows,
    load_queries,
    store_columns,
)
from bough.kernels.gluon.latent.softmax import mask_drafts, mask_scores, score_block, weigh
from bough.kernels.gluon.latent.walk import find_work, segment_span


class Buffers(NamedTuple):
    """What warpgroups share: tiles, vectors, and barriers that tell who may use them."""

    q_nope: Any
    q_rope: Any
    state_blocks: Any
    rope_blocks: Any
    factors: Any
    targets: Any
    full: Any
    weighed: Any
    empty: Any


@gluon.jit
def attend_halves(
    queries,
    plane,
    sinks_ptr,
    tables,
    states,
    scale,
    NUM_KV_HEADS: gl.constexpr,
    GROUP_SIZE: gl.constexpr,
    V_DIM: gl.constexpr,
    ROPE_DIM: gl.constexpr,
    PAGE_SIZE: gl.constexpr,
    HAS_SINKS: gl.constexpr,
    NUM_SLICES: gl.constexpr,
    NUM_STAGES: gl.constexpr,
    ADDER_REGISTERS: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr,
):
    """Attend 64 rows to segments."""
    BLOCK_KV: gl.constexpr = 64
    dtype: gl.constexpr = plane.ptr.dtype.element_ty
    work = find_work(tables, NUM_KV_HEADS, GROUP_SIZE, NUM_SLICES, 64, BLOCK_KV, False)
    TILE: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    VECTOR: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    q_nope = gl.allocate_shared_memory(dtype, [64, V_DIM], TILE)
    q_rope = gl.allocate_shared_memory(dtype, [64, ROPE_DIM], TILE)
    state_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, BLOCK_KV, V_DIM], TILE)
    rope_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, BLOCK_KV, ROPE_DIM], TILE)
    factors = gl.allocate_shared_memory(gl.float32, [NUM_STAGES + 1, 64], VECTOR)
    targets = gl.allocate_shared_memory(gl.int32, [64], VECTOR)
    BARRIER: gl.constexpr = mbarrier.MBarrierLayout()
    full = gl.allocate_shared_memory(gl.int64, [NUM_STAGES, 1], BARRIER)
    weighed = gl.allocate_shared_memory(gl.int64, [NUM_STAGES + 1, 1], BARRIER)
    empty = gl.allocate_shared_memory(gl.int64, [NUM_STAGES, 1], BARRIER)
    for stage in gl.static_range(NUM_STAGES):
        mbarrier.init(full.index(stage), count=128)
        mbarrier.init(weighed.index(stage), count=1)
        mbarrier.init(empty.index(stage), count=2)
    mbarrier.init(weighed.index(NUM_STAGES), count=1)
    fence_async_shared()
    buffers = Buffers(
        q_nope, q_rope, state_blocks, rope_blocks, factors, targets, full, weighed, empty
    )
    gl.warp_specialize(
        [
            (_weigh_and_add, (
                queries, sinks_ptr, tables, states, scale, work, buffers, NUM_KV_HEADS,
                GROUP_SIZE, V_DIM, ROPE_DIM, HAS_SINKS, BLOCK_KV, NUM_STAGES,
            )),
            (_add, (states, work, buffers, NUM_KV_HEADS, GROUP_SIZE, V_DIM, NUM_STAGES)),
            (load_blocks, (
                plane, None, None, tables, work, state_blocks, rope_blocks, full, empty,
                NUM_KV_HEADS, V_DIM, ROPE_DIM, PAGE_SIZE, False, BLOCK_KV, NUM_STAGES,
            )),
        ],
        [4, 4],
        [ADDER_REGISTERS, PRODUCER_REGISTERS],
    )  # fmt: skip


@gluon.jit
def _weigh_and_add(
    queries,
    sinks_ptr,
    tables,
    states,
    scale,
    work,
    buffers,
    NUM_KV_HEADS: gl.constexpr,
    GROUP_SIZE: gl.constexpr,
    V_DIM: gl.constexpr,
    ROPE_DIM: gl.constexpr,
    HAS_SINKS: gl.constexpr,
    BLOCK_KV: gl.constexpr,
    NUM_STAGES: gl.constexpr,
):
    """Turn blocks into weights, which take the place of the rotary keys, and add the left half."""
    HALF: gl.constexpr = V_DIM // 2
    SCORE: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_KV, 16]
    )
    OUT: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, HALF, 16]
    )
    OUT_ROWS: gl.constexpr = gl.SliceLayout(1, OUT)
    WEIGHT: gl.constexpr = gl.DotOperandLayout(0, OUT, 2)
    dtype: gl.constexpr = buffers.rope_blocks.dtype
    if work.num_blocks > 0:
        load_queries(
            queries,
            tables,
            work,
            work.first_row,
            buffers.q_nope,
            buffers.q_rope,
            GROUP_SIZE,
            V_DIM,
            ROPE_DIM,
        )
        ROWS: gl.constexpr = gl.SliceLayout(1, SCORE)
        position, target = find_targets(tables, work, work.first_row, GROUP_SIZE, ROWS)
        buffers.targets.store(target)
        zeros = gl.zeros([64, BLOCK_KV], gl.float32, SCORE)
        acc = gl.zeros([64, HALF], gl.float32, OUT)
        peak = gl.full([64], float("-inf"), gl.float32, ROWS)
        total = gl.zeros([64], gl.float32, ROWS)
        scale_log2 = scale * LOG2_E

        segment = work.first_segment
        first, end = segment_span(tables, segment, work.stop)
        wait_for_block(buffers.full.index(0), 0, False)
        product = score_block(buffers.q_nope, buffers.q_rope, buffers, 0, zeros)
        score = warpgroup_mma_wait(0, deps=[product])
        stage = 0
        phase = 0
        for block in range(work.num_blocks):
            while first >= end:
                segment += 1
                first, end = segment_span(tables, segment, work.stop)
            clear = gl.minimum(work.oldest + 1, end)
            score = mask_scores(score, first, end, position, clear)
            score = mask_drafts(
                score, first, position, clear, tables, work, work.first_row, GROUP_SIZE
            )
            weight, decay, peak, total = weigh(score, peak, total, scale_log2)
            weight16 = weight.to(dtype)
            gl.thread_barrier()
            buffers.rope_blocks.index(stage).store(weight16)
            buffers.factors.index(stage).store(decay)
            fence_async_shared()
            mbarrier.arrive(buffers.weighed.index(stage), count=1)
            acc = acc * gl.convert_layout(decay, OUT_ROWS)[:, None]
            left = buffers.state_blocks.index(stage).slice(0, HALF, dim=1)
            weight16 = gl.convert_layout(weight16, WEIGHT)
            adding = warpgroup_mma(weight16, left, acc, is_async=True)
            last = stage
            stage += 1
            if stage == NUM_STAGES:
                stage = 0
                phase ^= 1
            # Past the last block this waits for nothing and multiplies what is there, unused.
            mbarrier.wait(buffers.full.index(stage), phase, pred=block + 1 < work.num_blocks)
            fence_async_shared()
            product = score_block(buffers.q_nope, buffers.q_rope, buffers, stage, zeros)
            acc = warpgroup_mma_wait(2, deps=[adding])
            mbarrier.arrive(buffers.empty.index(last), count=1)
            score = warpgroup_mma_wait(0, deps=[product])
            first += BLOCK_KV
        inverse = finish_rows(
            sinks_ptr, states, work, work.first_row, target, peak, total, NUM_KV_HEADS,
            GROUP_SIZE, HAS_SINKS,
        )  # fmt: skip
        buffers.factors.index(NUM_STAGES).store(inverse)
        mbarrier.arrive(buffers.weighed.index(NUM_STAGES), count=1)
        acc = acc * gl.convert_layout(inverse, OUT_ROWS)[:, None]
        target = gl.convert_layout(target, OUT_ROWS)
        store_columns(states, work, work.first_row, target, acc, 0, NUM_KV_HEADS, GROUP_SIZE, V_DIM)


@gluon.jit
def _add(
    states,
    work,
    buffers,
    NUM_KV_HEADS: gl.constexpr,
    GROUP_SIZE: gl.constexpr,
    V_DIM: gl.constexpr,
    NUM_STAGES: gl.constexpr,
):
    """Add up the right half of the columns by the weights that the other warpgroup left."""
    HALF: gl.constexpr = V_DIM // 2
    OUT: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, HALF, 16]
    )
    OUT_ROWS: gl.constexpr = gl.SliceLayout(1, OUT)
    if work.num_blocks > 0:
        acc = gl.zeros([64, HALF], gl.float32, OUT)
        stage = 0
        phase = 0
        for _ in range(work.num_blocks):
            mbarrier.wait(buffers.full.index(stage), phase)
            mbarrier.wait(buffers.weighed.index(stage), phase)
            acc = acc * buffers.factors.index(stage).load(OUT_ROWS)[:, None]
            fence_async_shared()
            right = buffers.state_blocks.index(stage).slice(HALF, HALF, dim=1)
            adding = warpgroup_mma(buffers.rope_blocks.index(stage), right, acc, is_async=True)
            acc = warpgroup_mma_wait(0, deps=[adding])
            mbarrier.arrive(buffers.empty.index(stage), count=1)
            stage += 1
            if stage == NUM_STAGES:
                stage = 0
                phase ^= 1
        mbarrier.wait(buffers.weighed.index(NUM_STAGES), 0)
        acc = acc * buffers.factors.index(NUM_STAGES).load(OUT_ROWS)[:, None]
        target = buffers.targets.load(OUT_ROWS)
        store_columns(
            states, work, work.first_row, target, acc, HALF, NUM_KV_HEADS, GROUP_SIZE, V_DIM
        )
