"""Where tiles leave partials, and the lists in which they are merged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bough.plan.block import Blocks
from bough.tree_order import Index, argsort_small


class Partials(NamedTuple):
    """Partials by tile and by query.

    Attributes:
        num: partials in all.
        tile_start: [num_tiles] first partial of each tile, -1 where every query has one tile only.
        query_num_tiles: [num_queries] tiles of each query.
        query_num_partials: [num_queries] 0 where it has one tile or none.
        indices: partials by query, in the order of their tiles.
    """

    num: int
    tile_start: Index
    query_num_tiles: Index
    query_num_partials: Index
    indices: Index


def number_partials(num_queries: int, blocks: Blocks, num_tiles: Index) -> Partials:
    """Number the partials by tile, and list each query's in the order of its tiles.

    Args:
        num_queries: queries of the forest.
        blocks: the blocks.
        num_tiles: [num_blocks] tiles of each block; a tile has all queries of its block.
    """
    num_tiles_of_pair = num_tiles.repeat(blocks.num_queries)
    of_query = np.bincount(blocks.query, num_tiles_of_pair, num_queries).astype(np.intp)
    is_merged = of_query > 1
    merged = is_merged[blocks.query].nonzero()[0]
    query = blocks.query[merged]
    merged = merged[argsort_small(query, num_queries)]

    block = np.arange(len(num_tiles)).repeat(blocks.num_queries)[merged]
    has_partials = np.zeros(len(num_tiles), dtype=np.bool_)
    has_partials[block] = True
    size = blocks.num_queries * has_partials
    num_partials = size * num_tiles
    ends = num_partials.cumsum()
    # A pair's partials lie one tile's queries apart.
    counts = num_tiles_of_pair[merged]
    step = size[block]
    nearest = (ends - num_partials - blocks.query_begin)[block] + merged
    nearest -= (counts.cumsum() - counts) * step
    indices = nearest.repeat(counts)
    indices += np.arange(len(indices)) * step.repeat(counts)

    tile_size = size.repeat(num_tiles)
    tile_start = tile_size.cumsum() - tile_size
    tile_start[tile_size == 0] = -1
    return Partials(
        num=int(num_partials.sum()),
        tile_start=tile_start,
        query_num_tiles=of_query,
        query_num_partials=of_query * is_merged,
        indices=indices,
    )
