"""Tiles of many rows: a warpgroup attends 64 of them.

The scores of the next block are issued before the outputs of this one, so that products run while
weights are worked out.
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

from bough.kernels.gluon.grouped.claim import read_item, read_rows
from bough.kernels.gluon.grouped.scores import (
    await_keys,
    await_values,
    cap_scores,
    hide_unseen,
    score_block,
)
from bough.kernels.gluon.grouped.shared import as_blocks, release_block
from bough.kernels.gluon.grouped.states import store_states
from bough.kernels.gluon.grouped.tile import (
    BLOCK_BITS,
    MANY_ROWS,
    count_lanes,
    count_rounds,
    find_segment,
)
from bough.kernels.gluon.softmax import weigh


@gluon.jit
def attend_rows(GROUP: gl.constexpr, call, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """One consumer: half of the rows of a tall item on each of its heads, else every other head."""
    sinks_ptr, tables, states, scale, shared = call
    DIM: gl.constexpr = SHAPE.V_DIM
    NUM_PLACES: gl.constexpr = BLOCK.NUM_PLACES
    KV: gl.constexpr = NUM_PLACES << BLOCK_BITS
    SCORE: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, KV, 16]
    )
    OUT: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, DIM, 16]
    )
    WEIGHT: gl.constexpr = gl.DotOperandLayout(0, OUT, 2)
    SCORE_ROW: gl.constexpr = gl.SliceLayout(1, SCORE)
    OUT_ROW: gl.constexpr = gl.SliceLayout(1, OUT)
    is_tall = tile.num_rows > MANY_ROWS
    half = gl.where(is_tall, GROUP, 0)
    lane = GROUP - half
    k_blocks = as_blocks(shared.k_blocks, BLOCK)
    v_blocks = as_blocks(shared.v_blocks, BLOCK)
    block = tile.block
    no_scores = gl.zeros([MANY_ROWS, KV], gl.float32, SCORE)
    dtype: gl.constexpr = shared.v_blocks.dtype
    lanes = count_lanes(tile)
    head = tile.first_head
    unit = tile.unit_1 if GROUP == 1 else tile.unit_0
    for _ in range(count_rounds(tile)):
        if lanes > lane:
            slot = GROUP * 2 + unit % 2
            mbarrier.wait(shared.q_full.index(slot), (unit // 2) & 1)
            fence_async_shared()
            q = shared.q_tiles.index(slot)
            peak = gl.full([MANY_ROWS], float("-inf"), gl.float32, SCORE_ROW)
            total = gl.zeros([MANY_ROWS], gl.float32, SCORE_ROW)
            acc = gl.zeros([MANY_ROWS, DIM], gl.float32, OUT)
            segment = tile.first_segment
            low = 0
            origin = tile.origin
            num_tokens = tile.num_tokens
            here = block + lane
            stage = here % BLOCK.NUM_STAGES
            phase = (here // BLOCK.NUM_STAGES) & 1
            await_keys(shared, stage, phase, SHAPE, BLOCK)
            k = k_blocks.index(stage // NUM_PLACES)
            v = v_blocks.index(stage // NUM_PLACES)
            score = score_block(q, k, v, no_scores, SHAPE, False)
            score = warpgroup_mma_wait(0, deps=[score])
            release_block(shared.k_empty, stage, is_tall, NUM_PLACES)
            score, factor = cap_scores(score, scale, SHAPE.SOFTCAP)
            score = hide_unseen(score, origin, low, num_tokens, call, turn, tile, half, SHAPE)
            weight, decay, peak = weigh(score, peak, factor)
            total = total * decay + gl.sum(weight, 1)
            p = gl.convert_layout(weight.to(dtype), WEIGHT)
            for _ in range(1, tile.num_blocks):
                low += KV
                if low >= num_tokens:
                    low = 0
                    segment += 1
                    origin, num_tokens = find_segment(tables, segment, tile.newest)
                before = stage
                phase_before = phase
                here += lanes * NUM_PLACES
                stage = here % BLOCK.NUM_STAGES
                phase = (here // BLOCK.NUM_STAGES) & 1
                await_keys(shared, stage, phase, SHAPE, BLOCK)
                k = k_blocks.index(stage // NUM_PLACES)
                v = v_blocks.index(stage // NUM_PLACES)
                next_score = score_block(q, k, v, no_scores, SHAPE, False)
                await_values(shared, before, phase_before, BLOCK)
                v = v_blocks.index(before // NUM_PLACES)
                next_acc = warpgroup_mma(p, v, acc, is_async=True)
                score = warpgroup_mma_wait(1, deps=[next_score])
                release_block(shared.k_empty, stage, is_tall, NUM_PLACES)
                score, factor = cap_scores(score, scale, SHAPE.SOFTCAP)
                score = hide_unseen(score, origin, low, num_tokens, call, turn, tile, half, SHAPE)
                weight, decay, peak = weigh(score, peak, factor)
                total = total * decay + gl.sum(weight, 1)
                acc = warpgroup_mma_wait(0, deps=[next_acc])
                release_block(shared.v_empty, before, is_tall, NUM_PLACES)
                acc = acc * gl.convert_layout(decay, OUT_ROW)[:, None]
                p = gl.convert_layout(weight.to(dtype), WEIGHT)
            await_values(shared, stage, phase, BLOCK)
            v = v_blocks.index(stage // NUM_PLACES)
            acc = warpgroup_mma(p, v, acc, is_async=True)
            acc = warpgroup_mma_wait(0, deps=[acc])
            release_block(shared.v_empty, stage, is_tall, NUM_PLACES)
            mbarrier.arrive(shared.q_empty.index(slot), count=1)
            unit += 1
            # Read again and late: until here registers are scarce.
            tile = read_item(shared.claims, turn)
            rows = read_rows(shared.claims, turn, half, MANY_ROWS, OUT_ROW)
            row = half * MANY_ROWS + gl.arange(0, MANY_ROWS, layout=OUT_ROW)
            store_states(
                sinks_ptr, states, tile, head + lane, row, rows, gl.convert_layout(peak, OUT_ROW),
                gl.convert_layout(total, OUT_ROW), acc, SHAPE, 1,
            )  # fmt: skip
            block = here - lane + lanes * NUM_PLACES
        else:
            block += lanes * tile.num_blocks * NUM_PLACES
        head += lanes
