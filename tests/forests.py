"""Random forests, devices and KV for tests, and an independent account of what a plan covers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from hypothesis import strategies as st

from bough.attend import store_kv
from bough.device import Device, Tiling
from bough.forest import Forest
from bough.kv import KV, QuantizedKV, tensors_of
from bough.plan import Plan
from bough.plan.tables import PlanTables
from bough.spec import AttentionSpec

SPECS = {
    "mha": AttentionSpec.mha(4, 16),
    "mqa": AttentionSpec.mqa(6, 16),
    "gqa": AttentionSpec.gqa(6, 2, 16),
    "gta": AttentionSpec.gta(8, 2, 16),
    "mla": AttentionSpec.mla(4, 32, 8, 16),
    "gla": AttentionSpec.gla(4, 2, 24, 8, 16),
}


HEIGHTS = [(1,), (16,), (16, 64), (16, 64, 128), (4096,)]


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    """Tiles of any height that cover any number of heads."""
    return Tiling(
        draw(st.sampled_from(HEIGHTS)),
        least_heads=draw(st.sampled_from([1, 2])),
        joined_seconds=draw(st.sampled_from([0.0, 4e-6, 1.0])),
    )


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """Machines of any shape, whose tensors live on the CPU."""
    return Device(
        name="drawn",
        torch_device="cpu",
        num_workers=draw(st.sampled_from([1, 2, 5, 132])),
        bandwidth=draw(st.sampled_from([1e9, 3e12])),
        worker_bandwidth=draw(st.sampled_from([2e9, 6e10, 3e12])),
        cache_bandwidth=draw(st.sampled_from([1e9, 6e12])),
        matmul_rate=draw(st.sampled_from([1e10, 6e14])),
        score_rate=draw(st.sampled_from([1e8, 4e12])),
        tile_seconds=draw(st.sampled_from([1e-7, 1e-6, 1e-4])),
        partial_seconds=draw(st.sampled_from([0.0, 1e-7])),
        merge_seconds=draw(st.sampled_from([0.0, 3e-6])),
        is_overlapped=draw(st.booleans()),
        min_itemsize=draw(st.sampled_from([1, 4])),
        row_quantum=draw(st.sampled_from([1, 16])),
        tiling=draw(tilings()),
        latent_tiling=draw(tilings()),
        paired_tiling=draw(st.none() | tilings()),
        most_sums=draw(st.sampled_from([64, 1 << 20])),
        kv_quantum=draw(st.sampled_from([1, 4, 64])),
        is_split_by_head=draw(st.booleans()),
    )


@st.composite
def hand_made_forests(draw: st.DrawFn) -> Forest:
    """Nodes of any length and first slot, many roots, queries in inner nodes and in none."""
    page_size = draw(st.sampled_from([1, 3, 4, 16]))
    num_nodes = draw(st.integers(1, 9))
    parent = [draw(st.integers(-1, node - 1)) for node in range(num_nodes)]
    length = [draw(st.sampled_from([0, 1, 2, 5, 17, 70])) for _ in range(num_nodes)]
    first_slot = [draw(st.integers(0, page_size - 1)) for _ in range(num_nodes)]
    counts = [-(-(a + b) // page_size) for a, b in zip(first_slot, length, strict=True)]
    reserved = [count + draw(st.integers(0, 1)) for count in counts]
    ids = draw(st.permutations(range(sum(reserved))))
    ends = np.cumsum(reserved)
    start = [0] * num_nodes
    for node, above in enumerate(parent):
        start[node] = 0 if above < 0 else start[above] + length[above]
    node_of: list[int] = []
    position: list[int] = []
    indptr = [0]
    for _ in range(draw(st.integers(0, 8))):
        node = draw(st.sampled_from([-1, *(n for n in range(num_nodes) if length[n])]))
        count = 1 if node < 0 else draw(st.integers(1, min(3, length[node])))
        last = 0 if node < 0 else draw(st.integers(count, length[node]))
        node_of += [node] * count
        position += [-1 if node < 0 else start[node] + last - count + at for at in range(count)]
        indptr.append(len(node_of))
    return Forest.from_nodes(
        page_size=page_size,
        node_parent=parent,
        node_len=length,
        node_pages=np.split(np.array(ids, dtype=np.int32), ends[:-1]),
        node_first_slot=first_slot,
        query_node=np.array(node_of, dtype=np.int32),
        query_position=np.array(position, dtype=np.int32),
        query_indptr=indptr,
    )


@st.composite
def page_tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows that copy prefixes of earlier rows, ragged and identical ones and padding among them.

    Returns:
        page table, seq_lens, query_lens, page size; columns past a length hold nonsense.
    """
    page_size = draw(st.sampled_from([1, 2, 16]))
    width, next_page = 6, 0
    rows: list[list[int]] = []
    for _ in range(draw(st.integers(1, 7))):
        copied = draw(st.integers(0, width)) if rows else 0
        source = draw(st.sampled_from(rows)) if rows else []
        row = source[:copied]
        num_new = draw(st.integers(0, width - len(row)))
        row = row + list(range(next_page, next_page + num_new))
        next_page += num_new
        rows.append(row)
    lens, queries = [], []
    table = np.full((len(rows), width), -7, dtype=np.int32)
    for at, row in enumerate(rows):
        table[at, : len(row)] = row
        most = len(row) * page_size
        lens.append(draw(st.integers(max(0, most - page_size + 1), most)) if most else 0)
        queries.append(draw(st.integers(1, min(4, max(1, lens[-1])))))
        table[at, -(-lens[-1] // page_size) :] = draw(st.sampled_from([-7, 2**30]))
    return table, np.array(lens), np.array(queries), page_size


@st.composite
def forests(draw: st.DrawFn) -> Forest:
    """Forests of both makes."""
    if draw(st.booleans()):
        return draw(hand_made_forests())
    table, lens, queries, page_size = draw(page_tables())
    return Forest.from_page_table(table, lens, page_size, queries)


def visible_slots(forest: Forest, query: int, window: int | None = None) -> list[int]:
    """Physical slots that a query sees, walked token by token."""
    slots = []
    node, position = int(forest.query_node[query]), int(forest.query_position[query])
    while node >= 0:
        for token in range(int(forest.node_len[node])):
            at = int(forest.node_start[node]) + token
            if at <= position and (window is None or at > position - window):
                slots.append(_slot(forest, node, token))
        node = int(forest.node_parent[node])
    return slots


def _slot(forest: Forest, node: int, token: int) -> int:
    at = int(forest.node_first_slot[node]) + token
    page = forest.page_indices[forest.node_page_start[node] + at // forest.page_size]
    return int(page) * forest.page_size + at % forest.page_size


def assert_covers_everything_once(plan: Plan) -> None:
    """Every (query, visible token) pair in exactly one tile, every tile on one worker, and every
    partial merged once, read from the tables that kernels read."""
    tables, schedule, forest = plan.tables, plan.schedule, plan.forest
    items = tables.items[: int(tables.num_items)].tolist()
    splits = schedule.num_head_splits
    covered = [
        item + head for item in items for head in range(int(tables.tile_num_heads[item // splits]))
    ]
    assert sorted(covered) == list(range(schedule.num_tiles * splits))
    assert sorted(schedule.worker_items.tolist()) == sorted(items)
    assert schedule.worker_indptr[-1] == len(items)
    assert_fits_heights(plan)
    window = plan.cost.spec.window
    assert_tables_cover_once(tables, forest, schedule.num_tiles, schedule.num_partials, window)


def assert_tables_cover_once(
    tables: PlanTables, forest: Forest, num_tiles: int, num_partials: int, window: int | None = None
) -> None:
    """Every (query, visible token) pair in exactly one of the first tiles, and every partial of
    theirs merged once."""
    seen: list[Counter[int]] = [Counter() for _ in range(forest.num_queries)]
    partials: list[list[int]] = [[] for _ in range(forest.num_queries)]
    num_tiles_of = [0] * forest.num_queries
    size = forest.page_size
    for tile in range(num_tiles):
        begin = int(tables.tile_query_begin[tile])
        queries = tables.query_indices[begin : begin + int(tables.tile_num_queries[tile])].tolist()
        start = int(tables.tile_partial_start[tile])
        for row, query in enumerate(queries):
            num_tiles_of[query] += 1
            if int(tables.query_num_tiles[query]) > 1:
                assert start >= 0
                partials[query].append(start + row)
        for segment in range(*tables.tile_segment_indptr[tile : tile + 2].tolist()):
            first = int(tables.segment_first_slot[segment])
            page_start = int(tables.segment_page_start[segment])
            for token in range(int(tables.segment_len[segment])):
                at = first + token
                position = int(tables.segment_position[segment]) + token
                readers = [
                    query
                    for query in queries
                    if position <= (last := int(tables.query_position[query]))
                    and (window is None or position > last - window)
                ]
                if readers:
                    page = int(tables.pages[page_start + at // size])
                    for query in readers:
                        seen[query][page * size + at % size] += 1
    indptr = tables.merge_indptr.tolist()
    used: list[int] = []
    for query in range(forest.num_queries):
        assert seen[query] == Counter(visible_slots(forest, query, window))
        assert num_tiles_of[query] == int(tables.query_num_tiles[query])
        merged = tables.merge_indices[indptr[query] : indptr[query + 1]].tolist()
        assert sorted(merged) == sorted(partials[query])
        used += merged
    assert len(used) == len(set(used))
    assert all(0 <= partial < num_partials for partial in used)


def assert_fits_heights(plan: Plan) -> None:
    """Each tile is held by the height at which it runs, and each item starts where a pack may."""
    tables, cost, splits = plan.tables, plan.cost, plan.schedule.num_head_splits
    for item in tables.items[: int(tables.num_items)].tolist():
        tile = item // splits
        rows = int(tables.tile_num_queries[tile]) * cost.spec.group_size
        assert rows <= cost.tile_heights[-1] or cost.max_tile_queries == 1
        assert item % splits % int(tables.tile_num_heads[tile]) == 0


def random_problem(
    forest: Forest, spec: AttentionSpec, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, KV]:
    """Draw q, and KV whose slots are NaN but for those that some query sees."""
    generator = torch.Generator().manual_seed(seed)
    num_pages = forest.max_page + 2
    slots = sorted(
        {s for q in range(forest.num_queries) for s in visible_slots(forest, q, spec.window)}
    )
    tails = (
        [(spec.elements_per_token,)]
        if spec.tied
        else [(spec.num_kv_heads, dim) for dim in (spec.nope_dim, spec.v_dim)]
    )
    planes = []
    for tail in tails:
        plane = torch.full((num_pages * forest.page_size, *tail), torch.nan)
        plane[slots] = torch.randn(len(slots), *tail, generator=generator)
        planes.append(plane.unflatten(0, (num_pages, forest.page_size)).to(dtype))
    q = torch.randn(forest.num_queries, spec.num_q_heads, spec.qk_dim, generator=generator)
    return q, planes[0] if spec.tied else (planes[0], planes[1])


def quantized(kv: KV, spec: AttentionSpec, forest: Forest) -> QuantizedKV:
    """Store KV in fp8; slots that no query sees hold what is no number."""
    tensors = tensors_of(kv)
    fp8 = QuantizedKV.empty(spec, len(tensors[0]), forest.page_size, tensors[0].device)
    for tensor in tensors_of(fp8):
        # NaN in e4m3, e8m0 and bfloat16 alike.
        tensor.view(torch.uint8).fill_(255)
    rows = [tensor.flatten(0, 1) for tensor in tensors]
    is_stored = ~rows[0].flatten(1).isnan().any(dim=1)
    slots = torch.where(is_stored, torch.arange(len(is_stored), device=is_stored.device), -1)
    store_kv(fp8, rows[0] if spec.tied else (rows[0], rows[1]), slots)
    return fp8
