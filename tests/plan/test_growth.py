"""Steps in which leaves grow: what is kept, and what reaches the tables."""

from __future__ import annotations

import numpy as np
import pytest

from bough.device import Device
from bough.forest import Forest
from bough.plan import Plan, PlanCapacity, PlanCapacityError, make_plan
from tests.forests import SPECS, assert_covers_everything_once

CAPACITY = PlanCapacity(
    num_tiles=8, num_segments=16, num_queries=2, num_query_rows=8, num_partials=16, num_pages=24
)


def snapshot(cells: np.ndarray, lens: list[int], starts: list[int]) -> Forest:
    """A root of two pages and two leaves, whose pages lie in `cells` from `starts` on."""
    lengths = np.array([32, *lens], dtype=np.int32)
    return Forest(
        page_size=16,
        node_parent=np.array([-1, 0, 0], dtype=np.int32),
        node_start=np.array([0, 32, 32], dtype=np.int32),
        node_len=lengths,
        node_first_slot=np.zeros(3, dtype=np.int32),
        node_page_start=np.array([0, *starts]),
        node_num_pages=-(-lengths // 16),
        page_indices=cells,
        query_indptr=np.arange(3, dtype=np.int32),
        query_node=np.array([1, 2], dtype=np.int32),
        query_position=32 + np.array(lens, dtype=np.int32) - 1,
        max_page=99,
    )


def new_cells() -> np.ndarray:
    """Pages of the root, then of the first leaf from 4 on and of the second from 8 on."""
    cells = np.full(24, 99, dtype=np.int32)
    cells[[0, 1, 4, 8]] = [7, 3, 5, 6]
    return cells


def plan_of(forest: Forest, capacity: PlanCapacity | None) -> Plan:
    plan = make_plan(forest, SPECS["gqa"], Device.cpu(), capacity)
    assert_covers_everything_once(plan)
    return plan


@pytest.mark.parametrize("capacity", [None, CAPACITY])
def test_pages_that_leaves_take_in_the_same_memory_reach_the_tables(
    capacity: PlanCapacity | None,
) -> None:
    cells = new_cells()
    plan = plan_of(snapshot(cells, [16, 15], [4, 8]), capacity)
    schedule = plan.schedule
    cells[5] = 11
    plan.update(snapshot(cells, [17, 16], [4, 8]))
    assert_covers_everything_once(plan)
    cells[[12, 13]] = 6, 12  # the second leaf outgrew its region
    plan.update(snapshot(cells, [18, 17], [4, 12]))
    assert_covers_everything_once(plan)
    assert plan.schedule is schedule


@pytest.mark.parametrize("capacity", [None, CAPACITY])
def test_pages_in_other_memory_reach_the_tables(capacity: PlanCapacity | None) -> None:
    plan = plan_of(snapshot(new_cells(), [16, 15], [4, 8]), capacity)
    schedule, moved = plan.schedule, new_cells()
    moved[[0, 1, 4, 5, 8]] = 20, 21, 22, 23, 24
    plan.update(snapshot(moved, [17, 16], [4, 8]))
    assert_covers_everything_once(plan)
    assert plan.schedule is schedule


def test_more_pages_than_the_capacity_are_refused_and_nothing_is_lost() -> None:
    forest = snapshot(new_cells(), [16, 15], [4, 8])
    plan = plan_of(forest, CAPACITY)
    larger = np.append(new_cells(), np.int32(1))
    with pytest.raises(PlanCapacityError, match="pages must be at most 24 entries"):
        plan.update(snapshot(larger, [16, 16], [4, 8]))
    assert plan.forest is forest
    assert_covers_everything_once(plan)


def test_a_leaf_that_outgrows_its_allowance_is_planned_anew() -> None:
    cells = np.arange(64, dtype=np.int32)
    plan = plan_of(snapshot(cells, [16, 15], [4, 34]), None)
    schedule = plan.schedule
    plan.update(snapshot(cells, [400, 15], [4, 34]))
    assert plan.schedule is not schedule
    assert_covers_everything_once(plan)
