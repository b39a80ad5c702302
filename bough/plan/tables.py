"""A plan's tables as device tensors: at fixed addresses where a capacity is given."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bough.forest import Forest
from bough.plan.schedule import Schedule


class PlanCapacityError(RuntimeError):
    """A schedule does not fit the buffers that its plan was made with."""


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
    """

    num_tiles: int
    num_segments: int
    num_queries: int
    num_query_rows: int
    num_partials: int
    num_pages: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0:
                raise ValueError(f"{field.name} must be at least 0, got {value}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanTables:
    """What kernels read; int32 but for `segment_page_start` (int64).

    Args:
        tile_segment_indptr: [num_tiles + 1].
        segment_page_start: [num_segments] first page of each segment, counted in `pages`.
        segment_first_slot: [num_segments] slot of its first token in that page.
        segment_position: [num_segments] position of its first token.
        segment_len: [num_segments] tokens up to the end of the reserved pages where the segment
            may grow; a query sees those at or before its own position.
        tile_query_begin: [num_tiles].
        tile_num_queries: [num_tiles].
        query_indices: [num_query_rows].
        tile_partial_start: [num_tiles].
        merge_indptr: [num_queries + 1].
        merge_indices: [num_partials] or fewer.
        query_num_tiles: [num_queries].
        query_position: [num_queries].
        items: [num_tiles * num_head_splits] by falling cost.
        num_items: [1] entries of `items` in use.
        pages: physical page ids, the forest's `page_indices`.
    """

    tile_segment_indptr: torch.Tensor
    segment_page_start: torch.Tensor
    segment_first_slot: torch.Tensor
    segment_position: torch.Tensor
    segment_len: torch.Tensor
    tile_query_begin: torch.Tensor
    tile_num_queries: torch.Tensor
    query_indices: torch.Tensor
    tile_partial_start: torch.Tensor
    merge_indptr: torch.Tensor
    merge_indices: torch.Tensor
    query_num_tiles: torch.Tensor
    query_position: torch.Tensor
    items: torch.Tensor
    num_items: torch.Tensor
    pages: torch.Tensor


Arrays = dict[str, npt.NDArray[Any]]


def schedule_arrays(forest: Forest, schedule: Schedule) -> Arrays:
    """Collect the arrays that only a new schedule changes."""
    names = (
        "tile_segment_indptr tile_query_begin tile_num_queries query_indices tile_partial_start "
        "merge_indptr merge_indices query_num_tiles items"
    )
    arrays: Arrays = {name: getattr(schedule, name) for name in names.split()}
    arrays["num_items"] = np.array([len(schedule.items)], dtype=np.int32)
    node, begin = schedule.segment_node, schedule.segment_begin
    first_slot = forest.node_first_slot[node] + begin
    arrays["segment_first_slot"] = first_slot % np.int32(forest.page_size)
    arrays["segment_position"] = forest.node_start[node] + begin
    return arrays


def growing_arrays(
    forest: Forest, schedule: Schedule, open_segments: npt.NDArray[np.intp]
) -> Arrays:
    """Collect the arrays that growing leaves change while the schedule stays."""
    node, begin = schedule.segment_node, schedule.segment_begin
    page = (forest.node_first_slot[node] + begin) // forest.page_size
    stop = schedule.segment_stop.copy()
    grown = node[open_segments]
    stop[open_segments] = (
        forest.node_num_pages[grown] * forest.page_size - forest.node_first_slot[grown]
    )
    return {
        "segment_page_start": forest.node_page_start[node] + page,
        "segment_len": stop - begin,
        "query_position": forest.query_position,
        "pages": forest.page_indices,
    }


def new_tables(arrays: Arrays, device: str) -> PlanTables:
    """Make tables that fit; on the CPU they share the arrays' memory."""
    tensors = {name: torch.from_numpy(_writable(array)) for name, array in arrays.items()}
    return PlanTables(**{name: tensor.to(device) for name, tensor in tensors.items()})


def reserve_tables(capacity: PlanCapacity, num_head_splits: int, device: str) -> PlanTables:
    """Allocate tables once, for plans whose addresses must not change."""
    lengths = {
        "tile_segment_indptr": capacity.num_tiles + 1,
        "tile_query_begin": capacity.num_tiles,
        "tile_num_queries": capacity.num_tiles,
        "tile_partial_start": capacity.num_tiles,
        "query_indices": capacity.num_query_rows,
        "merge_indptr": capacity.num_queries + 1,
        "merge_indices": capacity.num_partials,
        "query_num_tiles": capacity.num_queries,
        "query_position": capacity.num_queries,
        "items": capacity.num_tiles * num_head_splits,
        "num_items": 1,
        "pages": capacity.num_pages,
    }
    names = ("page_start", "first_slot", "position", "len")
    lengths |= {f"segment_{name}": capacity.num_segments for name in names}
    return PlanTables(
        **{
            name: torch.zeros(
                length,
                dtype=torch.int64 if name == "segment_page_start" else torch.int32,
                device=device,
            )
            for name, length in lengths.items()
        }
    )


def check_capacity(tables: PlanTables, arrays: Arrays) -> None:
    """Raise PlanCapacityError, naming the first table that is too short, before any is written."""
    for name, array in arrays.items():
        most = len(getattr(tables, name))
        if len(array) > most:
            raise PlanCapacityError(
                f"{name} must be at most {most} entries, its capacity, got {len(array)}"
            )


def write_tables(tables: PlanTables, arrays: Arrays) -> None:
    """Overwrite the leading entries of reserved tables."""
    for name, array in arrays.items():
        getattr(tables, name)[: len(array)].copy_(torch.from_numpy(_writable(array)))


def _writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array if array.flags.writeable else array.copy()
