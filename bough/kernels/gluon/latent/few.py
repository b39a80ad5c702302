"""Attention of few rows of latents in fp8: a producer that copies, and two consumers that turn
numbers into fp16 in registers."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

from bough.kernels.gluon.barriers import new_barriers
from bough.kernels.gluon.latent.stage import (
    copy_block,
    first_block,
    look_up,
    next_block,
    stage_blocks,
)
from bough.kernels.gluon.latent.turned import Blocks, attend_turned, share_rows
from bough.kernels.gluon.latent.walk import find_work


@gluon.jit
def attend_few(
    queries,
    stored,
    sinks_ptr,
    tables,
    states,
    scale,
    SHAPE: gl.constexpr,
    REGISTERS: gl.constexpr,
):
    """Attend BLOCK_ROWS rows to segments."""
    NUM_STAGES: gl.constexpr = SHAPE.NUM_STAGES
    work = find_work(tables, SHAPE)
    staged = stage_blocks(NUM_STAGES, SHAPE)
    full, empty = new_barriers((NUM_STAGES, NUM_STAGES // 2), (128, 2))
    blocks = Blocks(staged, full, empty)
    shared = share_rows(queries.ptr.dtype.element_ty, SHAPE)
    fence_async_shared()
    gl.warp_specialize(
        [
            (attend_turned, (
                0, queries, sinks_ptr, tables, states, scale, work, blocks, shared, SHAPE,
            )),
            (attend_turned, (
                1, queries, sinks_ptr, tables, states, scale, work, blocks, shared, SHAPE,
            )),
            (_load_pairs, (stored, tables, work, blocks, SHAPE)),
        ],
        [4, 4],
        [REGISTERS.second, REGISTERS.third],
    )  # fmt: skip


@gluon.jit
def _load_pairs(stored, tables, work, blocks, SHAPE: gl.constexpr):
    """Fill the ring with pairs of blocks, zeros beyond a segment's tokens.

    A block that makes up a pair behind the last one has no tokens. Copies arrive by themselves.
    """
    cursor = first_block(tables, work)
    page = look_up(cursor, SHAPE)
    stage = 0
    phase = 1
    for _ in range((work.num_blocks + 1) // 2 * 2):
        here = cursor
        here_page = page
        cursor = next_block(tables, work, cursor, SHAPE)
        page = look_up(cursor, SHAPE)
        if stage % 2 == 0:
            mbarrier.wait(blocks.empty.index(stage // 2), phase)
        copy_block(stored, work, blocks.staged, here, here_page, stage, SHAPE)
        async_copy.mbarrier_arrive(blocks.full.index(stage), increment_count=False)
        stage += 1
        if stage == SHAPE.NUM_STAGES:
            stage = 0
            phase ^= 1
