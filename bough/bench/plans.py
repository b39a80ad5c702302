"""`bough bench plan`: what it takes to find a forest, to plan it and to keep the plan."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from bough.bench.cases import Case
from bough.bench.paged import page_table_of
from bough.bench.problem import Setup
from bough.bench.suites import SUITES
from bough.bench.timing import Clock, Timing, WallClock, time_alone
from bough.forest import Forest
from bough.plan import Plan, make_plan

# 1024 requests of 8192 pages each (page size 16): half of them shared, and none.
LONG_TABLES = ("1,1024|65536,65536", "1024|131072")
# Every named forest, each once at the run's spec and page size, then the long tables.
PLAN_SUITE = tuple(
    dict.fromkeys(
        text.partition(" ")[0] for texts in (*SUITES.values(), LONG_TABLES) for text in texts
    )
)
_REPEATS = 9
_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """One forest.

    Args:
        workload: `nodes per level | tokens per node`.
        num_nodes: nodes of the forest.
        num_requests: requests.
        num_pages: pages of the longest request.
        table_us: median of `Forest.from_page_table`; None where a node ends inside a page, which
            a page table cannot say.
        plan_us: median of `make_plan` from scratch.
        update_us: median of `plan.update`, tables written, after every leaf grew by a token.
        is_kept: whether those updates kept the schedule.
        num_tiles: tiles, all head splits counted.
        makespan_us: predicted end of the last worker.
        times_lower_bound: the makespan over what no division of the same work can beat.
    """

    workload: str
    num_nodes: int
    num_requests: int
    num_pages: int
    table_us: float | None
    plan_us: float
    update_us: float
    is_kept: bool
    num_tiles: int
    makespan_us: float
    times_lower_bound: float


def bench_plan(case: Case, setup: Setup) -> PlanRow:
    """Measure the planner on a case.

    Args:
        case: the forest.
        setup: what it is planned for.

    Raises:
        ValueError: the case cannot be read.
    """
    clock = WallClock()
    forest = case.forest(setup.page_size)
    plan, timing = time_plan(forest, setup, clock)
    update_seconds, is_kept = _time_update(forest, setup, clock)
    schedule = plan.schedule
    bound = schedule.lower_bound
    return PlanRow(
        workload=case.workload,
        num_nodes=forest.num_nodes,
        num_requests=forest.num_requests,
        num_pages=-(-int(forest.query_position.max() + 1) // forest.page_size),
        table_us=_time_table(forest, clock),
        plan_us=timing.median * 1e6,
        update_us=update_seconds * 1e6,
        is_kept=is_kept,
        num_tiles=schedule.num_tiles * schedule.num_head_splits,
        makespan_us=schedule.makespan * 1e6,
        times_lower_bound=schedule.makespan / bound if bound else 1.0,
    )


def time_plan(forest: Forest, setup: Setup, clock: Clock) -> tuple[Plan, Timing]:
    """Time a plan from scratch; what a forest keeps once it is computed counts as well."""

    def from_scratch() -> Plan:
        fresh = replace(forest)
        return make_plan(fresh, setup.spec, setup.device, itemsize=setup.itemsize)

    return from_scratch(), time_alone(from_scratch, clock, repeats=_REPEATS)


def _time_table(forest: Forest, clock: Clock) -> float | None:
    described = page_table_of(forest)
    if described is None:
        return None
    table, seq_lens = described

    def find() -> Forest:
        return Forest.from_page_table(table, seq_lens, forest.page_size)

    return time_alone(find, clock, repeats=_REPEATS).median * 1e6


def _time_update(forest: Forest, setup: Setup, clock: WallClock) -> tuple[float, bool]:
    """Go on from each leaf a token shorter to the whole forest and back, tables written each time.

    Each step has arrays of its own, as an engine's snapshots have, but for the page ids.
    """
    is_leaf = forest.node_num_queries > 0
    shorter = replace(
        forest,
        node_len=forest.node_len - is_leaf.astype(np.int32),
        query_position=forest.query_position - np.int32(1),
    )
    here = "cuda" if torch.cuda.is_available() else "cpu"
    device = replace(setup.device, torch_device=here)
    plan = make_plan(shorter, setup.spec, device, itemsize=setup.itemsize)
    schedule, _ = plan.schedule, plan.tables
    steps = [_copied(source) for _ in range(_STEPS) for source in (forest, shorter)]
    seconds = [clock.seconds(lambda: plan.update(step)) for step in steps]  # noqa: B023
    return float(np.median(seconds)), plan.schedule is schedule


def _copied(forest: Forest) -> Forest:
    arrays: dict[str, Any] = {}
    for field in fields(forest):
        value = getattr(forest, field.name)
        if isinstance(value, np.ndarray) and field.name != "page_indices":
            arrays[field.name] = value.copy()
    return replace(forest, **arrays)
