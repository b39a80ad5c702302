"""The runs of tokens that a tile visits."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def find_segment(tables, segment, stop):
    """Where a segment lies, as far as a tile that stops at position `stop` sees into it.

    Returns its first position, its tokens up to `stop`, the slot of its first token in its first
    page, and where its pages begin among all.
    """
    origin = tl.load(tables.segment_position + segment)
    num_tokens = tl.minimum(tl.load(tables.segment_len + segment), stop - origin)
    first_slot = tl.load(tables.segment_first_slot + segment)
    page_start = tl.load(tables.segment_page_start + segment)
    return origin, num_tokens, first_slot, page_start
