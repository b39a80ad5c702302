"""A plan's tables, as kernels read them, and how many entries they hold."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bough.expect import expect
from bough.plan.schedule import Schedule

Arrays = dict[str, npt.NDArray[Any]]


class PlanCapacityError(RuntimeError):
    """A schedule does not fit the buffers that its plan was made with."""


def expect_room(name: str, num_entries: int, most: int) -> None:
    """Raise PlanCapacityError unless that many entries fit."""
    if num_entries > most:
        raise PlanCapacityError(
            f"{name} must be at most {most} entries, its capacity, got {num_entries}"
        )


@dataclass(frozen=True, kw_only=True)
class PlanCapacity:
    """Entries that a plan's buffers hold, for plans that must keep their addresses.

    Args:
        num_tiles: tiles, each standing for all head splits.
        num_segments: segments of all tiles.
        num_queries: queries of the forest.
        num_query_rows: queries of the tiles, counted once per block that holds them.
        num_partials: partials.
        num_pages: length of the forest's `page_indices`.
        has_drafts: whether some queries may be drafts.
    """

    num_tiles: int
    num_segments: int
    num_queries: int
    num_query_rows: int
    num_partials: int
    num_pages: int
    has_drafts: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            expect(value >= 0, field.name, "at least 0", value)

    def lengths(self, num_head_splits: int) -> dict[str, int]:
        """Entries of each table but `pages`."""
        return {
            "num_items": 1,
            "num_claimed": 2,
            "items": self.num_tiles * num_head_splits,
            "tile_num_heads": self.num_tiles,
            "tile_segment_indptr": self.num_tiles + 1,
            "tile_query_begin": self.num_tiles,
            "tile_num_queries": self.num_tiles,
            "tile_partial_start": self.num_tiles,
            "query_indices": self.num_query_rows,
            "query_num_tiles": self.num_queries,
            "merge_indptr": self.num_queries + 1,
            "merge_indices": self.num_partials,
            "segment_first_slot": self.num_segments,
            "segment_position": self.num_segments,
            "segment_page_start": self.num_segments,
            "segment_len": self.num_segments,
            "query_position": self.num_queries,
            "query_hidden": self.num_queries * self.has_drafts,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanTables:
    """What kernels read; int32 but for `segment_page_start` and `query_hidden` (int64).

    Args:
        num_items: [1] entries of `items` in use.
        num_claimed: [2] items that the programs of a running kernel have taken beyond the first of
            each, and programs that have ended; zeros between kernels. So one kernel at a time.
        items: [num_tiles * num_head_splits] or fewer, in the order in which they are taken.
        tile_num_heads: [num_tiles] stored heads that an item of each tile covers.
        tile_segment_indptr: [num_tiles + 1].
        tile_query_begin: [num_tiles].
        tile_num_queries: [num_tiles].
        tile_partial_start: [num_tiles].
        query_indices: [num_query_rows].
        query_num_tiles: [num_queries].
        merge_indptr: [num_queries + 1].
        merge_indices: [num_partials] or fewer.
        segment_first_slot: [num_segments] slot of each segment's first token in its first page.
        segment_position: [num_segments] position of its first token.
        segment_page_start: [num_segments] first page of each segment, counted in `pages`.
        segment_len: [num_segments] tokens up to the end of the reserved pages where the segment
            may grow; a query sees those at or before its own position.
        query_position: [num_queries].
        query_hidden: [num_queries] as in the forest; empty where no query is a draft.
        pages: physical page ids, the forest's `page_indices`.
    """

    num_items: torch.Tensor
    num_claimed: torch.Tensor
    items: torch.Tensor
    tile_num_heads: torch.Tensor
    tile_segment_indptr: torch.Tensor
    tile_query_begin: torch.Tensor
    tile_num_queries: torch.Tensor
    tile_partial_start: torch.Tensor
    query_indices: torch.Tensor
    query_num_tiles: torch.Tensor
    merge_indptr: torch.Tensor
    merge_indices: torch.Tensor
    segment_first_slot: torch.Tensor
    segment_position: torch.Tensor
    segment_page_start: torch.Tensor
    segment_len: torch.Tensor
    query_position: torch.Tensor
    query_hidden: torch.Tensor
    pages: torch.Tensor

    @property
    def has_drafts(self) -> bool:
        """Whether they say what is hidden from each query."""
        return len(self.query_hidden) > 0


def schedule_arrays(schedule: Schedule) -> Arrays:
    """Collect the tables that only a new schedule changes, those of segments apart."""
    names = (
        "items tile_num_heads tile_segment_indptr tile_query_begin "
        "tile_num_queries tile_partial_start "
        "query_indices query_num_tiles merge_indptr merge_indices"
    )
    arrays: Arrays = {"num_items": np.array([len(schedule.items)]), "num_claimed": np.zeros(2)}
    return arrays | {name: getattr(schedule, name) for name in names.split()}
