"""Products turned round, of latents that are turned into fp16 in registers.

Tokens and columns take the height of the products and rows their width, so that stored rows are
the first operand, which may lie in registers (see `bough.kernels.gluon.quantized.operands`). Two
consumers share two blocks: each scores its own, and adds its half of the columns of both.
"""

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

from bough.fp8 import SCALE_COLUMNS
from bough.kernels.gluon.barriers import new_barriers
from bough.kernels.gluon.by_warp import by_warp, new_told, read_peaks
from bough.kernels.gluon.late import late
from bough.kernels.gluon.latent.parts import (
    add_parts,
    greatest_unit,
    load_parts,
    num_parts,
    scale_parts,
    store_powers,
    wait_for_parts,
)
from bough.kernels.gluon.latent.rows import find_targets, finish_rows, locate_rows, store_columns
from bough.kernels.gluon.latent.scores import mask_drafts, mask_scores
from bough.kernels.gluon.latent.walk import segment_span
from bough.kernels.gluon.quantized.operands import as_keys, in_order, key_layout
from bough.kernels.gluon.quantized.scales import BIAS, most_of, power
from bough.kernels.triton.softmax import LOG2_E

# Columns that a power is for.
_SCALE_COLUMNS = gl.constexpr(SCALE_COLUMNS)
# A unit that rotary keys, which have no power, may well be brought to.
_LEAST_UNIT = gl.constexpr(BIAS.value - 40)
# Below all peaks, so that what is not seen weighs nothing against it.
_NOTHING = gl.constexpr(-1e30)
_ROWS = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))
# One a thread, of the rows.
_EACH = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0]))


class Shared(NamedTuple):
    """What consumers tell each other: queries, weights of a block each, a number a row of each warp
    and of each consumer; and what each keeps for itself: powers of its columns of either block."""

    q_nope: Any
    q_rope: Any
    weights: Any
    peaks: Any
    totals: Any
    powers: Any
    is_loaded: Any
    is_told: Any
    is_weighed: Any


class Blocks(NamedTuple):
    """A ring of blocks as they are stored: told of one by one when they are there, in pairs when
    they have been read."""

    staged: Any
    full: Any
    empty: Any


class Span(NamedTuple):
    """A block's first position, and the end of its segment."""

    segment: Any
    first: Any
    end: Any


@gluon.jit
def share_rows(dtype: gl.constexpr, SHAPE: gl.constexpr):
    """Allocate what consumers share."""
    NUM_ROWS: gl.constexpr = SHAPE.BLOCK_ROWS
    BLOCK_KV: gl.constexpr = SHAPE.BLOCK_KV
    TILE: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    ROPE: gl.constexpr = gl.NVMMASharedLayout(
        swizzle_byte_width=SHAPE.ROPE_DIM * 2, element_bitwidth=16, rank=2
    )
    WEIGHTS: gl.constexpr = gl.NVMMASharedLayout(
        swizzle_byte_width=min(128, 2 * NUM_ROWS), element_bitwidth=16, rank=2
    )
    NUMBER: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    is_loaded, is_told, is_weighed = new_barriers((1, 2, 2), (2, 1, 1))
    return Shared(
        gl.allocate_shared_memory(gl.float16, [1, NUM_ROWS, SHAPE.V_DIM], TILE),
        gl.allocate_shared_memory(dtype, [1, NUM_ROWS, SHAPE.ROPE_DIM], ROPE),
        gl.allocate_shared_memory(gl.float16, [2, BLOCK_KV, NUM_ROWS], WEIGHTS),
        new_told(2, 8, NUM_ROWS),
        gl.allocate_shared_memory(gl.float32, [2, NUM_ROWS], NUMBER),
        gl.allocate_shared_memory(gl.float16, [4 * num_parts(SHAPE.V_DIM), BLOCK_KV], NUMBER),
        is_loaded,
        is_told,
        is_weighed,
    )


@gluon.jit
def attend_turned(
    GROUP: gl.constexpr,
    queries,
    sinks_ptr,
    tables,
    states,
    scale,
    work,
    blocks,
    shared,
    SHAPE: gl.constexpr,
):
    """One consumer: of each two blocks the scores of one, and half of the columns of both."""
    NUM_ROWS: gl.constexpr = SHAPE.BLOCK_ROWS
    BLOCK_KV: gl.constexpr = SHAPE.BLOCK_KV
    NUM_STAGES: gl.constexpr = SHAPE.NUM_STAGES
    NUM_PARTS: gl.constexpr = num_parts(SHAPE.V_DIM)
    COLUMNS: gl.constexpr = SHAPE.V_DIM // (2 * NUM_PARTS)
    ACROSS: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, NUM_ROWS, 16]
    )
    ROWS: gl.constexpr = gl.SliceLayout(0, ACROSS)
    staged = blocks.staged
    if work.num_blocks > 0:
        _load_queries(GROUP, queries, tables, work, shared, SHAPE)
        zeros = gl.zeros([BLOCK_KV, NUM_ROWS], gl.float32, ACROSS)
        sums = (gl.zeros([COLUMNS, NUM_ROWS], gl.float32, ACROSS),) * NUM_PARTS
        total = _fold(zeros)
        peak = gl.full([NUM_ROWS], _NOTHING, gl.float32, ROWS)
        unit = 0
        first, end = segment_span(tables, work.first_segment, work.stop)
        span = Span(work.first_segment, first, end)
        if GROUP == 1:
            span = _next_span(tables, work, span, 1, 1, SHAPE)
        num_steps = (work.num_blocks + 1) // 2
        for step in range(num_steps):
            own = 2 * step + GROUP
            other = 2 * step + 1 - GROUP
            own_stage = own % NUM_STAGES
            other_stage = other % NUM_STAGES
            mbarrier.wait(blocks.full.index(own_stage), (own // NUM_STAGES) & 1)
            # Descriptors of tiles that never move would be kept throughout the loop.
            tile = late(0, step)
            score, factor = _score(shared, tile, staged, own_stage, zeros, scale, SHAPE)
            mbarrier.wait(blocks.full.index(other_stage), (other // NUM_STAGES) & 1)
            own_words = staged.words.index(own_stage)
            other_words = staged.words.index(other_stage)
            next_unit = greatest_unit(GROUP, own_words, unit, SHAPE)
            next_unit = greatest_unit(GROUP, other_words, next_unit, SHAPE)
            own_powers = tile + 2 * GROUP * NUM_PARTS
            other_powers = own_powers + NUM_PARTS
            store_powers(GROUP, shared, own_powers, own_words, next_unit, SHAPE)
            store_powers(GROUP, shared, other_powers, other_words, next_unit, SHAPE)

            score = warpgroup_mma_wait(0, deps=[score])
            clear = gl.minimum(work.oldest + 1, span.end)
            if span.first + BLOCK_KV > clear:
                position, _ = find_targets(tables, work, work.first_row, SHAPE, ROWS, NUM_ROWS)
                score = mask_scores(score, span.first, span.end, position, clear, 0)
                score = mask_drafts(
                    score, span.first, position, clear, tables, work, work.first_row, SHAPE, 0
                )
            span = _next_span(tables, work, span, own + 1, 2, SHAPE)
            next_peak = gl.maximum(peak, _find_peak(GROUP, shared, score, factor, step))
            decay = gl.exp2(peak - next_peak)
            peak = next_peak
            weight = gl.exp2(score * factor - peak[None, :])
            total = _scale_rows(total, decay) + _fold(weight)
            shared.weights.index(tile + GROUP).store(weight.to(gl.float16))
            fence_async_shared()
            mbarrier.arrive(shared.is_weighed.index(GROUP), count=1)

            sums = scale_parts(sums, decay * power(unit - next_unit + BIAS))
            unit = next_unit
            values = load_parts(GROUP, shared, own_powers, staged, own_stage, ACROSS, SHAPE)
            sums = add_parts(sums, values, shared.weights.index(tile + GROUP))
            values = load_parts(GROUP, shared, other_powers, staged, other_stage, ACROSS, SHAPE)
            # All of both blocks is in registers by now.
            mbarrier.arrive(blocks.empty.index(own_stage // 2), count=1)
            mbarrier.wait(shared.is_weighed.index(1 - GROUP), step & 1)
            sums = add_parts(sums, values, shared.weights.index(tile + 1 - GROUP))
            sums = wait_for_parts(sums)
        # A thread finishes one row. Both consumers write the same.
        own_total = gl.convert_layout(gl.sum(gl.sum(total, 0), 0), _EACH)
        total = own_total + _tell_total(GROUP, shared, own_total, num_steps)
        peak = gl.convert_layout(peak, _EACH)
        first_row = work.first_row
        _, target = find_targets(tables, work, first_row, SHAPE, _EACH, NUM_ROWS)
        inverse = finish_rows(sinks_ptr, states, work, first_row, target, peak, total, SHAPE)
        sums = scale_parts(sums, gl.convert_layout(inverse * power(unit), ROWS))
        for part in gl.static_range(NUM_PARTS):
            out = in_order(sums[part]).permute((1, 0))
            of_row = gl.convert_layout(target, gl.SliceLayout(1, out.type.layout))
            column = (GROUP * NUM_PARTS + part) * COLUMNS
            store_columns(states, work, first_row, of_row, out, column, SHAPE)


@gluon.jit
def _load_queries(GROUP: gl.constexpr, queries, tables, work, shared, SHAPE: gl.constexpr):
    """Copy half of the query rows' columns as fp16, in the order of the keys', and wait for the
    other half."""
    NUM_ROWS: gl.constexpr = SHAPE.BLOCK_ROWS
    NUM_SLICES: gl.constexpr = SHAPE.V_DIM // _SCALE_COLUMNS
    query, q_head, mask = locate_rows(
        tables, work, work.first_row, SHAPE, gl.SliceLayout(1, _ROWS), NUM_ROWS
    )
    start = (query.to(gl.int64) * queries.stride_token + q_head * queries.stride_head)[:, None]
    for at in gl.static_range(GROUP, NUM_SLICES, 2):
        offs = gl.arange(0, _SCALE_COLUMNS, layout=gl.SliceLayout(0, _ROWS))[None, :]
        ptrs = queries.ptr + start + at * _SCALE_COLUMNS + offs
        rows = gl.load(ptrs, mask=mask[:, None], other=0.0).to(gl.float16)
        tile = shared.q_nope.index(0).slice(at * _SCALE_COLUMNS, _SCALE_COLUMNS, dim=1)
        tile.store(as_keys(rows))
    if GROUP == 1:
        offs = gl.arange(0, SHAPE.ROPE_DIM, layout=gl.SliceLayout(0, _ROWS))[None, :]
        ptrs = queries.ptr + start + SHAPE.V_DIM + offs
        shared.q_rope.index(0).store(gl.load(ptrs, mask=mask[:, None], other=0.0))
    fence_async_shared()
    mbarrier.arrive(shared.is_loaded.index(0), count=1)
    mbarrier.wait(shared.is_loaded.index(0), 0)


@gluon.jit
def _next_span(tables, work, span, block, NUM_BLOCKS: gl.constexpr, SHAPE: gl.constexpr):
    """Move on, to `block` and past it; behind the last block nothing is to be seen."""
    segment, first, end = span
    for at in gl.static_range(NUM_BLOCKS):
        first += SHAPE.BLOCK_KV
        while (first >= end) & (block + at < work.num_blocks):
            segment += 1
            first, end = segment_span(tables, segment, work.stop)
    return Span(segment, first, end)


@gluon.jit
def _score(shared, tile, staged, stage, zeros, scale, SHAPE: gl.constexpr):
    """Begin the scores [tokens, rows] of a block; return what turns them into units of log2, too.

    Rotary keys are multiplied first, and their part brought to a unit that no latent exceeds.
    """
    ACROSS: gl.constexpr = zeros.type.layout
    NUM_SLICES: gl.constexpr = SHAPE.V_DIM // _SCALE_COLUMNS
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, ACROSS, 2)
    COLUMNS: gl.constexpr = _SCALE_COLUMNS
    words = staged.words.index(stage)
    states = staged.states.index(stage)
    rope = staged.rope.index(stage).load(OPERAND).to(shared.q_rope.dtype)
    score = warpgroup_mma(
        rope, shared.q_rope.index(tile).permute((1, 0)), zeros, use_acc=False, is_async=True
    )
    unit = _LEAST_UNIT
    for at in gl.static_range(NUM_SLICES):
        unit = gl.maximum(unit, most_of(words, at))
    for at in gl.static_range(NUM_SLICES):
        keys = as_keys(states.slice(at * COLUMNS, COLUMNS, dim=1).load(key_layout(COLUMNS)))
        exponent = (words.load(gl.SliceLayout(1, OPERAND)) >> (8 * at)) & 255
        powers = power(exponent - unit + BIAS).to(gl.float16)[:, None]
        # A half at a time, while the product of the half before runs.
        halves = gl.permute(gl.reshape(keys, [SHAPE.BLOCK_KV, 2, COLUMNS // 2]), (0, 2, 1))
        halves = gl.split(halves)
        for half in gl.static_range(2):
            turned = gl.convert_layout(halves[half], OPERAND, assert_trivial=True)
            turned = turned.to(gl.float16) * powers
            score = warpgroup_mma_wait(1 if at + half > 0 else 0, deps=[score])
            if at + half == 0:
                score *= power(2 * BIAS - unit)
            q = shared.q_nope.index(tile)
            q = q.slice(at * COLUMNS + half * COLUMNS // 2, COLUMNS // 2, dim=1)
            score = warpgroup_mma(turned, q.permute((1, 0)), score, is_async=True)
    return score, scale * LOG2_E * power(unit)


@gluon.jit
def _find_peak(GROUP: gl.constexpr, shared, score, factor, turn):
    """[rows] the greatest scores of both blocks, each times the factor of its own.

    Every warp of either consumer tells the greatest of its tokens, and all read what all have told.
    """
    told = shared.peaks.index(turn & 1)
    told.slice(4 * GROUP, 4).store(gl.max(by_warp(score), 1) * factor)
    mbarrier.arrive(shared.is_told.index(GROUP), count=1)
    mbarrier.wait(shared.is_told.index(1 - GROUP), turn & 1)
    return read_peaks(told, gl.SliceLayout(0, score.type.layout))


@gluon.jit
def _tell_total(GROUP: gl.constexpr, shared, total, turn):
    """Tell the other consumer the sum of a row's weights, and return its own."""
    shared.totals.index(GROUP).store(total)
    mbarrier.arrive(shared.is_told.index(GROUP), count=1)
    mbarrier.wait(shared.is_told.index(1 - GROUP), turn & 1)
    return shared.totals.index(1 - GROUP).load(total.type.layout)


@gluon.jit
def _fold(weights):
    """Add weights [tokens, rows] up over the tokens of each thread."""
    return gl.sum(gl.reshape(weights, [4, 2, 8, weights.shape[1]]), 1)


@gluon.jit
def _scale_rows(total, decay):
    """Multiply folded weights [., ., rows] by a number a row."""
    OUTER: gl.constexpr = gl.SliceLayout(0, total.type.layout)
    decay = gl.convert_layout(decay, gl.SliceLayout(0, OUTER), assert_trivial=True)
    return total * gl.expand_dims(gl.expand_dims(decay, 0), 0)
