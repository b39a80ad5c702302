"""The plan: a schedule on its device, updated step by step and made anew only when it must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bough.device import Device
from bough.forest import Forest
from bough.plan.buffer import TableBuffer
from bough.plan.cost import CostModel, cost_model
from bough.plan.describe import describe
from bough.plan.growth import Growth
from bough.plan.pages import PageIds
from bough.plan.schedule import Schedule, make_schedule
from bough.plan.tables import (
    Arrays,
    PlanCapacity,
    PlanTables,
    expect_room,
    schedule_arrays,
)
from bough.spec import AttentionSpec


class Plan:
    """The schedule of one forest for one spec on one device. Made by `make_plan`.

    Attributes:
        forest: the forest that it serves now.
        cost: the cost model, with the spec and the device.
        schedule: the arrays that describe the work.
        memo: what a backend derived from this state of the plan; emptied when the state changes.
    """

    def __init__(self, forest: Forest, cost: CostModel, capacity: PlanCapacity | None) -> None:
        self.cost = cost
        self.memo: dict[str, Any] = {}
        self._capacity = capacity
        self._buffer: TableBuffer | None = None
        self._pages: PageIds | None = None
        self._tables: PlanTables | None = None
        self.forest: Forest
        self.schedule: Schedule
        self._growth: Growth
        self._replan(forest)

    @property
    def tables(self) -> PlanTables:
        """The tables on the device, for kernels; without a capacity made when first asked for."""
        if self._tables is None:
            arrays = _arrays(self.forest, self.schedule, self._growth)
            self._write_all(self.forest, arrays, {name: len(arrays[name]) for name in arrays})
        assert self._tables is not None
        return self._tables

    def update(self, forest: Forest) -> None:
        """Serve another forest: keep the schedule where leaves only grew, else make a new one.

        A schedule is kept while requests end in the nodes they ended in, only the tails of leaves
        that one request owns have grown, with their queries, and no tail has grown by more than
        its allowance (a quarter of its tile, one KV quantum at least). Pages may have moved.

        Raises:
            PlanCapacityError: the new schedule does not fit the capacity; the plan then still
                serves its former forest.
        """
        if not self._growth.serves(forest):
            self._replan(forest)
            return
        if self._capacity is not None:
            expect_room("pages", len(forest.page_indices), self._capacity.num_pages)
        if self._buffer is not None:
            self._buffer.write(self._growth.changed_arrays(forest))
            self._write_pages(forest)
        self.forest = forest
        self.memo.clear()

    def advance(self, num_tokens: int = 1) -> None:
        """Move every query on by `num_tokens`, into slots reserved for it, without a new forest.

        On a GPU this is one addition on the device, which a graph can hold; there the caller sees
        to it that the reserved pages suffice.

        Raises:
            ValueError: on the CPU, a query would leave the pages reserved for its leaf, or ends
                in a node that it shares.
        """
        position = self.tables.query_position[: self.forest.num_queries]
        if position.device.type == "cpu":
            self._check_room(position.numpy() + num_tokens)
        position.add_((position >= 0).to(position.dtype) * num_tokens)
        self.memo.clear()

    @property
    def num_tokens_read(self) -> int:
        """KV tokens that the tiles visit in each layer, each counted once per tile."""
        grown = self.forest.node_len - self._growth.planned.node_len
        return self.schedule.num_tokens_read + int(grown[self._growth.open_nodes].sum())

    @property
    def num_launched_items(self) -> int:
        """Programs of a launch over all items: the capacity's where there is one."""
        if self._capacity is not None:
            return self._capacity.num_tiles * self.schedule.num_head_splits
        return len(self.schedule.items)

    @property
    def heights(self) -> frozenset[int]:
        """Heights at which tiles of a launch run: all, with a capacity."""
        heights = self.cost.tile_heights
        if self._capacity is not None:
            return frozenset(heights)
        found = np.unique(self.cost.tile_class(self.schedule.tile_num_queries))
        return frozenset(heights[at] for at in found)

    @property
    def tall_tokens(self) -> int:
        """KV tokens that a tile of the greatest height visits on average; 0 with a capacity."""
        schedule = self.schedule
        is_tall = self.cost.tile_class(schedule.tile_num_queries) == len(self.cost.tile_heights) - 1
        if self._capacity is not None or not is_tall.any():
            return 0
        tokens = np.add.reduceat(
            schedule.segment_stop - schedule.segment_begin, schedule.tile_segment_indptr[:-1]
        )
        return int(tokens[is_tall].mean())

    @property
    def most_tile_queries(self) -> int:
        """Queries of the tallest tile of a launch: the cost model's limit with a capacity."""
        if self._capacity is not None:
            return self.cost.max_tile_queries
        return int(self.schedule.tile_num_queries.max(initial=1))

    @property
    def num_partial_rows(self) -> int:
        """Partials that a launch may write: the capacity's where there is one."""
        if self._capacity is not None:
            return self._capacity.num_partials
        return self.schedule.num_partials

    @property
    def most_partials(self) -> int:
        """Partials of the query that has most of them now."""
        return int(self.schedule.query_num_tiles.max(initial=0))

    @property
    def has_merge(self) -> bool:
        """Whether some query has partials or sees nothing, now or after an update in place."""
        return self._capacity is not None or bool((self.schedule.query_num_tiles != 1).any())

    def describe(self) -> str:
        """Return the schedule as text: totals, then a line per depth of the forest."""
        return describe(self.forest, self.schedule, self.cost)

    def _replan(self, forest: Forest) -> None:
        has_drafts = forest.query_hidden is not None
        if has_drafts and self.cost.spec.window is not None:
            raise NotImplementedError(
                f"draft trees take no window, got {self.cost.spec.window}; "
                "what works: drafts one behind the other, which need no tree"
            )
        schedule = make_schedule(forest, self.cost)
        if self._capacity is not None:
            has_drafts |= self._capacity.has_drafts
        growth = Growth(forest, schedule, self.cost, has_drafts)
        if self._capacity is None:
            self._buffer = self._tables = None
        else:
            arrays = _arrays(forest, schedule, growth)
            lengths = self._capacity.lengths(self.cost.num_head_splits)
            for name, array in arrays.items():
                expect_room(name, len(array), lengths[name])
            expect_room("num_partials", schedule.num_partials, self._capacity.num_partials)
            expect_room("pages", len(forest.page_indices), self._capacity.num_pages)
            self._write_all(forest, arrays, lengths)
        self.forest, self.schedule, self._growth = forest, schedule, growth
        self.memo.clear()

    def _write_all(self, forest: Forest, arrays: Arrays, lengths: dict[str, int]) -> None:
        device = self.cost.device.torch_device
        if self._buffer is None:
            self._buffer = TableBuffer(lengths, device)
        if self._pages is None:
            num_pages = None if self._capacity is None else self._capacity.num_pages
            self._pages = PageIds(device, num_pages)
        self._buffer.write(arrays)
        self._pages.follow(forest)
        if self._tables is None:
            self._tables = PlanTables(**self._buffer.tensors(), pages=self._pages.tensor)

    def _write_pages(self, forest: Forest) -> None:
        assert self._pages is not None and self._tables is not None
        if self._pages.follow(forest):
            self._tables = replace(self._tables, pages=self._pages.tensor)

    def _check_room(self, position: npt.NDArray[np.int32]) -> None:
        forest = self.forest
        sees = forest.query_node >= 0
        node = forest.query_node[sees]
        room = forest.node_start + forest.node_num_pages * forest.page_size
        room = room - forest.node_first_slot
        is_open = np.zeros(forest.num_nodes, dtype=np.bool_)
        is_open[self._growth.open_nodes] = True
        is_bad = ~is_open[node] | (position[sees] >= room[node])
        if is_bad.any():
            query = int(np.flatnonzero(sees)[np.argmax(is_bad)])
            raise ValueError(
                f"query {query} must end in a leaf of its own with reserved slots to advance, "
                f"got position {position[query]} in node {forest.query_node[query]}"
            )


def make_plan(
    forest: Forest,
    spec: AttentionSpec,
    device: Device,
    capacity: PlanCapacity | None = None,
    *,
    itemsize: int | None = None,
) -> Plan:
    """Schedule one decode step over a forest; it serves every layer of that step.

    Args:
        forest: the batch.
        spec: the attention variant.
        device: the machine whose rates and fixed costs count.
        capacity: sizes of buffers that must keep their addresses; None lets them follow the
            forest.
        itemsize: bytes of a stored number, 1 for fp8 with its scales; 4 on a CPU and 2 elsewhere
            when None.

    Raises:
        PlanCapacityError: the schedule does not fit the capacity.
    """
    if itemsize is None:
        itemsize = 4 if torch.device(device.torch_device).type == "cpu" else 2
    return Plan(forest, cost_model(spec, device, itemsize), capacity)


def _arrays(forest: Forest, schedule: Schedule, growth: Growth) -> Arrays:
    """Collect all tables, in the order in which they lie."""
    return schedule_arrays(schedule) | growth.all_arrays(forest)
