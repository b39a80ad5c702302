"""One step of the online softmax, in units of log2."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def weigh(score, at, mask_kv, position, hidden, scale, peak, total, SHAPE: tl.constexpr):
    """Turn a block of scores into weights.

    Args:
        score: [rows, tokens] products of queries and keys.
        at: [tokens] positions.
        mask_kv: [tokens] which of them are there.
        position: [rows] the last position that each row sees.
        hidden: where there are drafts, [rows] which of the tokens before that it does not see, and
            the position up to which nothing is hidden.
        scale: what products are multiplied by.
        peak: [rows] largest score so far.
        total: [rows] sum of weights so far.

    Returns:
        the weights, the factor by which former states shrink, and the new peak and total.
    """
    score = score * (scale * LOG2_E)
    if SHAPE.SOFTCAP > 0:
        # tanh(x) = 1 - 2 / (exp(2x) + 1), in units of log2
        doubled = tl.exp2(score * (2.0 / SHAPE.SOFTCAP))
        score = (SHAPE.SOFTCAP * LOG2_E) * (1.0 - 2.0 / (doubled + 1.0))
    sees = mask_kv[None, :] & (at[None, :] <= position[:, None])
    if SHAPE.WINDOW > 0:
        sees = sees & (at[None, :] > position[:, None] - SHAPE.WINDOW)
    score = tl.where(sees, score, float("-inf"))
    if SHAPE.HAS_DRAFTS:
        words, clear = hidden
        last = tl.max(at)
        if last > clear:
            score = tl.where(_hides(words, position, at, last), float("-inf"), score)
    next_peak = tl.maximum(peak, tl.max(score, 1))
    base = tl.where(next_peak == float("-inf"), 0.0, next_peak)
    decay = tl.exp2(peak - base)
    weight = tl.exp2(score - base[:, None])
    return weight, decay, next_peak, total * decay + tl.sum(weight, 1)


@triton.jit
def _hides(words, position, at, last):
    """[rows, tokens] whether the bit is set that stands for a token in a row's word.

    Of each row's word the bits are taken that stand for the block's tokens, the last one's first:
    so words of 64 bits are shifted once a row, and those of 32 once a score. Tokens behind a row's
    position are for others to mask. Blocks of more tokens than that have a half chosen for each.
    """
    NUM_TOKENS: tl.constexpr = at.shape[0]
    bits = words.to(tl.uint64, bitcast=True)
    if NUM_TOKENS <= 32:
        back = position - last
        older = bits >> tl.minimum(tl.maximum(back, 0), 63).to(tl.uint64)
        older = tl.where(back < 64, older, 0)
        newer = bits << tl.minimum(tl.maximum(-back, 0), 63).to(tl.uint64)
        bits = tl.where(back >= 0, older, newer).to(tl.uint32)
        hides = ((bits[:, None] >> (last - at).to(tl.uint32)[None, :]) & 1) != 0
    else:
        back = position[:, None] - at[None, :]
        near = bits.to(tl.uint32)[:, None]
        far = (bits >> 32).to(tl.uint32)[:, None]
        bit = (tl.where(back < 32, near, far) >> (back & 31).to(tl.uint32)) & 1
        hides = (bit != 0) & (back < 64)
    return hides
