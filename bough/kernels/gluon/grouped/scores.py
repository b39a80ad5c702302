"""Scores of a block: multiplied, capped, and masked where rows do not see a token."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
)

from bough.kernels.gluon.grouped.claim import read_rows
from bough.kernels.gluon.late import late_range
from bough.kernels.triton.softmax import LOG2_E


@gluon.jit
def await_keys(shared, stage, phase, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Wait for all that the scores of a block read: of tied specs, the values too."""
    if SHAPE.ROPE_DIM > 0:
        _await_places(shared.v_full, stage, phase, BLOCK)
    _await_places(shared.k_full, stage, phase, BLOCK)
    fence_async_shared()


@gluon.jit
def await_values(shared, stage, phase, BLOCK: gl.constexpr):
    """Wait for the values of a block."""
    _await_places(shared.v_full, stage, phase, BLOCK)
    fence_async_shared()


@gluon.jit
def _await_places(full, stage, phase, BLOCK: gl.constexpr):
    NUM_PLACES: gl.constexpr = BLOCK.NUM_PLACES
    for at in gl.static_range(NUM_PLACES):
        mbarrier.wait(full.index(stage + at), phase)


@gluon.jit
def score_block(q, k, v, no_scores, SHAPE: gl.constexpr, IS_TURNED: gl.constexpr):
    """Begin the scores of a block; turned round, tokens are the rows of the product.

    Of tied specs the first columns of the values and the rotary key `k` are the key.
    """
    if SHAPE.ROPE_DIM > 0:
        k_nope = v.slice(0, SHAPE.NOPE_DIM, dim=1)
        q_nope = q.slice(0, SHAPE.NOPE_DIM, dim=1)
        q_rope = q.slice(SHAPE.NOPE_DIM, SHAPE.ROPE_DIM, dim=1)
        score = _multiply(q_nope, k_nope, no_scores, False, IS_TURNED)
        score = _multiply(q_rope, k, score, True, IS_TURNED)
    else:
        score = _multiply(q, k, no_scores, False, IS_TURNED)
    return score


@gluon.jit
def _multiply(q, k, acc, USE_ACC: gl.constexpr, IS_TURNED: gl.constexpr):
    if IS_TURNED:
        product = warpgroup_mma(k, q.permute((1, 0)), acc, use_acc=USE_ACC, is_async=True)
    else:
        product = warpgroup_mma(q, k.permute((1, 0)), acc, use_acc=USE_ACC, is_async=True)
    return product


@gluon.jit
def cap_scores(score, scale, SOFTCAP: gl.constexpr):
    """Return scores, and what turns them into units of log2."""
    factor = scale * LOG2_E
    if SOFTCAP > 0:
        # tanh(x) = 1 - 2 / (exp(2x) + 1)
        doubled = gl.exp2(score * (factor * (2.0 / SOFTCAP)))
        score = (SOFTCAP * LOG2_E) * (1.0 - 2.0 / (doubled + 1.0))
        factor = 1.0
    return score, factor


@gluon.jit
def is_partly_hidden(first, end, tile, num_tokens, WINDOW: gl.constexpr):
    """Whether some row does not see all of a block that starts at position `first`."""
    hidden = first + num_tokens > gl.minimum(tile.oldest + 1, end)
    if WINDOW > 0:
        hidden = hidden | (first <= tile.newest - WINDOW)
    return hidden


@gluon.jit
def hide_unseen(score, origin, low, num_tokens, call, turn, tile, half, SHAPE: gl.constexpr):
    """Mask what the rows of a half of an item do not see of the block at `low` of a segment."""
    KV: gl.constexpr = score.shape[1]
    end = origin + num_tokens
    if is_partly_hidden(origin + low, end, tile, KV, SHAPE.WINDOW):
        ROW: gl.constexpr = gl.SliceLayout(1, score.type.layout)
        COLUMN: gl.constexpr = gl.SliceLayout(0, score.type.layout)
        rows = read_rows(call.shared.claims, turn, half, score.shape[0], ROW)
        place = origin + low + late_range(KV, COLUMN, low)
        sees = find_visible(call.tables, rows, place, end, SHAPE, 1)
        score = gl.where(sees, score, float("-inf"))
    return score


@gluon.jit
def find_visible(tables, rows, place, end, SHAPE: gl.constexpr, AXIS: gl.constexpr):
    """Which tokens at positions `place`, before `end`, each of some rows sees.

    `place` is along AXIS, rows along the other.
    """
    token = gl.expand_dims(place, 1 - AXIS)
    newest = gl.expand_dims(gl.minimum(rows.position, end - 1), AXIS)
    sees = token <= newest
    if SHAPE.WINDOW > 0:
        sees = sees & (token > gl.expand_dims(rows.position - SHAPE.WINDOW, AXIS))
    if tables.query_hidden is not None:
        # Bit i of a query's word hides the token i before it.
        hidden = gl.load(tables.query_hidden + rows.query)
        back = gl.expand_dims(rows.position, AXIS) - token
        near = gl.expand_dims(hidden.to(gl.int32), AXIS)
        far = gl.expand_dims((hidden >> 32).to(gl.int32), AXIS)
        is_hidden = (gl.where(back < 32, near, far) >> (back & 31)) & 1
        sees = sees & ((is_hidden == 0) | (back >= 64))
    return sees
