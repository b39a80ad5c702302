"""The planner on the device makes plans that cover everything once, as the one on the host does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bough.attend import attend
from bough.device import PAIRED_TILING, Device
from bough.forest import Forest
from bough.plan import make_plan
from bough.plan.cost import CostModel
from bough.plan.device import DeviceCapacity, DevicePlan
from bough.spec import AttentionSpec
from tests.forests import SPECS, assert_tables_cover_once, page_tables, random_problem
from tests.plan.test_coverage import Batch

# A fixed cost of its own: what is folded or cut here does not follow what was measured last.
H100 = replace(Device.named("h100"), torch_device="cpu", tile_seconds=1.5e-6)


def device_plan(
    table: np.ndarray,
    lens: np.ndarray,
    page_size: int,
    spec: AttentionSpec = SPECS["gqa"],
    device: Device = H100,
    **capacity: int,
) -> DevicePlan:
    cost = CostModel(spec=spec, device=device, itemsize=2)
    sizes = DeviceCapacity.of_batch(*table.shape, cost)
    plan = DevicePlan(spec, device, page_size, replace(sizes, **capacity))
    follow(plan, table, lens)
    return plan


def follow(plan: DevicePlan, table: np.ndarray, lens: np.ndarray) -> None:
    plan.update(torch.tensor(table, dtype=torch.int32), torch.tensor(lens, dtype=torch.int32))


def assert_covers_once(plan: DevicePlan, table: np.ndarray, lens: np.ndarray) -> None:
    forest = Forest.from_page_table(table, lens, plan.forest.page_size)
    tables, heads = plan.tables, int(plan.tables.tile_num_heads[0])
    num_splits = int(tables.num_items) * heads
    num_tiles, rest = divmod(num_splits, plan.cost.num_head_splits)
    assert rest == 0
    assert tables.items[: int(tables.num_items)].tolist() == list(range(0, num_splits, heads))
    assert (tables.tile_num_heads == heads).all()
    rows = tables.tile_num_queries[:num_tiles] * plan.cost.spec.group_size
    assert (rows <= plan.cost.tile_heights[-1]).all()
    assert_tables_cover_once(tables, forest, num_tiles, plan.capacity.num_partials)


def tokens_read(plan: DevicePlan) -> int:
    """KV tokens that all tiles visit."""
    num_tiles = int(plan.tables.num_items) // plan.cost.num_head_splits
    return int(plan.tables.segment_len[:num_tiles].sum())


@settings(max_examples=15, deadline=None)
@given(page_tables(), st.sampled_from([1e-9, 1.5e-6, 1e-3]), st.sampled_from([1, 7, 132]))
def test_every_visible_pair_is_covered_once(
    drawn: tuple, tile_seconds: float, num_workers: int
) -> None:
    table, lens, _, page_size = drawn
    device = replace(H100, tile_seconds=tile_seconds, num_workers=num_workers)
    plan = device_plan(table, lens, page_size, device=device)
    assert_covers_once(plan, table, lens)


@settings(max_examples=10, deadline=None)
@given(page_tables(), st.integers(0, 12))
def test_a_small_capacity_costs_sharing_but_no_pair(drawn: tuple, num_partials: int) -> None:
    table, lens, _, page_size = drawn
    device = replace(H100, tile_seconds=1e-9)
    plan = device_plan(
        table, lens, page_size, device=device, num_tiles=len(table), num_partials=num_partials
    )
    assert_covers_once(plan, table, lens)


def test_updates_follow_growing_leaves_and_requests_that_come_and_go() -> None:
    batch, num_rows = Batch(4, np.random.default_rng(0)), 12
    for _ in range(5):
        batch.join()
    table, lens = np.full((num_rows, 40), -1, dtype=np.int32), np.zeros(num_rows, dtype=np.int32)
    plan = device_plan(table, lens, 4)
    addresses = {name: tensor.data_ptr() for name, tensor in vars(plan.tables).items()}
    for _ in range(4):
        forest = batch.step(num_requests=num_rows)
        pages = forest.page_indices.reshape(num_rows, -1)
        table[:, : pages.shape[1]] = pages
        lens = forest.query_position + 1
        follow(plan, table, lens)
        assert_covers_once(plan, table, lens)
    for name, tensor in vars(plan.tables).items():
        assert name == "pages" or addresses[name] == tensor.data_ptr()


def tree(num_rows: int, num_shared: int, num_own: int) -> tuple[np.ndarray, np.ndarray]:
    """A page table of page size 16 whose rows share their first pages, in scattered order."""
    own = np.arange(num_rows * num_own).reshape(num_rows, num_own) + num_shared
    shared = np.broadcast_to(np.arange(num_shared), (num_rows, num_shared))
    table = np.concatenate((shared, own), axis=1).astype(np.int32)
    return table, np.full(num_rows, 16 * table.shape[1] - 3)


def test_a_long_shared_node_is_read_once_a_row_tile() -> None:
    table, lens = tree(num_rows=9, num_shared=64, num_own=2)
    plan = device_plan(table, lens, 16)
    assert_covers_once(plan, table, lens)
    assert tokens_read(plan) == 64 * 16 + 9 * (2 * 16 - 3)


def test_a_tiny_shared_node_is_read_with_its_children() -> None:
    table, lens = tree(num_rows=3, num_shared=1, num_own=4)
    plan = device_plan(table, lens, 16)
    assert_covers_once(plan, table, lens)
    assert plan.tables.query_num_tiles.tolist() == [1, 1, 1]


def test_long_rows_are_divided_among_the_workers() -> None:
    table = np.arange(2048, dtype=np.int32).reshape(1, 2048)
    plan = device_plan(table, np.array([2048 * 16]), 16)
    num_tiles = int(plan.tables.num_items) // plan.cost.num_head_splits
    assert num_tiles * plan.cost.num_head_splits >= 0.8 * H100.num_workers
    assert_covers_once(plan, table, np.array([2048 * 16]))


def test_rows_share_pages_beyond_many_stored_hashes() -> None:
    table, lens = tree(num_rows=4, num_shared=150, num_own=3)
    table[2:, 100:] += 1000
    plan = device_plan(table, lens, 16)
    assert_covers_once(plan, table, lens)
    assert tokens_read(plan) == 16 * (100 + 2 * 50) + 4 * (3 * 16 - 3)


@pytest.mark.parametrize("name", ["gqa", "gla"])
def test_attention_by_a_device_plan_is_that_of_the_reference(name: str) -> None:
    spec = SPECS[name]
    table, lens = tree(num_rows=5, num_shared=7, num_own=3)
    table[3:, 5:] += 50
    lens[1], lens[4] = 0, 16 * 8 + 5
    table[4, 9:] = 2**30
    device = replace(H100, tile_seconds=1e-8)
    plan = device_plan(table, lens, 16, spec, device)
    forest = Forest.from_page_table(table, lens, 16)
    q, kv = random_problem(forest, spec, seed=0)
    expected, expected_lse = attend(q, kv, make_plan(forest, spec, device), backend="reference")
    out, lse = attend(q, kv, plan, backend="triton")
    torch.testing.assert_close(out, expected, rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(lse, expected_lse, rtol=2e-5, atol=2e-5)


def test_items_of_paired_tiles_cover_two_heads() -> None:
    table, lens = tree(num_rows=40, num_shared=40, num_own=3)
    device = replace(H100, paired_tiling=PAIRED_TILING)
    plan = device_plan(table, lens, 16, AttentionSpec.gqa(32, 8, 128), device)
    assert set(plan.tables.tile_num_heads.tolist()) == {2}
    assert plan.tables.tile_num_queries.max() * 4 > 64
    assert_covers_once(plan, table, lens)


def test_a_strided_page_table_is_read_where_it_lies() -> None:
    table, lens = tree(num_rows=4, num_shared=20, num_own=3)
    wide = torch.full((4, 50), 2**30, dtype=torch.int32)
    wide[:, : table.shape[1]] = torch.from_numpy(table)
    plan = device_plan(table, lens, 16)
    plan.update(wide[:, : table.shape[1]], torch.tensor(lens, dtype=torch.int32))
    assert plan.tables.pages.data_ptr() == wide.data_ptr()
    assert_covers_once(plan, table, lens)


def test_the_same_page_table_gives_the_same_tables() -> None:
    table, lens = tree(num_rows=6, num_shared=30, num_own=3)
    first, second = (device_plan(table, lens, 16).tables for _ in range(2))
    for name, tensor in vars(first).items():
        assert torch.equal(tensor, getattr(second, name)), name


@pytest.mark.parametrize(
    ("table", "lens", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2), "seq_lens must be int32"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int32), "page_table must be int32"),
        (torch.zeros(2, 4), torch.zeros(2), r"page_table must be \[2, 3\], got \[2, 4\]"),
    ],
)
def test_bad_tensors_are_refused(table: torch.Tensor, lens: torch.Tensor, message: str) -> None:
    plan = device_plan(np.zeros((2, 3), dtype=np.int32), np.zeros(2), 16)
    with pytest.raises(ValueError, match=message):
        plan.update(table, lens)


def test_windows_and_too_few_tiles_are_refused() -> None:
    capacity = DeviceCapacity(num_requests=2, max_pages=3, num_tiles=2, num_partials=0)
    with pytest.raises(NotImplementedError, match="what works: make_plan"):
        DevicePlan(replace(SPECS["gqa"], window=4), H100, 16, capacity)
    with pytest.raises(ValueError, match="num_tiles must be one a request at least, got 1"):
        replace(capacity, num_tiles=1)
