"""Tiles of few rows: products turned round, on keys and values that lie in registers.

As in `grouped.few`, tokens and columns take the height of the products and rows their width.
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
from bough.kernels.gluon.grouped.claim import read_item, read_rows
from bough.kernels.gluon.grouped.pack import hide_others, open_pack
from bough.kernels.gluon.grouped.scores import cap_scores
from bough.kernels.gluon.grouped.shared import next_stage
from bough.kernels.gluon.grouped.states import store_states
from bough.kernels.gluon.grouped.tile import (
    FEW_ROWS,
    count_lanes,
    count_rounds,
    find_segment,
    unpack_rows,
)
from bough.kernels.gluon.late import late
from bough.kernels.gluon.quantized.operands import (
    KV,
    as_keys,
    in_order,
    load_keys,
    load_values,
)
from bough.kernels.gluon.quantized.queries import turn_queries
from bough.kernels.gluon.quantized.scales import (
    BIAS,
    power,
    scale_weights,
    token_powers,
    value_unit_of,
)


@gluon.jit
def attend_columns(GROUP: gl.constexpr, call, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """One consumer: every other pack of heads of an item of few rows.

    Scores of a head's rows against another head's tokens are masked.
    """
    shared = call.shared
    places = shared.places
    told = shared.told.index(GROUP)
    DIM: gl.constexpr = SHAPE.V_DIM
    ACROSS: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, FEW_ROWS, 16]
    )
    COLUMN: gl.constexpr = gl.SliceLayout(0, ACROSS)
    pack = open_pack(tile, KV, ACROSS)
    no_scores = gl.zeros([KV, FEW_ROWS], gl.float32, ACROSS)
    lanes = count_lanes(tile)
    head = tile.first_head
    block = tile.block
    unit = tile.unit_1 if GROUP == 1 else tile.unit_0
    for _round in range(count_rounds(tile)):
        if lanes > GROUP:
            slot = GROUP * 2 + unit % 2
            mbarrier.wait(shared.q_full.index(slot), (unit // 2) & 1)
            q = turn_queries(shared.q_tiles.index(slot), FEW_ROWS, as_keys, SHAPE)
            peak = gl.full([FEW_ROWS], float("-inf"), gl.float32, COLUMN)
            total = gl.zeros([KV, FEW_ROWS], gl.float32, ACROSS)
            acc = gl.zeros([DIM, FEW_ROWS], gl.float32, ACROSS)
            exponent = 0
            stage = (block + GROUP) % BLOCK.NUM_STAGES
            phase = ((block + GROUP) // BLOCK.NUM_STAGES) & 1
            segment = tile.first_segment
            low = 0
            origin = tile.origin
            num_tokens = tile.num_tokens
            for left in range(tile.num_blocks, 0, -1):
                mbarrier.wait(places.full.index(stage), phase)
                words = places.words.index(stage)
                score, key_unit = _score(q, places, stage, no_scores, SHAPE)
                # Read and turned while products run.
                v = load_values(places.v_rows.index(stage), ACROSS)
                score = warpgroup_mma_wait(0, deps=[score])
                if SHAPE.ROPE_DIM == 0:
                    score *= token_powers(words, 0, score, 1)
                score, factor = cap_scores(score, call.scale * power(key_unit), SHAPE.SOFTCAP)
                score = hide_others(score, pack, call, turn, tile, origin, low, num_tokens, SHAPE)
                low += 1 << tile.token_bits
                if (low >= num_tokens) & (left > 1):
                    low = 0
                    segment += 1
                    origin, num_tokens = find_segment(call.tables, segment, tile.newest)
                weight, decay, peak = weigh_columns(score, peak, factor, told)
                # Summed over tokens once, at the end.
                total = total * decay[None, :] + weight
                weight, decay, exponent = scale_weights(
                    weight, decay, exponent, words, SHAPE.VALUE_SCALE, 1
                )
                acc = acc * decay[None, :]
                # Descriptors of a tile that never moves would be kept throughout the loop.
                weights = shared.weights.index(late(GROUP, left))
                weights.store(weight.to(gl.float16))
                fence_async_shared()
                gl.thread_barrier()
                # All of the block is in registers by now.
                mbarrier.arrive(places.empty.index(stage), count=2)
                acc = warpgroup_mma(v, weights, acc, is_async=True)
                stage, phase = next_stage(stage, phase, lanes, BLOCK.NUM_STAGES)
                acc = warpgroup_mma_wait(0, deps=[acc])
            told.store(gl.sum(by_warp(total), 1))
            gl.thread_barrier()
            mbarrier.arrive(shared.q_empty.index(slot), count=1)
            unit += 1
            # Read again and late: until here registers are scarce.
            tile = read_item(shared.claims, turn)
            _store(
                call, turn, tile, (GROUP << tile.pack_bits) + head, peak,
                read_sums(told, COLUMN), acc * power(exponent), SHAPE,
            )  # fmt: skip
        block += lanes * tile.num_blocks
        head += lanes << tile.pack_bits


@gluon.jit
def _score(q, places, stage, no_scores, SHAPE: gl.constexpr):
    """Begin the scores [tokens, rows] of a block; return the exponent of their unit, too.

    Rotary keys are multiplied first, as they are stored, and their part brought to a unit that no
    state exceeds. Scores of untied specs are still to get the powers of their tokens.
    """
    ACROSS: gl.constexpr = no_scores.type.layout
    q_nope, q_rope = q
    unit = BIAS
    if SHAPE.ROPE_DIM > 0:
        fence_async_shared()
        rope = places.k_rows.index(stage)
        score = warpgroup_mma(rope, q_rope.permute((1, 0)), no_scores, use_acc=False, is_async=True)
        words = places.words.index(stage)
        unit = value_unit_of(words, SHAPE)
        keys = load_keys(places.v_rows.index(stage).slice(0, SHAPE.NOPE_DIM, dim=1), ACROSS)
        exponent = words.load(gl.SliceLayout(1, keys.type.layout)) & 255
        keys *= power(exponent - unit + BIAS).to(gl.float16)[:, None]
        score = warpgroup_mma_wait(0, deps=[score]) * power(2 * BIAS - unit)
        score = warpgroup_mma(keys, q_nope.permute((1, 0)), score, is_async=True)
    else:
        keys = load_keys(places.k_rows.index(stage), ACROSS)
        score = warpgroup_mma(keys, q_nope.permute((1, 0)), no_scores, use_acc=False, is_async=True)
    return score, unit


@gluon.jit
def _store(call, turn, tile, head, peak, total, acc, SHAPE: gl.constexpr):
    """Put columns in order and store the states of rows, on a pack of heads from `head` on."""
    out = in_order(acc)
    COLUMN: gl.constexpr = gl.SliceLayout(0, out.type.layout)
    rows = read_rows(call.shared.claims, turn, 0, FEW_ROWS, COLUMN)
    row_head, row = unpack_rows(tile, gl.arange(0, FEW_ROWS, layout=COLUMN))
    store_states(
        call.sinks_ptr, call.states, tile, head + row_head, row, rows,
        gl.convert_layout(peak, COLUMN), gl.convert_layout(total, COLUMN), out, SHAPE, 0,
    )  # fmt: skip
