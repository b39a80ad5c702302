from __future__ import annotations

import numpy as np
import pytest

from bough.bench.cases import Case
from bough.bench.plans import PLAN_SUITE, bench_plan, page_table_of
from bough.forest import Forest
from tests.bench.problems import setup_for


@pytest.mark.parametrize("text", ["1,2,4|8,4,3", "3|9", "2,4|8,5 shuffled"])
def test_a_forest_comes_back_from_its_page_table(text: str) -> None:
    forest = Case.parse(text).forest(page_size=4)
    described = page_table_of(forest)
    assert described is not None
    found = Forest.from_page_table(*described, page_size=4)
    assert found.num_nodes == forest.num_nodes
    assert found.num_unique_tokens == forest.num_unique_tokens
    assert found.num_path_tokens == forest.num_path_tokens
    assert np.array_equal(found.query_position, forest.query_position)


def test_a_node_that_ends_inside_a_page_has_no_page_table() -> None:
    assert page_table_of(Case.parse("1,2|7,4").forest(page_size=4)) is None


def test_the_planner_is_measured_on_a_small_forest() -> None:
    row = bench_plan(Case.parse("1,8|64,12"), setup_for())
    assert (row.num_nodes, row.num_requests, row.num_pages) == (9, 8, 19)
    assert row.plan_us > 0 and row.update_us > 0 and row.table_us is not None
    assert row.is_kept
    assert row.times_lower_bound >= 0.999


def test_the_plan_suite_holds_the_longest_page_tables_once() -> None:
    assert {"1,1024|65536,65536", "1024|131072"} <= set(PLAN_SUITE)
    assert len(set(PLAN_SUITE)) == len(PLAN_SUITE)
