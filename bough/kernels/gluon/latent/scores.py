"""Scores of a block, and what rows do not see of it."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma

from bough.kernels.gluon.late import late_range
from bough.kernels.gluon.latent.rows import locate_rows


@gluon.jit
def score_block(q_nope, q_rope, buffers, stage, zeros):
    """Begin the product of 64 rows with a block's keys."""
    keys = buffers.state_blocks.index(stage).permute((1, 0))
    rope_keys = buffers.rope_blocks.index(stage).permute((1, 0))
    score = warpgroup_mma(q_nope, keys, zeros, use_acc=False, is_async=True)
    return warpgroup_mma(q_rope, rope_keys, score, is_async=True)


@gluon.jit
def mask_scores(score, first, end, position, clear, AXIS: gl.constexpr = 1):
    """Hide what rows do not see of a block that starts at position `first`; tokens are on AXIS.

    Positions below `clear` are seen by all rows, those from `end` on by none.
    """
    NUM_TOKENS: gl.constexpr = score.shape[AXIS]
    if first + NUM_TOKENS > clear:
        TOKENS: gl.constexpr = gl.SliceLayout(1 - AXIS, score.type.layout)
        offs_kv = gl.expand_dims(late_range(NUM_TOKENS, TOKENS, first), 1 - AXIS)
        newest = gl.expand_dims(gl.minimum(position, end - 1) - first, AXIS)
        score = gl.where(offs_kv <= newest, score, float("-inf"))
    return score


@gluon.jit
def mask_drafts(
    score,
    first,
    position,
    clear,
    tables,
    work,
    first_row,
    SHAPE: gl.constexpr,
    AXIS: gl.constexpr = 1,
):
    """Hide drafts from those that do not continue them, in a block not all below `clear`.

    Blocks that hold drafts are few: words are looked up for each of them, rather than held in
    registers for all.
    """
    NUM_TOKENS: gl.constexpr = score.shape[AXIS]
    if tables.query_hidden is not None and first + NUM_TOKENS > clear:
        ROWS: gl.constexpr = gl.SliceLayout(AXIS, score.type.layout)
        query, _, mask_row = locate_rows(tables, work, first_row, SHAPE, ROWS, position.shape[0])
        hidden = gl.load(tables.query_hidden + query, mask=mask_row, other=0)
        # Shifted so that the highest bit stands for the block's first token.
        back = position - first - 63
        older = hidden.to(gl.uint64, bitcast=True) >> gl.maximum(back, 0).to(gl.uint64)
        newer = hidden << gl.minimum(gl.maximum(-back, 0), 63).to(gl.int64)
        bits = gl.where(back > 0, older.to(gl.int64, bitcast=True), newer)
        bits = gl.where(back > 63, 0, bits)
        left = gl.expand_dims((bits >> 32).to(gl.int32), AXIS)
        right = gl.expand_dims(bits.to(gl.int32), AXIS)
        TOKENS: gl.constexpr = gl.SliceLayout(1 - AXIS, score.type.layout)
        offs_kv = gl.expand_dims(late_range(NUM_TOKENS, TOKENS, first), 1 - AXIS)
        half = gl.where(offs_kv < 32, left, right)
        score = gl.where((half << (offs_kv % 32)) < 0, float("-inf"), score)
    return score
