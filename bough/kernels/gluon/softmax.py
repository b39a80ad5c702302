"""One step of the online softmax over a block of scores, of rows or of columns."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


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
