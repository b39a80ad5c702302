"""Attention of latents of at most 256 columns: a warpgroup holds 64 rows with all of them."""

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
    """What warpgroups share: tiles, and barriers that tell who may use them."""

    q_nope: Any
    q_rope: Any
    state_blocks: Any
    rope_blocks: Any
    full: Any
    empty: Any
    turns: Any


@gluon.jit
def attend_narrow(
    queries,
    plane,
    state_boxes,
    rope_boxes,
    sinks_ptr,
    tables,
    states,
    scale,
    NUM_KV_HEADS: gl.constexpr,
    GROUP_SIZE: gl.constexpr,
    V_DIM: gl.constexpr,
    ROPE_DIM: gl.constexpr,
    PAGE_SIZE: gl.constexpr,
    HAS_BOXES: gl.constexpr,
    HAS_SINKS: gl.constexpr,
    NUM_SLICES: gl.constexpr,
    NUM_STAGES: gl.constexpr,
    CONSUMER_REGISTERS: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr,
):
    """Attend 128 rows to segments: two warpgroups take half of them each, a third one loads."""
    BLOCK_KV: gl.constexpr = 64
    dtype: gl.constexpr = plane.ptr.dtype.element_ty
    work = find_work(tables, NUM_KV_HEADS, GROUP_SIZE, NUM_SLICES, 128, BLOCK_KV, False)
    TILE: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    ROPE: gl.constexpr = gl.NVMMASharedLayout(
        swizzle_byte_width=ROPE_DIM * 2, element_bitwidth=16, rank=2
    )
    q_nope = gl.allocate_shared_memory(dtype, [2, 64, V_DIM], TILE)
    q_rope = gl.allocate_shared_memory(dtype, [2, 64, ROPE_DIM], ROPE)
    state_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, BLOCK_KV, V_DIM], TILE)
    rope_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, BLOCK_KV, ROPE_DIM], ROPE)
    full = gl.allocate_shared_memory(gl.int64, [NUM_STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [NUM_STAGES, 1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    mbarrier.init(turns.index(0), count=1)
    mbarrier.init(turns.index(1), count=1)
    for stage in gl.static_range(NUM_STAGES):
        mbarrier.init(full.index(stage), count=128)
        mbarrier.init(empty.index(stage), count=2)
    fence_async_shared()
    buffers = Buffers(q_nope, q_rope, state_blocks, rope_blocks, full, empty, turns)
    gl.warp_specialize(
        [
            (_attend, (
                queries, sinks_ptr, tables, states, scale, work, buffers, NUM_KV_HEADS,
                GROUP_SIZE, V_DIM, ROPE_DIM, HAS_BOXES, HAS_SINKS, BLOCK_KV, NUM_STAGES, 0,
            )),
            (_attend, (
                queries, sinks_ptr, tables, states, scale, work, buffers, NUM_KV_HEADS,
                GROUP_SIZE, V_DIM, ROPE_DIM, HAS_BOXES, HAS_SINKS, BLOCK_KV, NUM_STAGES, 1,
            )),
            (load_blocks, (
                plane, state_boxes, rope_boxes, tables, work, state_blocks, rope_blocks,
                full, empty, NUM_KV_HEADS, V_DIM, ROPE_DIM, PAGE_SIZE, HAS_BOXES, BLOCK_KV,
                NUM_STAGES,
            )),
        ],
        [4, 4],
        [CONSUMER_REGISTERS, PRODUCER_REGISTERS],
    )  # fmt: skip


@gluon.jit
def _pass(
    full,
    empty,
    turns,
    num_blocks,
    NUM_STAGES: gl.constexpr,
    CONSUMER: gl.constexpr,
):
    """Let blocks and turns pass, for a consumer without rows."""
    stage = 0
    phase = 0
    for block in range(num_blocks):
        mbarrier.wait(full.index(stage), phase)
        mbarrier.arrive(empty.index(stage), count=1)
        if block > 0:
            mbarrier.wait(turns.index(CONSUMER), (block & 1) ^ CONSUMER)
            mbarrier.arrive(turns.index(1 - CONSUMER), count=1)
        stage += 1
        if stage == NUM_STAGES:
            stage = 0
            phase ^= 1


@gluon.jit
def _attend(
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
    HAS_BOXES: gl.constexpr,
    HAS_SINKS: gl.constexpr,
    BLOCK_KV: gl.constexpr,
    NUM_STAGES: gl.constexpr,
    CONSUMER: gl.constexpr,
):
    """Attend 64 rows; scores of the next block are on their way while this one is weighed in."""
    SCORE: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_KV, 16]
    )
    OUT: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, V_DIM, 16]
    )
    WEIGHT: gl.constexpr = gl.DotOperandLayout(0, OUT, 2)
    dtype: gl.constexpr = buffers.q_nope.dtype
    first_row = work.first_row + CONSUMER * 64
    if first_row >= work.num_rows:
        _pass(buffers.full, buffers.empty, buffers.turns, work.num_blocks, NUM_STAGES, CONSUMER)
    elif work.num_blocks > 0:
        q_nope = buffers.q_nope.index(CONSUMER)
        q_rope = buffers.q_rope.index(CONSUMER)
        load_queries(queries, tables, work, first_row, q_nope, q_rope, GROUP_SIZE, V_DIM, ROPE_DIM)
        ROWS: gl.constexpr = gl.SliceLayout(1, SCORE)
        position, target = find_targets(tables, work, first_row, GROUP_SIZE, ROWS)
        zeros = gl.zeros([64, BLOCK_KV], gl.float32, SCORE)
        acc = gl.zeros([64, V_DIM], gl.float32, OUT)
        peak = gl.full([64], float("-inf"), gl.float32, ROWS)
        total = gl.zeros([64], gl.float32, ROWS)
        scale_log2 = scale * LOG2_E

        segment = work.first_segment
        first, end = segment_span(tables, segment, work.stop)
        wait_for_block(buffers.full.index(0), 0, HAS_BOXES)
        product = score_block(q_nope, q_rope, buffers, 0, zeros)
        score = warpgroup_mma_wait(0, deps=[product])
        clear = gl.minimum(work.oldest + 1, end)
        score = mask_scores(score, first, end, position, clear)
        score = mask_drafts(score, first, position, clear, tables, work, first_row, GROUP_SIZE)
        weight, _, peak, total = weigh(score, peak, total, scale_log2)
        weight16 = gl.convert_layout(weight.to(dtype), WEIGHT)
        last = 0
        stage = 1
        phase = 0
        for block in range(1, work.num_blocks):
            first += BLOCK_KV
            while first >= end:
                segment += 1
                first, end = segment_span(tables, segment, work.stop)
                clear = gl.minimum(work.oldest + 1, end)
            wait_for_block(buffers.full.index(stage), phase, HAS_BOXES)
            mbarrier.wait(buffers.turns.index(CONSUMER), (block & 1) ^ CONSUMER)
            product = score_block(q_nope, q_rope, buffers, stage, zeros)
            adding = warpgroup_mma(weight16, buffers.state_blocks.index(last), acc, is_async=True)
            mbarrier.arrive(buffers.turns.index(1 - CONSUMER), count=1)
            score = warpgroup_mma_wait(1, deps=[product])
            score = mask_scores(score, first, end, position, clear)
            score = mask_drafts(score, first, position, clear, tables, work, first_row, GROUP_SIZE)
            weight, decay, peak, total = weigh(score, peak, total, scale_log2)
            acc = warpgroup_mma_wait(0, deps=[adding])
            mbarrier.arrive(buffers.empty.index(last), count=1)
            acc = acc * gl.convert_layout(decay, gl.SliceLayout(1, OUT))[:, None]
            weight16 = gl.convert_layout(weight.to(dtype), WEIGHT)
            last = stage
            stage += 1
            if stage == NUM_STAGES:
                stage = 0
                phase ^= 1
        adding = warpgroup_mma(weight16, buffers.state_blocks.index(last), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[adding])
        inverse = finish_rows(
            sinks_ptr, states, work, first_row, target, peak, total, NUM_KV_HEADS, GROUP_SIZE,
            HAS_SINKS,
        )  # fmt: skip
        OUT_ROWS: gl.constexpr = gl.SliceLayout(1, OUT)
        acc = acc * gl.convert_layout(inverse, OUT_ROWS)[:, None]
        target = gl.convert_layout(target, OUT_ROWS)
        store_columns(states, work, first_row, target, acc, 0, NUM_KV_HEADS, GROUP_SIZE, V_DIM)
