"""Problems on a Hopper GPU, and what its kernels' answers are compared with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from bough.attend import attend
from bough.device import Device
from bough.forest import Forest
from bough.kernels.reference import ReferenceBackend
from bough.kv import KV
from bough.plan import PlanCapacity, make_plan
from bough.spec import AttentionSpec
from tests.forests import random_problem

GROWING_LENS = (1, 64, 200, 333, 1000, 2000, 2500, 0)


def problem(
    forest: Forest, spec: AttentionSpec, dtype: torch.dtype = torch.bfloat16
) -> tuple[torch.Tensor, KV, torch.Tensor | None]:
    """Draw q, KV in whose slots that nobody sees lies NaN, and sinks where there are some."""
    q, kv = random_problem(forest, spec, 0, dtype)
    sinks = torch.randn(spec.num_q_heads, device="cuda") if spec.sinks else None
    planes = kv.cuda() if isinstance(kv, torch.Tensor) else (kv[0].cuda(), kv[1].cuda())
    return q.to(dtype).cuda(), planes, sinks


def assert_agrees_with_fp32(
    forest: Forest, spec: AttentionSpec, device: Device, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Compare with fp32 on the same rounded inputs."""
    q, kv, sinks = problem(forest, spec, dtype)
    plan = make_plan(forest, spec, device)
    out, lse = attend(q, kv, plan, sinks=sinks, backend="gluon")
    exact = ReferenceBackend(torch.float32).attend(q.float(), kv, plan, sinks)
    sees = exact[1] > -torch.inf
    assert torch.equal(lse > -torch.inf, sees)
    assert (out[~sees] == 0).all()
    for actual, expected, most in ((out, exact[0], 5e-3), (lse, exact[1], 1e-5)):
        miss = (actual[sees].float() - expected[sees]).norm()
        assert miss < most * expected[sees].norm()


def assert_graph_serves(
    lens_by_step: Iterable[np.ndarray],
    spec: AttentionSpec,
    device: Device,
    kv: KV,
    page_size: int,
) -> None:
    """Capture a step of GROWING_LENS, and replay it after each update of the plan."""
    capacity = PlanCapacity(
        num_tiles=400,
        num_segments=900,
        num_queries=8,
        num_query_rows=500,
        num_partials=600,
        num_pages=2000,
    )
    table = np.arange(8 * 2560 // page_size, dtype=np.int32).reshape(8, -1)
    forest = Forest.from_page_table(table, np.array(GROWING_LENS), page_size)
    q = torch.randn(8, spec.num_q_heads, spec.qk_dim, device="cuda").bfloat16()
    plan = make_plan(forest, spec, device, capacity)
    attend(q, kv, plan)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = attend(q, kv, plan)
    for lens in lens_by_step:
        forest = Forest.from_page_table(table, lens, page_size)
        plan.update(forest)
        out.fill_(torch.nan)
        graph.replay()
        fresh = make_plan(forest, spec, device)
        expected, expected_lse = attend(q, kv, fresh, backend="reference")
        assert (out[-1] == 0).all()
        assert (out[:-1] - expected[:-1]).float().norm() < 5e-3 * expected[:-1].float().norm()
        assert (lse[:-1] - expected_lse[:-1]).norm() < 1e-4 * expected_lse[:-1].norm()
