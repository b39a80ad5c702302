"""What blocks cost by item: a tile on one stored head, or on several where it is soon over.

Joined are heads by what they take at an even share of the bandwidth; what items then take counts
that those which compute leave theirs to those which read.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.plan.block import Blocks
from bough.plan.cost import CostModel
from bough.tree_order import Index, distinct

Seconds = npt.NDArray[np.float64]

# An item of more heads than it must cover takes at most so much of the step, starts of items behind
# one another included: then it is as quick to start as it is easy to place.
_MOST_SHARE = 0.25


class Work(NamedTuple):
    """Blocks before they are divided.

    Attributes:
        num_tokens: [num_blocks] KV tokens that each visits.
        num_heads: [num_blocks] head splits that an item covers.
        num_items: [num_blocks] items of each tile.
        rate: [num_blocks] seconds per KV token of an item.
        reading: [num_blocks] those of reading memory at an even share of its bandwidth.
        is_mixed: whether some items read faster than that, beside others that compute.
    """

    num_tokens: Index
    num_heads: Index
    num_items: Index
    rate: Seconds
    reading: Seconds
    is_mixed: bool


def measure_work(blocks: Blocks, cost: CostModel) -> Work:
    """Join the heads of blocks that are soon over.

    Each item costs its start before its first tokens arrive. One of the least height that is soon
    over covers several heads with one start, and reads on from head to head.

    Args:
        blocks: the blocks.
        cost: the cost model.
    """
    splits, num_tokens = cost.num_head_splits, blocks.num_tokens
    readers = np.bincount(blocks.task)[blocks.task]
    most = int(readers.max(initial=0)) + 1
    found, at = distinct(blocks.num_queries * most + readers)
    queries = found // most
    per_token = cost.per_token(queries, found % most)
    rate = (per_token.seconds() / splits)[at]
    tile_class = cost.tile_class(queries)[at]
    heads = np.ones_like(num_tokens)
    is_low = tile_class < len(cost.tile_heights) - 1
    heads[is_low] = cost.least_heads
    if cost.tiling.joined_seconds > 0:
        seconds = rate * num_tokens
        num_low = int(np.count_nonzero(is_low))
        num_items = num_low * (splits // cost.least_heads) + (len(heads) - num_low) * splits
        starts = cost.device.tile_seconds * (num_items // cost.num_workers)
        share = (float(seconds.sum()) * splits / cost.num_workers + starts) * _MOST_SHARE
        longest = np.equal(tile_class, 0) * min(cost.tiling.joined_seconds, share)
        num = 2 * cost.least_heads
        while splits % num == 0:
            heads[seconds * num <= longest] = num
            num *= 2
    tokens = np.bincount(at, num_tokens, len(found))
    factor = per_token.reading_factor(tokens, cost.least_reading_factor)
    if factor < 1:
        rate = (per_token.seconds(factor) / splits)[at]
    reading = (per_token.reading / splits)[at] * heads
    return Work(num_tokens, heads, splits // heads, rate * heads, reading, factor < 1)
