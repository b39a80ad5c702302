"""One step of the online softmax over a block of scores [rows, tokens]."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def weigh(score, peak, factor):
    """Turn scores into weights.

    Returns the weights, the factor by which former states shrink, and the new peak in units of
    log2.
    """
    next_peak, base, decay = raise_peak(peak, gl.max(score, 1) * factor)
    weight = gl.exp2(score * factor - base[:, None])
    return weight, decay, next_peak


@gluon.jit
def raise_peak(peak, highest):
    """Raise peaks to the highest scores of a block, where these are higher.

    Returns the new peak, what is taken from scores before they become weights, and the factor by
    which former states shrink.
    """
    next_peak = gl.maximum(peak, highest)
    base = gl.where(next_peak == float("-inf"), 0.0, next_peak)
    return next_peak, base, gl.exp2(peak - base)
