"""What the CPU reads for a plan: tiles grouped into batches of one shape, once for all layers."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from bough.drafts import hides
from bough.plan import Plan

# Tiles of fewer bytes in fp32 are gathered and run together: a copy of them costs less than the
# launches of a product of their own. Larger ones are read in place.
_SHORT_BYTES = 2 << 20
# Bytes gathered at a time: what allocators hand out again without new pages from the system.
_GATHER_BYTES = 8 << 20
# A run of consecutive slots shorter than this is gathered with its neighbours.
_SHORT_RUN = 128
# Tokens of one product that reads in place: its scores stay in the cache.
_READ_TOKENS = 2048

Index = npt.NDArray[np.int64]


class Read(NamedTuple):
    """Tokens of n tiles, and who sees them.

    Attributes:
        slots: [n, num_tokens] slots, or a slice of them where n is 1.
        visible: [n, num_queries, num_tokens], or None where every query sees every token.
    """

    slots: torch.Tensor | slice
    visible: torch.Tensor | None


class Batch(NamedTuple):
    """Tiles of one shape.

    Attributes:
        query: [n, num_queries] queries of each tile.
        row: [n, num_queries] where their outputs go: the query itself, or after all queries the
            partial.
        reads: the tiles' tokens, one read after the other.
    """

    query: torch.Tensor
    row: torch.Tensor
    reads: list[Read]


class _Tiles:
    """The plan's tables with segments clipped to what the queries see now."""

    def __init__(self, plan: Plan) -> None:
        tables = plan.tables
        self.window = plan.cost.spec.window
        self.token_bytes = plan.cost.spec.kv_bytes(1, 4)
        self.page_size = plan.forest.page_size
        self.num_tiles = plan.schedule.num_tiles
        self.pages: npt.NDArray[np.int32] = tables.pages.numpy()
        num_segments = plan.schedule.num_segments
        indptr = tables.tile_segment_indptr.numpy()[: self.num_tiles + 1]
        self.segment_tile = np.repeat(np.arange(self.num_tiles), np.diff(indptr))
        self.indptr = indptr
        self.query_begin = tables.tile_query_begin.numpy()[: self.num_tiles]
        self.num_queries = tables.tile_num_queries.numpy()[: self.num_tiles]
        self.queries = tables.query_indices.numpy().astype(np.int64)
        self.position = tables.query_position.numpy().astype(np.int64)
        self.hidden = tables.query_hidden.numpy()
        self.partial_start = tables.tile_partial_start.numpy()[: self.num_tiles]
        self.query_num_tiles = tables.query_num_tiles.numpy()[: plan.forest.num_queries]

        # Of a tile's queries, the first has the least window and the last sees farthest.
        first = self.position[self.queries[self.query_begin]]
        last = self.position[self.queries[self.query_begin + self.num_queries - 1]]
        origin = tables.segment_position.numpy()[:num_segments].astype(np.int64)
        length = tables.segment_len.numpy()[:num_segments]
        begin = np.zeros_like(origin)
        if self.window is not None:
            begin = np.clip(first[self.segment_tile] - self.window + 1 - origin, 0, length)
        stop = np.clip(last[self.segment_tile] + 1 - origin, begin, length)
        self.origin = origin + begin
        self.length = stop - begin
        slot = tables.segment_first_slot.numpy()[:num_segments] + begin
        self.page_start = tables.segment_page_start.numpy()[:num_segments] + slot // self.page_size
        self.first_slot = slot % self.page_size
        self.num_tokens = np.bincount(
            self.segment_tile, self.length, minlength=self.num_tiles
        ).astype(np.int64)

    def queries_of(self, tiles: Index) -> tuple[Index, Index]:
        """Queries [n, num_queries] of tiles that have equally many, and their output rows."""
        at = np.arange(self.num_queries[tiles[0]])
        query = self.queries[self.query_begin[tiles][:, None] + at]
        partial = len(self.query_num_tiles) + self.partial_start[tiles][:, None] + at
        return query, np.where(self.query_num_tiles[query] > 1, partial, query)

    def visible(
        self, query: Index, position: Index, is_token: npt.NDArray[np.bool_]
    ) -> torch.Tensor | None:
        """Compare positions and what is hidden; None where every query sees every token."""
        at = self.position[query][:, :, None]
        key = position[:, None, :]
        is_seen = (key <= at) & is_token[:, None, :]
        if self.window is not None:
            is_seen &= key > at - self.window
        if len(self.hidden):
            is_seen &= ~hides(self.hidden[query][:, :, None], at - key)
        return None if is_seen.all() else torch.from_numpy(is_seen)


def compile_program(plan: Plan) -> list[Batch]:
    """Group a plan's tiles into batches, in the order in which the tiles stand."""
    if plan.schedule.num_tiles == 0:
        return []
    tiles = _Tiles(plan)
    is_short = tiles.num_tokens * tiles.token_bytes < _SHORT_BYTES
    batches = [_long_batch(tiles, tile) for tile in np.flatnonzero(~is_short).tolist()]
    return batches + _short_batches(tiles, np.flatnonzero(is_short & (tiles.num_tokens > 0)))


def _long_batch(tiles: _Tiles, tile: int) -> Batch:
    query, row = tiles.queries_of(np.array([tile]))
    reads: list[Read] = []
    for segment in range(tiles.indptr[tile], tiles.indptr[tile + 1]):
        origin = int(tiles.origin[segment])
        for slots, count in _pieces(tiles, segment):
            position = np.arange(origin, origin + count)[None]
            is_token = np.ones((1, count), dtype=np.bool_)
            reads.append(Read(slots, tiles.visible(query, position, is_token)))
            origin += count
    return Batch(torch.from_numpy(query), torch.from_numpy(row), reads)


def _pieces(tiles: _Tiles, segment: int) -> list[tuple[torch.Tensor | slice, int]]:
    """Cut a segment into slices where its pages follow each other, into gathers elsewhere."""
    first, length = int(tiles.first_slot[segment]), int(tiles.length[segment])
    size = tiles.page_size
    num_pages = -(-(first + length) // size)
    page_start = int(tiles.page_start[segment])
    pages = tiles.pages[page_start : page_start + num_pages].astype(np.int64)
    breaks = np.flatnonzero(np.diff(pages) != 1) + 1
    pieces: list[tuple[torch.Tensor | slice, int]] = []
    if length < _SHORT_RUN * (len(breaks) + 1):
        token = np.arange(first, first + length)
        slots = pages[token // size] * size + token % size
        most = max(1, _GATHER_BYTES // tiles.token_bytes)
        for at in range(0, length, most):
            part = slots[at : at + most]
            pieces.append((torch.from_numpy(part)[None], len(part)))
        return pieces
    for begin, stop in pairwise([0, *breaks.tolist(), num_pages]):
        low, high = max(begin * size, first), min(stop * size, first + length)
        shift = int(pages[begin]) * size - begin * size
        for at in range(low, high, _READ_TOKENS):
            end = min(at + _READ_TOKENS, high)
            pieces.append((slice(at + shift, end + shift), end - at))
    return pieces


def _short_batches(tiles: _Tiles, short: Index) -> list[Batch]:
    """Gather short tiles of like shape together, padded to the next power of two of tokens."""
    if not len(short):
        return []
    slots, position, tile_begin = _gathered(tiles, short)
    count = tiles.num_tokens[short]
    width = 1 << np.ceil(np.log2(np.maximum(count, 16))).astype(np.int64)
    shape = tiles.num_queries[short].astype(np.int64) * (2 * int(width.max())) + width
    batches = []
    for key in np.unique(shape):
        members = np.flatnonzero(shape == key)
        most = max(1, _GATHER_BYTES // (int(count[members].max()) * tiles.token_bytes))
        for at in range(0, len(members), most):
            part = members[at : at + most]
            offset = np.arange(int(count[part].max()))
            is_token = offset < count[part][:, None]
            source = tile_begin[part][:, None] + np.where(is_token, offset, 0)
            query, row = tiles.queries_of(short[part])
            visible = tiles.visible(query, position[source], is_token)
            read = Read(torch.from_numpy(slots[source]), visible)
            batches.append(Batch(torch.from_numpy(query), torch.from_numpy(row), [read]))
    return batches


def _gathered(tiles: _Tiles, short: Index) -> tuple[Index, Index, Index]:
    """Slots and positions of all tokens of some tiles, and where each tile's begin."""
    is_short = np.zeros(tiles.num_tiles, dtype=np.bool_)
    is_short[short] = True
    segments = np.flatnonzero(is_short[tiles.segment_tile])
    length = tiles.length[segments]
    segment = np.repeat(segments, length)
    within = np.arange(len(segment)) - np.repeat(np.cumsum(length) - length, length)
    slot = tiles.first_slot[segment] + within
    page = tiles.pages[tiles.page_start[segment] + slot // tiles.page_size].astype(np.int64)
    count = tiles.num_tokens[short]
    return (
        page * tiles.page_size + slot % tiles.page_size,
        tiles.origin[segment] + within,
        np.cumsum(count) - count,
    )
