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

from bough.kernels.gluon.barriers import new_barriers
from bough.kernels.gluon.latent.load import load_blocks, wait_for_block
from bough.kernels.gluon.latent.rows import (
    find_targets,
    finish_rows,
    load_queries,
    store_columns,
)
from bough.kernels.gluon.latent.scores import mask_drafts, mask_scores, score_block
from bough.kernels.gluon.latent.walk import find_work, segment_span
from bough.kernels.gluon.softmax import weigh
from bough.kernels.triton.softmax import LOG2_E


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
    SHAPE: gl.constexpr,
    REGISTERS: gl.constexpr,
):
    """Attend 128 rows to segments: two warpgroups take half of them each, a third one loads."""
    NUM_STAGES: gl.constexpr = SHAPE.NUM_STAGES
    dtype: gl.constexpr = plane.ptr.dtype.element_ty
    work = find_work(tables, SHAPE)
    TILE: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    ROPE: gl.constexpr = gl.NVMMASharedLayout(
        swizzle_byte_width=SHAPE.ROPE_DIM * 2, element_bitwidth=16, rank=2
    )
    q_nope = gl.allocate_shared_memory(dtype, [2, 64, SHAPE.V_DIM], TILE)
    q_rope = gl.allocate_shared_memory(dtype, [2, 64, SHAPE.ROPE_DIM], ROPE)
    state_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, SHAPE.BLOCK_KV, SHAPE.V_DIM], TILE)
    rope_blocks = gl.allocate_shared_memory(
        dtype, [NUM_STAGES, SHAPE.BLOCK_KV, SHAPE.ROPE_DIM], ROPE
    )
    full, empty, turns = new_barriers((NUM_STAGES, NUM_STAGES, 2), (128, 2, 1))
    fence_async_shared()
    buffers = Buffers(q_nope, q_rope, state_blocks, rope_blocks, full, empty, turns)
    gl.warp_specialize(
        [
            (attend_rows, (queries, sinks_ptr, tables, states, scale, work, buffers, SHAPE, 0)),
            (attend_rows, (queries, sinks_ptr, tables, states, scale, work, buffers, SHAPE, 1)),
            (load_blocks, (
                plane, state_boxes, rope_boxes, tables, work, state_blocks, rope_blocks,
                full, empty, SHAPE,
            )),
        ],
        [4, 4],
        [REGISTERS.second, REGISTERS.third],
    )  # fmt: skip


@gluon.jit
def _pass(buffers, num_blocks, SHAPE: gl.constexpr, CONSUMER: gl.constexpr):
    """Let blocks and turns pass, for a consumer without rows."""
    stage = 0
    phase = 0
    for block in range(num_blocks):
        mbarrier.wait(buffers.full.index(stage), phase)
        mbarrier.arrive(buffers.empty.index(stage), count=1)
        if block > 0:
            mbarrier.wait(buffers.turns.index(CONSUMER), (block & 1) ^ CONSUMER)
            mbarrier.arrive(buffers.turns.index(1 - CONSUMER), count=1)
        stage += 1
        if stage == SHAPE.NUM_STAGES:
            stage = 0
            phase ^= 1


@gluon.jit
def attend_rows(
    queries,
    sinks_ptr,
    tables,
    states,
    scale,
    work,
    buffers,
    SHAPE: gl.constexpr,
    CONSUMER: gl.constexpr,
):
    """Attend 64 rows; scores of the next block are on their way while this one is weighed in.

    Two consumers take turns to begin products; one alone need not.
    """
    HAS_TURNS: gl.constexpr = buffers.q_nope.shape[0] == 2
    BLOCK_KV: gl.constexpr = SHAPE.BLOCK_KV
    V_DIM: gl.constexpr = SHAPE.V_DIM
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
        _pass(buffers, work.num_blocks, SHAPE, CONSUMER)
    elif work.num_blocks > 0:
        q_nope = buffers.q_nope.index(CONSUMER)
        q_rope = buffers.q_rope.index(CONSUMER)
        load_queries(queries, tables, work, first_row, q_nope, q_rope, SHAPE)
        ROWS: gl.constexpr = gl.SliceLayout(1, SCORE)
        position, target = find_targets(tables, work, first_row, SHAPE, ROWS)
        zeros = gl.zeros([64, BLOCK_KV], gl.float32, SCORE)
        acc = gl.zeros([64, V_DIM], gl.float32, OUT)
        peak = gl.full([64], float("-inf"), gl.float32, ROWS)
        total = gl.zeros([64], gl.float32, ROWS)
        scale_log2 = scale * LOG2_E

        segment = work.first_segment
        first, end = segment_span(tables, segment, work.stop)
        wait_for_block(buffers.full.index(0), 0, SHAPE)
        product = score_block(q_nope, q_rope, buffers, 0, zeros)
        score = warpgroup_mma_wait(0, deps=[product])
        clear = gl.minimum(work.oldest + 1, end)
        score = mask_scores(score, first, end, position, clear)
        score = mask_drafts(score, first, position, clear, tables, work, first_row, SHAPE)
        weight, decay, peak = weigh(score, peak, scale_log2)
        total = total * decay + gl.sum(weight, 1)
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
            wait_for_block(buffers.full.index(stage), phase, SHAPE)
            if HAS_TURNS:
                mbarrier.wait(buffers.turns.index(CONSUMER), (block & 1) ^ CONSUMER)
            product = score_block(q_nope, q_rope, buffers, stage, zeros)
            adding = warpgroup_mma(weight16, buffers.state_blocks.index(last), acc, is_async=True)
            if HAS_TURNS:
                mbarrier.arrive(buffers.turns.index(1 - CONSUMER), count=1)
            score = warpgroup_mma_wait(1, deps=[product])
            score = mask_scores(score, first, end, position, clear)
            score = mask_drafts(score, first, position, clear, tables, work, first_row, SHAPE)
            weight, decay, peak = weigh(score, peak, scale_log2)
            total = total * decay + gl.sum(weight, 1)
            acc = warpgroup_mma_wait(0, deps=[adding])
            mbarrier.arrive(buffers.empty.index(last), count=1)
            acc = acc * gl.convert_layout(decay, gl.SliceLayout(1, OUT))[:, None]
            weight16 = gl.convert_layout(weight.to(dtype), WEIGHT)
            last = stage
            stage += 1
            if stage == SHAPE.NUM_STAGES:
                stage = 0
                phase ^= 1
        adding = warpgroup_mma(weight16, buffers.state_blocks.index(last), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[adding])
        inverse = finish_rows(sinks_ptr, states, work, first_row, target, peak, total, SHAPE)
        OUT_ROWS: gl.constexpr = gl.SliceLayout(1, OUT)
        acc = acc * gl.convert_layout(inverse, OUT_ROWS)[:, None]
        target = gl.convert_layout(target, OUT_ROWS)
        store_columns(states, work, first_row, target, acc, 0, SHAPE)
