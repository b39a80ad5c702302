"""The plan: a schedule on its device, updated step by step and made anew only when it must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bough.device import Device
from bough.forest import Forest
from bough.plan.cost import CostModel
from bough.plan.describe import describe
from bough.plan.schedule import Schedule, make_schedule, open_segments
from bough.plan.tables import (
    Arrays,
    PlanCapacity,
    PlanCapacityError,
    PlanTables,
    check_capacity,
    growing_arrays,
    new_tables,
    reserve_tables,
    schedule_arrays,
    write_tables,
)
from bough.spec import AttentionSpec


class Plan:
    """The schedule of one forest for one spec on one device. Made by `make_plan`.

    Attributes:
        forest: the forest that it serves now.
        cost: the cost model, with the spec and the device.
        schedule: the arrays that describe the work.
        tables: the same as device tensors, for kernels; made when first asked for, or in place
            where a capacity was given.
        memo: what a backend derived from this state of the plan; emptied when the state changes.
    """

    def __init__(self, forest: Forest, cost: CostModel, capacity: PlanCapacity | None) -> None:
        self.cost = cost
        self.memo: dict[str, Any] = {}
        self._arrays: Arrays = {}
        self._open_segments: npt.NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._fresh_tables: PlanTables | None = None
        self._reserved: PlanTables | None = None
        if capacity is not None:
            self._reserved = reserve_tables(
                capacity, cost.num_head_splits, cost.device.torch_device
            )
        self.forest: Forest
        self.schedule: Schedule
        self._replan(forest)

    @property
    def tables(self) -> PlanTables:
        if self._reserved is not None:
            return self._reserved
        if self._fresh_tables is None:
            self._fresh_tables = new_tables(self._arrays, self.cost.device.torch_device)
        return self._fresh_tables

    def update(self, forest: Forest) -> None:
        """Serve another forest: keep the schedule where leaves only grew, else make a new one.

        A schedule is kept while requests end in the nodes they ended in, only the tails of leaves
        that one request owns have grown, with their queries, and no tail has grown by more than
        its allowance (a quarter of its tile, one KV quantum at least). Pages may have moved.

        Raises:
            PlanCapacityError: the new schedule does not fit the capacity; the plan then still
                serves its former forest.
        """
        if not self._only_grew(forest):
            self._replan(forest)
            return
        self._write(growing_arrays(forest, self.schedule, self._open_segments))
        self.forest = forest

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
        grown = self.forest.node_len - self._planned.node_len
        return self.schedule.num_tokens_read + int(grown.sum())

    @property
    def num_launched_items(self) -> int:
        """Programs of a launch over all items: the capacity's where there is one."""
        if self._reserved is not None:
            return len(self._reserved.items)
        return self.schedule.num_tiles * self.schedule.num_head_splits

    @property
    def num_partial_rows(self) -> int:
        """Partials that a launch may write: the capacity's where there is one."""
        if self._reserved is not None:
            return len(self._reserved.merge_indices)
        return self.schedule.num_partials

    @property
    def has_merge(self) -> bool:
        """Whether some query has partials or sees nothing, now or after an update in place."""
        return self._reserved is not None or bool((self.schedule.query_num_tiles != 1).any())

    def describe(self) -> str:
        """Return the schedule as text: totals, then a line per depth of the forest."""
        return describe(self.forest, self.schedule, self.cost)

    def _replan(self, forest: Forest) -> None:
        schedule = make_schedule(forest, self.cost)
        can_grow = self.cost.spec.window is None
        segments = open_segments(forest, schedule, self.cost.max_tile_queries)
        segments = segments if can_grow else segments[:0]
        if self._reserved is not None and schedule.num_partials > self.num_partial_rows:
            raise PlanCapacityError(
                f"num_partials must be at most {self.num_partial_rows}, its capacity, "
                f"got {schedule.num_partials}"
            )
        self._write(schedule_arrays(forest, schedule) | growing_arrays(forest, schedule, segments))
        self.forest, self.schedule = forest, schedule
        self._open_segments = segments
        self._planned = forest
        self._allowance = _growth_allowance(forest, schedule, segments, self.cost)

    def _write(self, arrays: Arrays) -> None:
        if self._reserved is not None:
            check_capacity(self._reserved, arrays)
            write_tables(self._reserved, arrays)
        self._arrays = self._arrays | arrays
        self._fresh_tables = None
        self.memo.clear()

    def _only_grew(self, forest: Forest) -> bool:
        planned = self._planned
        names = ("node_parent", "node_start", "node_first_slot", "query_node", "query_indptr")
        if forest.page_size != planned.page_size:
            return False
        if not all(_is_same(getattr(forest, name), getattr(planned, name)) for name in names):
            return False
        grown = forest.node_len - planned.node_len
        if (grown < 0).any() or (grown > self._allowance).any():
            return False
        moved = forest.query_position - planned.query_position
        sees = forest.query_node >= 0
        return bool((moved[sees] == grown[forest.query_node[sees]]).all())

    def _check_room(self, position: npt.NDArray[np.int32]) -> None:
        forest = self.forest
        sees = forest.query_node >= 0
        node = forest.query_node[sees]
        room = forest.node_start + forest.node_num_pages * forest.page_size
        room = room - forest.node_first_slot
        is_open = np.zeros(forest.num_nodes, dtype=np.bool_)
        is_open[self.schedule.segment_node[self._open_segments]] = True
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
        itemsize: bytes of a stored number; 4 on a CPU and 2 elsewhere when None.

    Raises:
        PlanCapacityError: the schedule does not fit the capacity.
    """
    if itemsize is None:
        itemsize = 4 if torch.device(device.torch_device).type == "cpu" else 2
    return Plan(forest, CostModel(spec=spec, device=device, itemsize=itemsize), capacity)


def _growth_allowance(
    forest: Forest, schedule: Schedule, segments: npt.NDArray[np.intp], cost: CostModel
) -> npt.NDArray[np.int64]:
    """[num_nodes] tokens by which each node may grow before the schedule is made anew."""
    allowance = np.zeros(forest.num_nodes, dtype=np.int64)
    length = schedule.segment_stop[segments] - schedule.segment_begin[segments]
    least = max(cost.device.kv_quantum, 64)
    allowance[schedule.segment_node[segments]] = np.maximum(length // 4, least)
    return allowance


def _is_same(array: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return array is other or np.array_equal(array, other)
