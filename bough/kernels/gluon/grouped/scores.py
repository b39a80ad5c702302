"""Scores of a block: of tied states, capped, and masked where rows do not see a token."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma

from bough.kernels.triton.softmax import LOG2_E


@gluon.jit
def score_tied(states, rope, q, no_scores, SHAPE: gl.constexpr, IS_TURNED: gl.constexpr):
    """Begin the scores of tied states: their first columns and the rotary key are the key.

    Turned round, tokens are the rows of the product.
    """
    NOPE_DIM: gl.constexpr = SHAPE.NOPE_DIM
    k_nope = states.slice(0, NOPE_DIM, dim=1)
    q_nope = q.slice(0, NOPE_DIM, dim=1)
    q_rope = q.slice(NOPE_DIM, SHAPE.ROPE_DIM, dim=1)
    if IS_TURNED:
        score = warpgroup_mma(
            k_nope, q_nope.permute((1, 0)), no_scores, use_acc=False, is_async=True
        )
        score = warpgroup_mma(rope, q_rope.permute((1, 0)), score, is_async=True)
    else:
        score = warpgroup_mma(
            q_nope, k_nope.permute((1, 0)), no_scores, use_acc=False, is_async=True
        )
        score = warpgroup_mma(q_rope, rope.permute((1, 0)), score, is_async=True)
    return score


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
def find_visible(
    tables, query, is_row, position, place, end, SHAPE: gl.constexpr, AXIS: gl.constexpr
):
    """Which tokens at positions `place`, before `end`, each of some rows sees.

    `place` is along AXIS, `query`, `is_row` and `position` along the other.
    """
    token = gl.expand_dims(place, 1 - AXIS)
    newest = gl.expand_dims(gl.minimum(position, end - 1), AXIS)
    sees = token <= newest
    if SHAPE.WINDOW > 0:
        sees = sees & (token > gl.expand_dims(position - SHAPE.WINDOW, AXIS))
    if tables.query_hidden is not None:
        # Bit i of a query's word hides the token i before it.
        hidden = gl.load(tables.query_hidden + query, mask=is_row, other=0)
        back = gl.expand_dims(position, AXIS) - token
        near = gl.expand_dims(hidden.to(gl.int32), AXIS)
        far = gl.expand_dims((hidden >> 32).to(gl.int32), AXIS)
        is_hidden = (gl.where(back < 32, near, far) >> (back & 31)) & 1
        sees = sees & ((is_hidden == 0) | (back >= 64))
    return sees
