"""Plans that follow draft trees from step to step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bough.attend import attend
from bough.device import Device, Tiling
from bough.forest import Forest
from bough.plan import PlanCapacity, PlanCapacityError, make_plan
from tests.draft_trees import masked_attention, random_parents
from tests.forests import SPECS, assert_covers_everything_once, random_problem

CAPACITY = PlanCapacity(
    num_tiles=80, num_segments=160, num_queries=60, num_query_rows=200, num_partials=800,
    num_pages=64, has_drafts=True,
)  # fmt: skip
NARROW = replace(
    Device.named("h100"), torch_device="cpu", tiling=Tiling((16,)), latent_tiling=Tiling((16,))
)
COUNTS = [23, 30]


def table(lens: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Two requests, each in 32 pages of its own."""
    return np.arange(64).reshape(2, 32), np.array(lens)


def forest_of(lens: list[int], seed: int | None) -> Forest:
    query_lens = [1 + count for count in COUNTS]
    forest = Forest.from_page_table(*table(lens), 16, query_lens)
    return forest if seed is None else forest.with_drafts(random_parents(COUNTS, seed))


@pytest.mark.parametrize("capacity", [None, CAPACITY])
@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_a_schedule_serves_other_trees_as_leaves_grow(
    variant: str, capacity: PlanCapacity | None
) -> None:
    spec = SPECS[variant]
    plan = make_plan(forest_of([300, 180], 0), spec, NARROW, capacity)
    schedule = plan.schedule
    assert plan.schedule.num_tiles > 4
    for step, lens in enumerate([[303, 181], [309, 188]], start=1):
        forest = forest_of(lens, step)
        plan.update(forest)
        assert plan.schedule is schedule
        assert_covers_everything_once(plan)
        q, kv = random_problem(forest, spec, step)
        parents = random_parents(COUNTS, step)
        expected, _ = masked_attention(q, kv, spec, table(lens), parents)
        torch.testing.assert_close(attend(q, kv, plan)[0], expected, atol=3e-6, rtol=3e-5)


@pytest.mark.parametrize("capacity", [None, CAPACITY])
def test_a_plan_of_draft_trees_serves_steps_without_any(capacity: PlanCapacity | None) -> None:
    plan = make_plan(forest_of([300, 180], 0), SPECS["gqa"], NARROW, capacity)
    forest = forest_of([305, 185], None)
    plan.update(forest)
    q, kv = random_problem(forest, SPECS["gqa"], 0)
    expected, _ = attend(q, kv, make_plan(forest, SPECS["gqa"], NARROW), backend="reference")
    torch.testing.assert_close(attend(q, kv, plan)[0], expected, atol=3e-6, rtol=3e-5)
    assert len(plan.tables.query_hidden) >= forest.num_queries


def test_a_capacity_without_drafts_refuses_them_and_keeps_its_forest() -> None:
    plain = forest_of([300, 180], None)
    plan = make_plan(plain, SPECS["gqa"], NARROW, replace(CAPACITY, has_drafts=False))
    with pytest.raises(PlanCapacityError, match="query_hidden must be at most 0 entries"):
        plan.update(forest_of([300, 180], 0))
    assert plan.forest is plain


def test_without_a_capacity_drafts_come_and_go() -> None:
    plan = make_plan(forest_of([300, 180], None), SPECS["gqa"], NARROW)
    assert len(plan.tables.query_hidden) == 0
    plan.update(forest_of([300, 180], 0))
    assert len(plan.tables.query_hidden) == plan.forest.num_queries
