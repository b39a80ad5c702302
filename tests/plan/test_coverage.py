"""A plan covers every (query, visible token) pair exactly once, however it came to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bough.device import Device
from bough.forest import Forest
from bough.plan import PlanCapacity, PlanCapacityError, make_plan
from bough.spec import AttentionSpec
from tests.forests import SPECS, assert_covers_everything_once, devices, forests


@settings(max_examples=150, deadline=None)
@given(forests(), st.sampled_from(list(SPECS.values())), devices())
def test_every_visible_pair_is_covered_once(
    forest: Forest, spec: AttentionSpec, device: Device
) -> None:
    assert_covers_everything_once(make_plan(forest, spec, device))


@settings(max_examples=80, deadline=None)
@given(forests(), devices(), st.integers(1, 40))
def test_every_pair_inside_the_window_is_covered_once(
    forest: Forest, device: Device, window: int
) -> None:
    spec = replace(SPECS["gqa"], window=window)
    assert_covers_everything_once(make_plan(forest, spec, device))


@settings(max_examples=60, deadline=None)
@given(st.lists(forests(), min_size=2, max_size=4), devices(), st.booleans())
def test_updates_to_any_forest_cover_everything_once(
    chain: list[Forest], device: Device, has_capacity: bool
) -> None:
    capacity = PlanCapacity(
        num_tiles=600,
        num_segments=2000,
        num_queries=64,
        num_query_rows=500,
        num_partials=2000,
        num_pages=4000,
    )
    plan = make_plan(chain[0], SPECS["gqa"], device, capacity if has_capacity else None)
    addresses = [table.data_ptr() for table in vars(plan.tables).values()]
    for forest in chain[1:]:
        plan.update(forest)
        assert_covers_everything_once(plan)
    if has_capacity:
        assert addresses == [table.data_ptr() for table in vars(plan.tables).values()]


class Batch:
    """Requests that grow by a token a step over pages taken one by one; some come, some go."""

    def __init__(self, page_size: int, rng: np.random.Generator) -> None:
        self.page_size, self.rng = page_size, rng
        self.num_pages = 0
        self.rows: list[list[int]] = []
        self.lens: list[int] = []

    def join(self) -> None:
        row: list[int] = []
        if self.rows and self.rng.random() < 0.8:
            sharer = int(self.rng.integers(len(self.rows)))
            whole = self.lens[sharer] // self.page_size
            row = self.rows[sharer][: int(self.rng.integers(0, whole + 1))]
        self.rows.append(row)
        self.lens.append(len(row) * self.page_size)
        for _ in range(int(self.rng.integers(1, 40))):
            self.grow(len(self.rows) - 1)

    def grow(self, request: int) -> None:
        if self.lens[request] == len(self.rows[request]) * self.page_size:
            self.rows[request].append(self.num_pages)
            self.num_pages += 1
        self.lens[request] += 1

    def step(self, num_requests: int | None = None) -> Forest:
        """Grow all requests; pad the batch to `num_requests`."""
        if self.rng.random() < 0.15:
            self.join()
        if len(self.rows) > 2 and self.rng.random() < 0.1:
            at = int(self.rng.integers(len(self.rows)))
            del self.rows[at], self.lens[at]
        for request in range(len(self.rows)):
            self.grow(request)
        size = (num_requests or len(self.rows), max(map(len, self.rows)))
        table = np.full(size, -1, dtype=np.int32)
        for at, row in enumerate(self.rows):
            table[at, : len(row)] = row
        lens = np.zeros(len(table), dtype=np.int32)
        lens[: len(self.lens)] = self.lens
        return Forest.from_page_table(table, lens, self.page_size)


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize(
    "device", [Device.cpu(), replace(Device.named("h100"), torch_device="cpu")]
)
def test_updates_keep_covering_while_leaves_grow_and_requests_come_and_go(
    page_size: int, device: Device
) -> None:
    batch = Batch(page_size, np.random.default_rng(page_size))
    for _ in range(5):
        batch.join()
    plan = make_plan(batch.step(), SPECS["gqa"], device)
    schedules = set()
    for _ in range(60):
        plan.update(batch.step())
        schedules.add(id(plan.schedule))
        assert_covers_everything_once(plan)
    assert len(schedules) < 45


def test_an_update_that_does_not_fit_raises_and_loses_nothing() -> None:
    small = Forest.from_page_table([[0, 1]], [30], 16)
    capacity = PlanCapacity(
        num_tiles=4, num_segments=8, num_queries=2, num_query_rows=4, num_partials=8, num_pages=4
    )
    plan = make_plan(small, SPECS["gqa"], Device.cpu(), capacity)
    large = Forest.from_page_table([[0, 1], [0, 2], [0, 3]], [30, 30, 30], 16)
    with pytest.raises(PlanCapacityError, match="at most"):
        plan.update(large)
    assert plan.forest is small
    assert_covers_everything_once(plan)


def test_a_growing_leaf_keeps_the_schedule_and_a_new_request_replaces_it() -> None:
    table = [[0, 1, 2, -1], [0, 1, 3, 4]]
    plan = make_plan(Forest.from_page_table(table, [40, 50], 16), SPECS["gqa"], Device.cpu())
    schedule = plan.schedule
    plan.update(Forest.from_page_table(table, [41, 51], 16))
    assert plan.schedule is schedule
    over_a_page = [[0, 1, 2, 5], [0, 1, 3, 4]]
    plan.update(Forest.from_page_table(over_a_page, [49, 59], 16))
    assert plan.schedule is schedule
    assert_covers_everything_once(plan)
    plan.update(Forest.from_page_table([*over_a_page, [0, 6, 6, 6]], [49, 59, 20], 16))
    assert plan.schedule is not schedule
    assert_covers_everything_once(plan)


def test_advance_moves_queries_into_reserved_slots_and_no_further() -> None:
    plan = make_plan(
        Forest.from_page_table([[0, 1], [0, 2]], [18, 31], 16), SPECS["gqa"], Device.cpu()
    )
    plan.advance()
    assert plan.tables.query_position.tolist() == [18, 31]
    with pytest.raises(ValueError, match="reserved slots"):
        plan.advance()
    assert plan.tables.query_position.tolist() == [18, 31]


def test_advance_refuses_requests_that_end_in_the_same_node() -> None:
    plan = make_plan(Forest.from_page_table([[0], [0]], [5, 9], 16), SPECS["gqa"], Device.cpu())
    with pytest.raises(ValueError, match="leaf of its own"):
        plan.advance()
