"""Tiles of many rows: a warpgroup attends 64 of them.

As in `grouped.many`, the scores of the next block are issued before the outputs of this one. Keys
are multiplied as they are stored: those of untied specs, e4m3, with queries of two parts. Values
are turned.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from bough.kernels.gluon.grouped.claim import NUM_CLAIMS, read_item, read_number, read_rows
from bough.kernels.gluon.grouped.scores import cap_scores, hide_unseen
from bough.kernels.gluon.grouped.shared import release_block
from bough.kernels.gluon.grouped.states import store_states
from bough.kernels.gluon.grouped.tile import (
    MANY_ROWS,
    count_lanes,
    count_rounds,
    find_segment,
)
from bough.kernels.gluon.quantized.operands import KV
from bough.kernels.gluon.quantized.queries import as_they_lie, split_queries, turn_queries
from bough.kernels.gluon.quantized.scales import BIAS, power
from bough.kernels.gluon.softmax import raise_peak


class Place(NamedTuple):
    """A block of 64 tokens: its number in the ring, and among those that are turned, and the tokens
    from `low` on of a segment."""

    block: Any
    number: Any
    segment: Any
    low: Any
    origin: Any
    num_tokens: Any


class Sums(NamedTuple):
    """Of each row, the peak of its scores and the sum of its weights."""

    peak: Any
    total: Any


@gluon.jit
def attend_rows(GROUP: gl.constexpr, call, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """One consumer: half of the rows of a tall item on each of its heads, else every other head."""
    shared = call.shared
    mbarrier.wait(shared.turned.begun.index(turn % NUM_CLAIMS), (turn // NUM_CLAIMS) & 1)
    DIM: gl.constexpr = SHAPE.V_DIM
    # 32 bytes of a row are multiplied at a time.
    SCORE: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, KV, 16 if SHAPE.ROPE_DIM > 0 else 32]
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
    no_scores = gl.zeros([MANY_ROWS, KV], gl.float32, SCORE)
    lanes = count_lanes(tile)
    block = tile.block
    number = read_number(shared.turned.first, turn % NUM_CLAIMS)
    head = tile.first_head
    query_tile = tile.unit_1 if GROUP == 1 else tile.unit_0
    for _round in range(count_rounds(tile)):
        if lanes > lane:
            slot = GROUP * 2 + query_tile % 2
            mbarrier.wait(shared.q_full.index(slot), (query_tile // 2) & 1)
            q, q_power = _open_queries(shared, slot, SCORE_ROW, SHAPE)
            acc = gl.zeros([MANY_ROWS, DIM], gl.float32, OUT)
            sums = Sums(
                gl.full([MANY_ROWS], float("-inf"), gl.float32, SCORE_ROW),
                gl.zeros([MANY_ROWS], gl.float32, SCORE_ROW),
            )
            place = Place(
                block + lane, number + lane, tile.first_segment, 0, tile.origin, tile.num_tokens
            )
            exponent = _await_block(shared, place, BLOCK)
            score = _score(q, shared, place, no_scores, SHAPE, BLOCK)
            powers = _key_powers(shared, place, no_scores, SHAPE, BLOCK)
            score = warpgroup_mma_wait(0, deps=[score])
            release_block(shared.places.empty, place.block % BLOCK.NUM_STAGES, is_tall, 1)
            weight, decay, sums = _weigh(
                score, powers, q_power, exponent, sums, place, call, turn, tile, half, SHAPE
            )
            p = gl.convert_layout(weight.to(gl.float16), WEIGHT)
            for _block in range(1, tile.num_blocks):
                before = place.number % BLOCK.NUM_TURNED
                place = _step(place, lanes, call, tile)
                unit = _await_block(shared, place, BLOCK)
                next_score = _score(q, shared, place, no_scores, SHAPE, BLOCK)
                v = shared.turned.v_rows.index(before)
                next_acc = warpgroup_mma(p, v, acc, is_async=True)
                powers = _key_powers(shared, place, no_scores, SHAPE, BLOCK)
                score = warpgroup_mma_wait(1, deps=[next_score])
                weight, decay, sums = _weigh(
                    score, powers, q_power, unit, sums, place, call, turn, tile, half, SHAPE
                )
                # Weights and sums so far are in the greatest unit yet.
                next_exponent = gl.maximum(exponent, unit)
                decay *= power(exponent - next_exponent + BIAS)
                share = power(unit - next_exponent + BIAS).to(gl.float16)
                exponent = next_exponent
                acc = warpgroup_mma_wait(0, deps=[next_acc])
                release_block(shared.turned.empty, before, is_tall, 1)
                release_block(shared.places.empty, place.block % BLOCK.NUM_STAGES, is_tall, 1)
                acc = acc * gl.convert_layout(decay, OUT_ROW)[:, None]
                p = gl.convert_layout(weight.to(gl.float16) * share, WEIGHT)
            before = place.number % BLOCK.NUM_TURNED
            acc = warpgroup_mma(p, shared.turned.v_rows.index(before), acc, is_async=True)
            acc = warpgroup_mma_wait(0, deps=[acc])
            release_block(shared.turned.empty, before, is_tall, 1)
            mbarrier.arrive(shared.q_empty.index(slot), count=1)
            query_tile += 1
            # Read again and late: until here registers are scarce.
            tile = read_item(shared.claims, turn)
            rows = read_rows(shared.claims, turn, half, MANY_ROWS, OUT_ROW)
            row = half * MANY_ROWS + gl.arange(0, MANY_ROWS, layout=OUT_ROW)
            store_states(
                call.sinks_ptr, call.states, tile, head + lane, row, rows,
                gl.convert_layout(sums.peak, OUT_ROW), gl.convert_layout(sums.total, OUT_ROW),
                acc * power(exponent), SHAPE, 1,
            )  # fmt: skip
        block += lanes * tile.num_blocks
        number += lanes * tile.num_blocks
        head += lanes


@gluon.jit
def _open_queries(shared, slot, SCORE_ROW: gl.constexpr, SHAPE: gl.constexpr):
    """Write a query tile over as two parts; return them and the power that each row lacks."""
    tile = shared.q_tiles.index(slot)
    if SHAPE.ROPE_DIM > 0:
        q = turn_queries(tile, MANY_ROWS, as_they_lie, SHAPE)
        q_power = gl.full([MANY_ROWS], 1.0, gl.float32, SCORE_ROW)
    else:
        powers = shared.q_powers.index(slot)
        q = split_queries(tile, powers)
        q_power = powers.load(SCORE_ROW)
    return q, q_power


@gluon.jit
def _await_block(shared, place, BLOCK: gl.constexpr):
    """Wait for a block; return the exponent of the unit of its values."""
    slot = place.number % BLOCK.NUM_TURNED
    mbarrier.wait(shared.turned.full.index(slot), (place.number // BLOCK.NUM_TURNED) & 1)
    return read_number(shared.turned.units, slot)


@gluon.jit
def _score(q, shared, place, no_scores, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Begin the scores of a block: of tied states and rotary keys, or of keys and either part of
    queries, what is left over first, as sums lose less while they are small."""
    k = shared.places.k_rows.index(place.block % BLOCK.NUM_STAGES)
    first = k
    if SHAPE.ROPE_DIM > 0:
        states = shared.turned.v_rows.index(place.number % BLOCK.NUM_TURNED)
        first = states.slice(0, SHAPE.NOPE_DIM, dim=1)
    q_first, q_second = q
    score = warpgroup_mma(q_first, first.permute((1, 0)), no_scores, use_acc=False, is_async=True)
    return warpgroup_mma(q_second, k.permute((1, 0)), score, is_async=True)


@gluon.jit
def _key_powers(shared, place, scores, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """[tokens] powers of a block's keys, read while it is multiplied; of tied specs, ones."""
    LAYOUT: gl.constexpr = gl.SliceLayout(0, scores.type.layout)
    powers = gl.full([KV], 1.0, gl.float32, LAYOUT)
    if SHAPE.ROPE_DIM == 0:
        words = shared.places.words.index(place.block % BLOCK.NUM_STAGES)
        powers = words.load(LAYOUT).to(gl.float32, bitcast=True)
    return powers


@gluon.jit
def _weigh(score, powers, q_power, unit, sums, place, call, turn, tile, half, SHAPE: gl.constexpr):
    """Turn a block's scores into weights.

    Returns the weights, the factor by which former states shrink, and the sums so far.
    """
    scale = call.scale
    if SHAPE.ROPE_DIM > 0:
        scale *= power(unit)
    else:
        score *= powers[None, :]
    if SHAPE.SOFTCAP > 0:
        score *= q_power[:, None]
        q_power = gl.full([MANY_ROWS], 1.0, gl.float32, q_power.type.layout)
    score, factor = cap_scores(score, scale, SHAPE.SOFTCAP)
    score = hide_unseen(
        score, place.origin, place.low, place.num_tokens, call, turn, tile, half, SHAPE
    )
    factor = q_power * factor
    peak, base, decay = raise_peak(sums.peak, gl.max(score, 1) * factor)
    weight = gl.exp2(score * factor[:, None] - base[:, None])
    return weight, decay, Sums(peak, sums.total * decay + gl.sum(weight, 1))


@gluon.jit
def _step(place, lanes, call, tile):
    """The next block of a lane."""
    block, number, segment, low, origin, num_tokens = place
    low += KV
    if low >= num_tokens:
        low = 0
        segment += 1
        origin, num_tokens = find_segment(call.tables, segment, tile.newest)
    return Place(block + lanes, number + lanes, segment, low, origin, num_tokens)
