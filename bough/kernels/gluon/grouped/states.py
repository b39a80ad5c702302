"""Where a tile's attention states go."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from bough.kernels.triton.softmax import LN_2, LOG2_E


@gluon.jit
def store_states(
    sinks_ptr,
    states,
    tile,
    head,
    row,
    rows,
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
    is_only = rows.num_tiles == 1
    is_partial = rows.num_tiles > 1
    only_total = total
    if SHAPE.HAS_SINKS:
        sink = gl.load(sinks_ptr + q_head, mask=is_only, other=float("-inf")).to(gl.float32)
        extra = gl.exp2(sink * LOG2_E - gl.where(total > 0, peak, 0.0))
        only_total += gl.where(is_only, extra, 0.0)
    out = acc * gl.expand_dims(1.0 / gl.where(only_total > 0, only_total, 1.0), AXIS)
    lse = (peak + gl.log2(only_total)) * LN_2
    at = rows.query.to(gl.int64) * NUM_Q_HEADS + q_head
    gl.store(
        states.out + gl.expand_dims(at * SHAPE.V_DIM, AXIS) + offs_dim,
        out.to(states.out.dtype.element_ty),
        mask=gl.expand_dims(is_only, AXIS),
    )
    gl.store(states.lse + at, lse, mask=is_only)
    at = (tile.partial_start + row // SHAPE.GROUP_SIZE).to(gl.int64) * NUM_Q_HEADS + q_head
    gl.store(
        states.partial_out + gl.expand_dims(at * SHAPE.V_DIM, AXIS) + offs_dim,
        out,
        mask=gl.expand_dims(is_partial, AXIS),
    )
    gl.store(states.partial_lse + at, lse, mask=is_partial)
