"""Draft trees on a GPU: bf16 against dense masks in fp32, and graphs that serve many trees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bough.attend import attend
from bough.device import Device
from bough.forest import Forest
from bough.plan import PlanCapacity, make_plan
from bough.spec import AttentionSpec
from tests.draft_trees import (
    Parents,
    draft_forest,
    draft_table,
    masked_attention,
    random_parents,
)
from tests.forests import random_problem

pytestmark = pytest.mark.gpu
SPECS = {
    "gqa-8": AttentionSpec.gqa(32, 8, 128),
    "gta-8": AttentionSpec.gta(32, 8, 128),
    "gla-2": AttentionSpec.gla(128, 2),
    "gla-rank": AttentionSpec.gla(16, 1),
    "mla": AttentionSpec.mla(128),
    "mla-rank": AttentionSpec.mla(16),
}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, most: float) -> None:
    assert (actual.float() - expected).norm() < most * expected.norm()


def problem(
    forest: Forest, spec: AttentionSpec
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | torch.Tensor]:
    """On the GPU, in bf16; slots that nobody sees hold NaN."""
    q, kv = random_problem(forest, spec, 0, torch.bfloat16)
    planes = kv.cuda() if isinstance(kv, torch.Tensor) else (kv[0].cuda(), kv[1].cuda())
    return q.bfloat16().cuda(), planes


@pytest.mark.parametrize("page_size", [1, 16, 64])
@pytest.mark.parametrize("name", SPECS)
def test_trees_below_a_shared_prefix_agree_with_a_dense_mask(name: str, page_size: int) -> None:
    spec, parents = SPECS[name], random_parents([8, 64, 17, 40, 0, 63], seed=page_size)
    forest = draft_forest(parents, page_size, 384)
    q, kv = problem(forest, spec)
    table = draft_table(parents, page_size, 384)
    expected, expected_lse = masked_attention(q, kv, spec, table, parents)
    out, lse = attend(q, kv, make_plan(forest, spec, Device.current()))
    assert_close(out, expected, 5e-3)
    assert_close(lse, expected_lse, 1e-4)


def step(lens: np.ndarray, parents: Parents) -> Forest:
    table = np.arange(4 * 64).reshape(4, 64)
    query_lens = [1 + len(tree) for tree in parents]
    return Forest.from_page_table(table, lens, 64, query_lens).with_drafts(parents)


@pytest.mark.parametrize("name", ["gqa-8", "gla-2", "mla"])
def test_a_captured_graph_serves_tree_after_tree(name: str) -> None:
    spec, counts = SPECS[name], [16, 16, 31, 8]
    capacity = PlanCapacity(
        num_tiles=800, num_segments=1600, num_queries=75, num_query_rows=2000,
        num_partials=8000, num_pages=256, has_drafts=True,
    )  # fmt: skip
    lens = np.array([100, 700, 1500, 3000])
    plan = make_plan(step(lens, random_parents(counts)), spec, Device.current(), capacity)
    q, kv = problem(step(np.full(4, 64 * 64), random_parents(counts)), spec)
    planes = kv if isinstance(kv, tuple) else (kv,)
    for plane in planes:
        plane.nan_to_num_()
    attend(q, kv, plan)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, _ = attend(q, kv, plan)
    for seed in range(4):
        lens, parents = np.add(lens, [1, 5, 2, 7]), random_parents(counts, seed)
        plan.update(step(lens, parents))
        out.fill_(torch.nan)
        graph.replay()
        table = (np.arange(4 * 64).reshape(4, 64), lens)
        assert_close(out, masked_attention(q, kv, spec, table, parents)[0], 5e-3)
