"""What only a GPU can show of the Triton kernels: bf16, CUDA graphs, and the engine on top."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bough.attend import attend
from bough.device import Device
from bough.engine import LLM, SamplingParams
from bough.plan import PlanCapacity, make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.checkpoints import FAMILIES, VOCAB_SIZE, make_checkpoint
from tests.plan.test_coverage import Batch

pytestmark = pytest.mark.gpu
GQA = AttentionSpec.gqa(32, 8, 128)


def random_planes(num_pages: int, page_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (num_pages, page_size, GQA.num_kv_heads, GQA.v_dim)
    return torch.randn(shape, device="cuda").bfloat16(), torch.randn(
        shape, device="cuda"
    ).bfloat16()


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize(
    "text", ["1,8|4096,512", "1,64|1000,40", "1,4,16,64|256,32,128,16", "8|1024", "1,256|256,32"]
)
def test_bf16_errs_no_more_than_bf16_rounding(text: str, page_size: int) -> None:
    forest = forest_from_text(text, page_size=page_size, shuffle_seed=0)
    kv = random_planes(forest.max_page + 1, page_size)
    q = torch.randn(forest.num_queries, 32, 128, device="cuda").bfloat16()
    plan = make_plan(forest, GQA, Device.current())
    out, lse = attend(q, kv, plan)
    expected, expected_lse = attend(q, kv, plan, backend="reference")
    assert relative_error(out, expected) < 5e-3
    assert relative_error(lse, expected_lse) < 1e-4


def test_a_graph_is_replayed_while_leaves_grow_and_requests_come_and_go() -> None:
    """200 steps: the captured launches agree with a fresh plan at each of them."""
    num_queries, batch = 64, Batch(16, np.random.default_rng(0))
    for _ in range(6):
        batch.join()
    capacity = PlanCapacity(
        num_tiles=600,
        num_segments=2000,
        num_queries=num_queries,
        num_query_rows=1000,
        num_partials=2000,
        num_pages=20000,
    )
    kv = random_planes(3000, 16)
    q = torch.randn(num_queries, 32, 128, device="cuda").bfloat16()
    forest = batch.step(num_requests=num_queries)
    plan = make_plan(forest, GQA, Device.current(), capacity)
    attend(q, kv, plan)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = attend(q, kv, plan)
    for _ in range(200):
        forest = batch.step(num_requests=num_queries)
        plan.update(forest)
        q.copy_(torch.randn_like(q))
        out.fill_(torch.nan)
        graph.replay()
        expected, expected_lse = attend(q, kv, make_plan(forest, GQA, Device.current()))
        sees = torch.from_numpy(forest.query_node >= 0).to("cuda")
        assert (out[~sees] == 0).all()
        assert relative_error(out[sees], expected[sees]) < 5e-3
        assert relative_error(lse[sees], expected_lse[sees]) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_on_the_gpu_are_those_of_the_cpu(family: str, tmp_path: Path) -> None:
    make_checkpoint(family, tmp_path / "model")
    rng = np.random.default_rng(0)
    shared = rng.integers(2, VOCAB_SIZE, 40).tolist()
    prompts = [shared + rng.integers(2, VOCAB_SIZE, 5 + at).tolist() for at in range(4)]
    params = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True, n=2)
    tokens = []
    for device in ("cpu", "cuda"):
        llm = LLM(tmp_path / "model", device=device, dtype="float32")
        outputs = llm.generate(prompts, params)
        tokens.append([sample.token_ids for output in outputs for sample in output.outputs])
    assert tokens[0] == tokens[1]
