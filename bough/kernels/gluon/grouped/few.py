"""Tiles of few rows: tokens take the height of the products, rows their width.

The least height of a Hopper product is 64. A tile of one query at four heads would waste most of
it; turned round, K q^T and V^T p^T fill it with tokens and columns, rows are 16 wide, and a
thread holds 8 scores and 16 outputs instead of 32 and 64.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from bough.kernels.gluon.by_warp import by_warp, read_sums, weigh_columns
from bough.kernels.gluon.grouped.claim import read_rows
from bough.kernels.gluon.grouped.pack import hide_others, open_pack
from bough.kernels.gluon.grouped.scores import (
    await_keys,
    await_values,
    cap_scores,
    score_block,
)
from bough.kernels.gluon.grouped.shared import next_stage
from bough.kernels.gluon.grouped.states import store_states
from bough.kernels.gluon.grouped.tile import (
    BLOCK_BITS,
    FEW_ROWS,
    count_lanes,
    count_rounds,
    find_segment,
)
from bough.kernels.gluon.late import late


@gluon.jit
def attend_columns(GROUP: gl.constexpr, call, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """One consumer: every other pack of heads of an item of few rows.

    Scores of a head's rows against another head's tokens are masked.
    """
    sinks_ptr, tables, states, scale, shared = call
    told = shared.told.index(GROUP)
    DIM: gl.constexpr = SHAPE.V_DIM
    KV: gl.constexpr = 1 << BLOCK_BITS
    ACROSS: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, FEW_ROWS, 16]
    )
    COLUMN: gl.constexpr = gl.SliceLayout(0, ACROSS)
    pack = open_pack(tile, KV, ACROSS)
    no_scores = gl.zeros([KV, FEW_ROWS], gl.float32, ACROSS)
    rows = read_rows(shared.claims, turn, 0, FEW_ROWS, COLUMN)
    lanes = count_lanes(tile)
    head = tile.first_head
    block = tile.block
    unit = tile.unit_1 if GROUP == 1 else tile.unit_0
    for _ in range(count_rounds(tile)):
        if lanes > GROUP:
            slot = GROUP * 2 + unit % 2
            mbarrier.wait(shared.q_full.index(slot), (unit // 2) & 1)
            fence_async_shared()
            q_rows = shared.q_tiles.index(slot).slice(0, FEW_ROWS)
            peak = gl.full([FEW_ROWS], float("-inf"), gl.float32, COLUMN)
            total = gl.zeros([KV, FEW_ROWS], gl.float32, ACROSS)
            acc = gl.zeros([DIM, FEW_ROWS], gl.float32, ACROSS)
            stage = (block + GROUP) % BLOCK.NUM_STAGES
            phase = ((block + GROUP) // BLOCK.NUM_STAGES) & 1
            segment = tile.first_segment
            low = 0
            origin = tile.origin
            num_tokens = tile.num_tokens
            for left in range(tile.num_blocks, 0, -1):
                await_keys(shared, stage, phase, SHAPE, BLOCK)
                k = shared.k_blocks.index(stage)
                v = shared.v_blocks.index(stage)
                score = score_block(q_rows, k, v, no_scores, SHAPE, True)
                score = warpgroup_mma_wait(0, deps=[score])
                score, factor = cap_scores(score, scale, SHAPE.SOFTCAP)
                score = hide_others(score, pack, call, turn, tile, origin, low, num_tokens, SHAPE)
                low += 1 << tile.token_bits
                if (low >= num_tokens) & (left > 1):
                    low = 0
                    segment += 1
                    origin, num_tokens = find_segment(tables, segment, tile.newest)
                weight, decay, peak = weigh_columns(score, peak, factor, told)
                # Summed over tokens once, at the end.
                total = total * decay[None, :] + weight
                acc = acc * decay[None, :]
                # Descriptors of a tile that never moves would be kept throughout the loop.
                weights = shared.weights.index(late(GROUP, left))
                weights.store(weight.to(weights.dtype))
                fence_async_shared()
                gl.thread_barrier()
                await_values(shared, stage, phase, BLOCK)
                acc = warpgroup_mma(v.permute((1, 0)), weights, acc, is_async=True)
                acc = warpgroup_mma_wait(0, deps=[acc])
                # Both at once: warps meet before and after they tell.
                mbarrier.arrive(shared.v_empty.index(stage), count=2)
                mbarrier.arrive(shared.k_empty.index(stage), count=2)
                stage, phase = next_stage(stage, phase, lanes, BLOCK.NUM_STAGES)
            told.store(gl.sum(by_warp(total), 1))
            gl.thread_barrier()
            mbarrier.arrive(shared.q_empty.index(slot), count=1)
            unit += 1
            store_states(
                sinks_ptr, states, tile, (GROUP << tile.pack_bits) + head + pack.head, pack.row,
                rows, peak, read_sums(told, COLUMN), acc, SHAPE, 0,
            )  # fmt: skip
        block += lanes * tile.num_blocks
        head += lanes << tile.pack_bits
