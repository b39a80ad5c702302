"""One block of KV: its rows loaded, scored, weighed and added."""

from __future__ import annotations

import triton
import triton.language as tl

from bough.kernels.triton.padding import padded
from bough.kernels.triton.rows import load_rope
from bough.kernels.triton.softmax import weigh


@triton.jit
def visit_block(
    key,
    value,
    page,
    slot,
    at,
    mask_kv,
    head,
    q,
    q_rope,
    position,
    hidden,
    scale,
    peak,
    total,
    acc,
    SHAPE: tl.constexpr,
):
    """Return the states of some rows on one stored head with a block of tokens merged in.

    The tokens lie in slots `slot` of pages `page`, at positions `at`; those outside `mask_kv` are
    not there.
    """
    offs_nope = tl.arange(0, padded(SHAPE.NOPE_DIM))
    offs_v = tl.arange(0, padded(SHAPE.V_DIM))
    page64 = page.to(tl.int64)
    k_ptrs = key.ptr + page64 * key.stride_page + slot * key.stride_slot
    v_ptrs = value.ptr + page64 * value.stride_page + slot * value.stride_slot
    k = tl.load(  # [BLOCK_KV, NOPE_DIM padded]
        (k_ptrs + head * key.stride_head)[:, None] + offs_nope[None, :],
        mask=mask_kv[:, None] & (offs_nope < SHAPE.NOPE_DIM)[None, :],
        other=0.0,
    )
    score = tl.dot(q, tl.trans(k), input_precision="ieee")  # [BLOCK_Q, BLOCK_KV]
    if SHAPE.ROPE_DIM > 0:
        rope = load_rope(k_ptrs + SHAPE.NUM_KV_HEADS * SHAPE.V_DIM, mask_kv, SHAPE.ROPE_DIM)
        score = tl.dot(q_rope, tl.trans(rope), score, input_precision="ieee")
    weight, decay, peak, total = weigh(
        score, at, mask_kv, position, hidden, scale, peak, total, SHAPE
    )
    v = tl.load(  # [BLOCK_KV, V_DIM padded]
        (v_ptrs + head * value.stride_head)[:, None] + offs_v[None, :],
        mask=mask_kv[:, None] & (offs_v < SHAPE.V_DIM)[None, :],
        other=0.0,
    )
    acc = tl.dot(weight.to(v.dtype), v, acc * decay[:, None], input_precision="ieee")
    return peak, total, acc
