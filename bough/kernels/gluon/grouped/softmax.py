"""One step of the online softmax over a block of scores, of rows or of columns."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma

LOG2_E = gl.constexpr(1.4426950408889634)
LN_2 = gl.constexpr(0.6931471805599453)


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


@gluon.jit
def weigh(score, peak, factor, AXIS: gl.constexpr):
    """Turn scores into weights along an axis of tokens.

    Returns the weights, the factor by which former states shrink, and the new peak in units of
    log2.
    """
    next_peak = gl.maximum(peak, gl.max(score, AXIS) * factor)
    base = gl.where(next_peak == float("-inf"), 0.0, next_peak)
    decay = gl.exp2(peak - base)
    weight = gl.exp2(score * factor - gl.expand_dims(base, AXIS))
    return weight, decay, next_peak


@gluon.jit
def store_states(
    sinks_ptr,
    tables,
    states,
    tile,
    head,
    row,
    query,
    is_only,
    peak,
    total,
    acc,
    SHAPE: gl.constexpr,
    AXIS: gl.constexpr,
):
    """Write rows of queries that have this tile only to the outputs, all others to partials.

    `acc` has its columns on AXIS and is not divided yet; `head`, `row` and what follows them go
    with its other axis.
    """
    NUM_Q_HEADS: gl.constexpr = SHAPE.NUM_KV_HEADS * SHAPE.GROUP_SIZE
    DIMS: gl.constexpr = gl.SliceLayout(1 - AXIS, acc.type.layout)
    offs_dim = gl.expand_dims(gl.arange(0, SHAPE.V_DIM, layout=DIMS), 1 - AXIS)
    q_head = head * SHAPE.GROUP_SIZE + row % SHAPE.GROUP_SIZE
    is_partial = (row < tile.num_rows) & (is_only == 0)
    only_total = total
    if SHAPE.HAS_SINKS:
        sink = gl.load(sinks_ptr + q_head, mask=is_only, other=float("-inf")).to(gl.float32)
        extra = gl.exp2(sink * LOG2_E - gl.where(total > 0, peak, 0.0))
        only_total += gl.where(is_only, extra, 0.0)
    out = acc * gl.expand_dims(1.0 / gl.where(only_total > 0, only_total, 1.0), AXIS)
    lse = (peak + gl.log2(only_total)) * LN_2
    at = query.to(gl.int64) * NUM_Q_HEADS + q_head
    gl.store(
        states.out + gl.expand_dims(at * SHAPE.V_DIM, AXIS) + offs_dim,
        out.to(states.out.dtype.element_ty),
        mask=gl.expand_dims(is_only, AXIS),
    )
    gl.store(states.lse + at, lse, mask=is_only)
    start = gl.load(tables.tile_partial_start + tile.index).to(gl.int64)
    at = (start + row // SHAPE.GROUP_SIZE) * NUM_Q_HEADS + q_head
    gl.store(
        states.partial_out + gl.expand_dims(at * SHAPE.V_DIM, AXIS) + offs_dim,
        out,
        mask=gl.expand_dims(is_partial, AXIS),
    )
    gl.store(states.partial_lse + at, lse, mask=is_partial)
