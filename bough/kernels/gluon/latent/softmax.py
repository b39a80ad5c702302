"""One step of the online softmax over a block of scores."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma


@gluon.jit
def score_block(q_nope, q_rope, buffers, stage, zeros):
    """Begin the product of 64 rows with a block's keys."""
    keys = buffers.state_blocks.index(stage).permute((1, 0))
    rope_keys = buffers.rope_blocks.index(stage).permute((1, 0))
    score = warpgroup_mma(q_nope, keys, zeros, use_acc=False, is_async=True)
    return warpgroup_mma(q_rope, rope_keys, score, is_async=True)


@gluon.jit
def mask_scores(score, first, end, position, clear):
    """Hide what rows do not see of a block that starts at position `first`.

    Positions below `clear` are seen by all rows, those from `end` on by none.
    """
    if first + score.shape[1] > clear:
        COLUMNS: gl.constexpr = gl.SliceLayout(0, score.type.layout)
        offs_kv = gl.arange(0, score.shape[1], layout=COLUMNS)
        num_seen = gl.minimum(position + 1, end) - first
        score = gl.where(offs_kv[None, :] < num_seen[:, None], score, float("-inf"))
    return score


@gluon.jit
def weigh(score, peak, total, scale_log2):
    """Turn scores into weights.

    Returns the weights, the factor by which former states shrink, and the new peak and total, the
    peak in units of log2.
    """
    next_peak = gl.maximum(peak, gl.max(score, 1) * scale_log2)
    base = gl.where(next_peak == float("-inf"), 0.0, next_peak)
    decay = gl.exp2(peak - base)
    weight = gl.exp2(score * scale_log2 - base[:, None])
    return weight, decay, next_peak, total * decay + gl.sum(weight, 1)
