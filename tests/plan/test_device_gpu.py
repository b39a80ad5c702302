"""What only a GPU can show of the planner on the device: CUDA graphs that plan and attend."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bough.attend import attend
from bough.device import Device
from bough.forest import Forest
from bough.plan import make_plan
from bough.plan.cost import CostModel
from bough.plan.device import DeviceCapacity, DevicePlan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.plan.test_coverage import Batch

pytestmark = pytest.mark.gpu
GQA = AttentionSpec.gqa(32, 8, 128)


def new_plan(num_requests: int, max_pages: int) -> DevicePlan:
    device = Device.current()
    cost = CostModel(spec=GQA, device=device, itemsize=2)
    return DevicePlan(GQA, device, 16, DeviceCapacity.of_batch(num_requests, max_pages, cost))


def poisoned_planes(num_pages: int) -> tuple[torch.Tensor, torch.Tensor]:
    planes = torch.full((2, num_pages, 16, 8, 128), torch.nan, device="cuda", dtype=torch.bfloat16)
    return planes[0], planes[1]


def fill(kv: tuple[torch.Tensor, torch.Tensor], table: np.ndarray, lens: np.ndarray) -> None:
    """Give every token that some request sees a value, where it has none yet."""
    for row, length in zip(table, lens, strict=True):
        slot = torch.arange(int(length), device="cuda")
        page = torch.tensor(row, device="cuda")[slot // 16].long()
        for plane in kv:
            values = plane[page, slot % 16]
            fresh = torch.where(values.isnan(), torch.randn_like(values), values)
            plane[page, slot % 16] = fresh


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def test_a_graph_plans_and_attends_while_page_tables_change() -> None:
    """60 replays of one capture agree with fp64 on the host's account of each page table."""
    num_rows, max_pages, batch = 24, 64, Batch(16, np.random.default_rng(0))
    for _ in range(8):
        batch.join()
    kv = poisoned_planes(2000)
    plan = new_plan(num_rows, max_pages)
    table = torch.full((num_rows, max_pages), 2**30, dtype=torch.int32, device="cuda")
    lens = torch.zeros(num_rows, dtype=torch.int32, device="cuda")
    q = torch.randn(num_rows, 32, 128, device="cuda").bfloat16()
    plan.update(table, lens)
    attend(q, kv, plan)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan.update(table, lens)
        out, lse = attend(q, kv, plan)
    for step in range(60):
        forest = batch.step(num_requests=num_rows)
        pages, seq_lens = forest.page_indices.reshape(num_rows, -1), forest.query_position + 1
        fill(kv, pages, seq_lens)
        table.fill_(2**30)
        for row, length in enumerate(-(-seq_lens // 16)):
            table[row, :length] = torch.from_numpy(pages[row, :length])
        lens.copy_(torch.from_numpy(seq_lens))
        q.copy_(torch.randn_like(q))
        out.fill_(torch.nan)
        graph.replay()
        sees = torch.from_numpy(forest.query_node >= 0).to("cuda")
        assert (out[~sees] == 0).all()
        assert (lse[~sees] == -torch.inf).all()
        host = make_plan(forest, GQA, Device.current())
        backend = "reference" if step % 6 == 0 else None
        expected, expected_lse = attend(q, kv, host, backend=backend)
        assert relative_error(out[sees], expected[sees]) < 5e-3
        assert relative_error(lse[sees], expected_lse[sees]) < 1e-4


@pytest.mark.parametrize("text", ["1,256|2048,512", "1,8,64,512|32,256,64,64", "8,512|4096,32"])
def test_large_batches_agree_with_the_plan_of_the_host(text: str) -> None:
    forest = forest_from_text(text, shuffle_seed=0)
    table, seq_lens = page_table(forest)
    kv = tuple(torch.randn_like(plane) for plane in poisoned_planes(forest.max_page + 1))
    q = torch.randn(forest.num_queries, 32, 128, device="cuda").bfloat16()
    plan = new_plan(*table.shape)
    plan.update(table, seq_lens)
    out, lse = attend(q, (kv[0], kv[1]), plan)
    host = make_plan(forest, GQA, Device.current())
    expected, expected_lse = attend(q, (kv[0], kv[1]), host)
    assert relative_error(out, expected) < 5e-3
    assert relative_error(lse, expected_lse) < 1e-4


def page_table(forest: Forest) -> tuple[torch.Tensor, torch.Tensor]:
    """The forest's page table on the device, nonsense behind each request's pages."""
    lens = forest.query_position + 1
    table = np.full((forest.num_requests, -(-int(lens.max()) // 16)), 2**30, dtype=np.int32)
    for row, node in zip(table, forest.query_node.tolist(), strict=True):
        while node >= 0:
            begin, count = forest.node_start[node] // 16, -(-forest.node_len[node] // 16)
            first = forest.node_page_start[node]
            row[begin : begin + count] = forest.page_indices[first : first + count]
            node = int(forest.node_parent[node])
    return torch.from_numpy(table).cuda(), torch.from_numpy(lens.astype(np.int32)).cuda()
