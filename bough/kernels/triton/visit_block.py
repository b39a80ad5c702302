"""One block of KV: its rows loaded, scored, weighed and added."""

from __future__ import annotations

import triton
import triton.language as tl

from bough.kernels.triton.quantized import (
    common_unit,
    exponent_of,
    load_exponents,
    load_pairs,
    power,
    to_products,
)
from bough.kernels.triton.rows import load_columns
from bough.kernels.triton.softmax import weigh


@triton.jit
def visit_block(
    kv,
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
    unit,
    SHAPE: tl.constexpr,
):
    """Return the states of some rows on one stored head with a block of tokens merged in.

    The tokens lie in slots `slot` of pages `page`, at positions `at`; those outside `mask_kv` are
    not there. Where KV is fp8, `acc` counts in powers of two, the `unit`-th.
    """
    page64 = page.to(tl.int64)
    k_ptrs = kv.key.ptr + page64 * kv.key.stride_page + slot * kv.key.stride_slot
    k_ptrs += head * kv.key.stride_head
    v_ptrs = kv.value.ptr + page64 * kv.value.stride_page + slot * kv.value.stride_slot
    v_ptrs += head * kv.value.stride_head
    k = load_columns(k_ptrs, mask_kv, SHAPE.NOPE_DIM)  # [BLOCK_KV, NOPE_DIM padded]
    if SHAPE.IS_FP8:
        word = load_exponents(kv.scales, page, slot, head, mask_kv)
        k_exponent = exponent_of(word, 0, SHAPE.NOPE_DIM)
        k = to_products(k, word, k_exponent, 0, SHAPE.NOPE_DIM, q.dtype)
    score = tl.dot(q, tl.trans(k), input_precision="ieee")  # [BLOCK_Q, BLOCK_KV]
    if SHAPE.IS_FP8:
        score *= power(k_exponent)[None, :]
    if SHAPE.ROPE_DIM > 0:
        rope_ptrs = kv.rope.ptr + page64 * kv.rope.stride_page + slot * kv.rope.stride_slot
        rope = load_columns(rope_ptrs, mask_kv, SHAPE.ROPE_DIM).to(q_rope.dtype)
        score = tl.dot(q_rope, tl.trans(rope), score, input_precision="ieee")
    weight, decay, peak, total = weigh(
        score, at, mask_kv, position, hidden, scale, peak, total, SHAPE
    )
    if SHAPE.IS_FP8:
        v = load_pairs(v_ptrs, mask_kv, SHAPE.V_DIM)
        v_exponent = exponent_of(word, SHAPE.VALUE_SCALE, SHAPE.V_DIM)
        v = to_products(v, word, v_exponent, SHAPE.VALUE_SCALE, SHAPE.V_DIM, q.dtype)
        weight, decay, unit = common_unit(weight, decay, v_exponent, unit)
    else:
        v = load_columns(v_ptrs, mask_kv, SHAPE.V_DIM)
    acc = tl.dot(weight.to(v.dtype), v, acc * decay[:, None], input_precision="ieee")
    return peak, total, acc, unit
