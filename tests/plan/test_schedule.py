"""Choices of the planner: folding, division, balance, and what it prints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings

from bough.device import PAIRED_TILING, Device
from bough.forest import Forest
from bough.plan import make_plan
from bough.plan.assign import assign, reading_end
from bough.plan.cost import CostModel
from bough.plan.fold import fold
from bough.plan.schedule import make_schedule
from bough.spec import AttentionSpec
from bough.workloads import SUITES, forest_from_text
from tests.forests import forests

GQA = AttentionSpec.gqa(32, 8, 128)
H100 = Device.named("h100")
PAIRED = replace(H100, paired_tiling=PAIRED_TILING)


def cost_on(device: Device, spec: AttentionSpec = GQA) -> CostModel:
    return CostModel(spec=spec, device=device, itemsize=2)


HEADS = {
    "codec": ["gqa:32:8:128"],
    "pat": ["mha:32:128", "gqa:16:8:128", "gqa:32:8:128", "gqa:64:8:128"],
    "fasttree": ["mqa:16:128", "gqa:32:8:128", "mha:32:128"],
    "no-loss": ["gqa:32:8:128"],
}


@pytest.mark.parametrize("suite", SUITES)
def test_makespan_is_near_the_lower_bound_on_named_workloads(suite: str) -> None:
    for text in SUITES[suite]:
        forest = forest_from_text(text)
        for spec in HEADS[suite]:
            schedule = make_schedule(forest, cost_on(H100, AttentionSpec.parse(spec)))
            assert schedule.lower_bound <= schedule.makespan, (text, spec)
            read = AttentionSpec.parse(spec).kv_bytes(forest.num_unique_tokens, 2)
            assert schedule.lower_bound >= read / H100.bandwidth * (1 - 1e-9), (text, spec)
            # Beyond that only where finer tiles would cost more in merging than they save.
            near = 1.4 * schedule.lower_bound + 0.5 * schedule.merge_seconds
            assert schedule.makespan <= near, (text, spec)


def test_the_lower_bound_counts_the_fixed_cost_of_the_tiles_it_needs() -> None:
    schedule = make_schedule(forest_from_text("1|66000"), cost_on(H100))
    work = 66000 * GQA.kv_bytes(1, 2) / H100.bandwidth
    assert schedule.lower_bound >= (work + H100.tile_seconds) * 0.995
    assert schedule.lower_bound <= work + 3 * H100.tile_seconds


@pytest.mark.parametrize("text", ["256|1024", "1,2,4,8,16,32|1024", "1,8|4096,512"])
def test_what_waits_for_memory_alone_is_planned_for_even_shares(text: str) -> None:
    even = replace(PAIRED, worker_bandwidth=H100.bandwidth / H100.num_workers)
    first, second = (
        make_schedule(forest_from_text(text), cost_on(device)) for device in (PAIRED, even)
    )
    for name, array in vars(first).items():
        assert np.array_equal(array, getattr(second, name)), name


def test_leaves_read_the_bandwidth_that_a_root_leaves_them() -> None:
    forest = forest_from_text("1,64|120000,2048")
    even = replace(PAIRED, worker_bandwidth=H100.bandwidth / H100.num_workers)
    found, former = (make_schedule(forest, cost_on(device)) for device in (PAIRED, even))
    assert found.seconds < 0.85 * former.seconds
    of_root = [
        np.count_nonzero(schedule.tile_num_queries[schedule.items // 8] > 1)
        for schedule in (found, former)
    ]
    assert of_root[0] > of_root[1]
    leaf = former.tile_num_queries == 1
    assert (former.tile_seconds[leaf] > 1.6 * found.tile_seconds[found.tile_num_queries == 1]).all()


def test_items_that_all_read_at_the_end_share_the_bandwidth() -> None:
    start = np.array([0.0, 0.0, 5.0, 5.0, 5.0, 5.0])
    reading = np.array([1.0, 1.0, 4.0, 4.0, 4.0, 4.0])
    assert reading_end(start, reading, 2) == 5.0 + 16 / 2
    seconds = np.array([5.0, 5.0, 1.0, 1.0, 1.0, 1.0])
    assert assign(seconds, 2).makespan == 7.0
    assert assign(seconds, 2, reading).makespan == 13.0


def test_a_long_shared_node_is_read_once_and_a_tiny_one_is_folded() -> None:
    long = fold(forest_from_text("1,16|8192,512"), cost_on(H100))
    assert np.count_nonzero(long.node == 0) == 1
    tiny = fold(forest_from_text("1,16|1,512"), cost_on(H100))
    assert not np.any(tiny.node == 0)
    assert (tiny.start == 0).all()


def test_a_chain_of_single_children_is_one_task() -> None:
    tasks = fold(forest_from_text("1x6|300"), cost_on(H100))
    assert tasks.node.tolist() == [5]
    assert tasks.start.tolist() == [0]


# A query in an inner node that sees less of it than those below.
SHORT_SIGHTED = Forest.from_nodes(
    page_size=16,
    node_parent=[-1, 0, 1, 0],
    node_len=[48, 16, 1, 1],
    node_pages=[[0, 1, 2], [3], [4], [5]],
    query_node=[0, 1, 3, 2],
    query_position=[47, 48, 48, 64],
)


@settings(max_examples=60, deadline=None)
@given(forests())
@example(SHORT_SIGHTED)
def test_sharing_is_never_predicted_to_cost_more_than_reading_all_apart(forest: Forest) -> None:
    cost = cost_on(replace(Device.cpu(), torch_device="cpu"))
    schedule = make_schedule(forest, cost)
    ends = list(zip(forest.query_node.tolist(), forest.query_position.tolist(), strict=True))
    # One query at a time is the worst way to share nothing: those that end in one node are one
    # tile, which reads as far as the newest of them sees.
    apart = sum(
        float(cost.tiles(np.array(1), np.array(max(at for n, at in ends if n == node) + 1)))
        for node, position in ends
        if position >= 0
    )
    assert schedule.seconds <= apart * (1 + 1e-9)


@pytest.mark.parametrize(
    ("text", "is_shared"), [("32,256|2048,512", False), ("1,16|9000,512", True)]
)
def test_latents_are_shared_where_the_cache_does_not_do_as_well(text: str, is_shared: bool) -> None:
    forest = forest_from_text(text, page_size=64)
    cost = cost_on(H100, AttentionSpec.parse("gla:128:2"))
    assert (make_schedule(forest, cost).num_partials > 0) == is_shared


def test_prefill_visits_only_the_tokens_before_each_block_of_queries() -> None:
    forest = Forest.from_page_table([list(range(64))], [1024], 16, [1024])
    schedule = make_schedule(forest, cost_on(H100))
    per_block = PAIRED_TILING.heights[-1] // GQA.group_size
    causal = sum(range(per_block, 1025, per_block))
    assert schedule.num_tokens_read == causal


@pytest.mark.parametrize("num_workers", [1, 3, 132])
@pytest.mark.parametrize("num_items", [0, 1, 131, 5000])
def test_falling_items_are_dealt_near_evenly(num_items: int, num_workers: int) -> None:
    costs = -np.sort(-np.random.default_rng(num_items).lognormal(size=num_items))
    worker, makespan = assign(costs, num_workers)
    assert len(worker) == num_items
    load = np.bincount(worker, costs, minlength=num_workers)
    assert makespan == pytest.approx(load.max(initial=0.0))
    ideal = max(costs.sum() / num_workers, costs.max(initial=0.0))
    assert makespan <= 1.34 * ideal  # Graham's bound for longest-first is 4/3


def test_the_same_forest_gives_the_same_schedule() -> None:
    first, second = (
        make_schedule(forest_from_text("1,4,64|1000,100,50"), cost_on(H100)) for _ in range(2)
    )
    for name, array in vars(first).items():
        assert np.array_equal(array, getattr(second, name)), name


@pytest.mark.parametrize(
    ("text", "heights", "num_workers"),
    [("gla:128:2", (128,), 132), ("mla:64", (64,), 132), ("mla:128", (64,), 66)],
)
def test_a_query_whose_rows_fill_two_workers_is_planned_for_pairs_of_them(
    text: str, heights: tuple[int, ...], num_workers: int
) -> None:
    cost = cost_on(H100, AttentionSpec.parse(text))
    assert (cost.tile_heights, cost.num_workers) == (heights, num_workers)
    schedule = make_schedule(forest_from_text("16|5056", 64), cost)
    assert len(schedule.items) <= num_workers


def test_describe_names_what_is_read_and_what_is_expected() -> None:
    text = make_plan(forest_from_text("1,16|4096,128"), GQA, H100).describe()
    assert "17 nodes, 16 requests" in text
    assert "6144 KV tokens" in text
    assert "11.0x as many" in text


def test_an_empty_batch_has_an_empty_schedule() -> None:
    forest = Forest.from_page_table(np.zeros((0, 4), dtype=np.int32), [], 16)
    schedule = make_schedule(forest, cost_on(H100))
    assert schedule.num_tiles == 0
    assert "0 requests" in make_plan(forest, GQA, H100).describe()


def test_items_fall_in_cost_and_the_first_of_alike_ones_are_spread() -> None:
    schedule = make_schedule(forest_from_text("1,64|120000,2048"), cost_on(PAIRED))
    seconds, workers = schedule.item_seconds, schedule.num_workers
    assert (np.diff(seconds[workers:]) <= 0).all()
    assert seconds[:workers].min() >= seconds[workers:].max()
    first = schedule.tile_num_queries[schedule.items[:workers] // schedule.num_head_splits]
    of_leaves = np.flatnonzero(first == 1)
    assert 8 < len(of_leaves) < 66
    assert np.diff(of_leaves).max() <= 2 * workers / len(of_leaves)


def test_short_leaves_are_joined_where_starts_stand_behind_one_another() -> None:
    joined = make_schedule(forest_from_text("1,128|128,3"), cost_on(PAIRED))
    heads = joined.tile_num_heads[joined.tile_num_queries == 1]
    assert heads.tolist() == [GQA.num_kv_heads] * 128
    # Where workers have an item each, one that covers more heads only ends later.
    apart = make_schedule(forest_from_text("1,8|4000,16"), cost_on(PAIRED))
    heads = apart.tile_num_heads[apart.tile_num_queries == 1]
    assert heads.tolist() == [cost_on(PAIRED).least_heads] * 8


@pytest.mark.parametrize(("num_queries", "heights"), [(4, {4}), (8, {4}), (9, {9}), (16, {16})])
def test_rows_of_fp8_take_two_low_tiles_before_a_taller_one(
    num_queries: int, heights: set[int]
) -> None:
    forest = forest_from_text(f"1,{num_queries}|8192,512")
    cost = CostModel(spec=GQA, device=PAIRED, itemsize=1)
    schedule = make_schedule(forest, cost)
    assert set(schedule.tile_num_queries.tolist()) == {1} | heights
    in_16_bits = make_schedule(forest, cost_on(PAIRED))
    assert set(in_16_bits.tile_num_queries.tolist()) == {1, num_queries}


def test_leaves_begin_beside_roots_that_take_several_rounds() -> None:
    schedule = make_schedule(forest_from_text("1,1024|2048,32"), cost_on(PAIRED))
    workers = schedule.num_workers
    is_leaf = schedule.tile_num_queries[schedule.items // schedule.num_head_splits] == 1
    assert 0 < is_leaf[:workers].sum() < workers
    assert not is_leaf[workers : 3 * workers].all()
    assert is_leaf[-workers:].all()
    assert len(np.unique(schedule.items)) == len(schedule.items)


def test_roots_as_long_as_the_step_go_first() -> None:
    schedule = make_schedule(forest_from_text("1,64|120000,2048"), cost_on(PAIRED))
    is_leaf = schedule.tile_num_queries[schedule.items // schedule.num_head_splits] == 1
    assert is_leaf[schedule.num_workers :].all()
