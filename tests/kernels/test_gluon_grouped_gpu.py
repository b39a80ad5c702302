"""The Gluon kernel over grouped heads against fp32, on a Hopper GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bough.attend import attend
from bough.device import PAIRED_TILING, Device
from bough.forest import Forest
from bough.plan import make_plan
from bough.plan.cost import CostModel
from bough.plan.device import DeviceCapacity, DevicePlan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.draft_trees import draft_forest, draft_table, masked_attention, random_parents
from tests.kernels.on_hopper import (
    GROWING_LENS,
    assert_agrees_with_fp32,
    assert_graph_serves,
    problem,
)
from tests.kernels.test_gluon_gpu import inside_pages, ragged

pytestmark = pytest.mark.gpu
CARD = replace(Device.named("h100"), paired_tiling=PAIRED_TILING)
SPECS = {
    "gqa": AttentionSpec.gqa(32, 8, 128),
    "gqa-of-3": AttentionSpec.gqa(12, 4, 128),
    "mha-64": AttentionSpec.mha(16, 64),
    "mqa": AttentionSpec.gqa(16, 1, 128),
    "wide-groups": AttentionSpec.gqa(64, 2, 64),
    "odd-heads": AttentionSpec.gqa(12, 3, 128),
    "window": replace(AttentionSpec.gqa(32, 8, 128), window=100),
    "softcap": replace(AttentionSpec.gqa(32, 8, 128), softcap=20.0),
    "gta": AttentionSpec.gta(32, 8, 128),
    "gta-1": AttentionSpec.gta(16, 1, 128),
    "sinks": replace(AttentionSpec.gqa(32, 8, 128), sinks=True),
}


def check(forest: Forest, spec: AttentionSpec, dtype: torch.dtype = torch.bfloat16) -> None:
    assert_agrees_with_fp32(forest, spec, CARD, dtype)


@pytest.mark.parametrize("query_len", [1, 3, 5, 33])
@pytest.mark.parametrize("page_size", [1, 16, 64])
@pytest.mark.parametrize("name", ["gqa", "mha-64", "gta"])
def test_ragged_requests_agree_with_fp32(name: str, page_size: int, query_len: int) -> None:
    check(ragged(page_size, query_len), SPECS[name])


@pytest.mark.parametrize("query_len", [1, 2, 40])
@pytest.mark.parametrize("name", SPECS)
def test_every_variant_agrees_with_fp32(name: str, query_len: int) -> None:
    check(ragged(16, query_len), SPECS[name])


@pytest.mark.parametrize(
    "text", ["1,4,16|256,40,100", "1,40|1000,40", "1,300|128,16", "2,6,66|33,64,5", "200|7"]
)
@pytest.mark.parametrize("name", SPECS)
def test_forests_agree_with_fp32(name: str, text: str) -> None:
    check(forest_from_text(text, shuffle_seed=0), SPECS[name])


@pytest.mark.parametrize("name", SPECS)
def test_nodes_may_start_and_end_inside_pages(name: str) -> None:
    check(inside_pages(), SPECS[name])


@pytest.mark.parametrize("name", ["gqa", "mha-64"])
def test_float16_agrees_with_fp32(name: str) -> None:
    check(ragged(16, 2), SPECS[name], torch.float16)


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("name", ["gqa", "mha-64", "gta"])
def test_draft_trees_agree_with_a_dense_mask(name: str, page_size: int) -> None:
    spec, parents = SPECS[name], random_parents([8, 64, 17, 40, 0, 63], seed=page_size)
    forest = draft_forest(parents, page_size, 384)
    q, kv, _ = problem(forest, spec)
    expected, expected_lse = masked_attention(
        q, kv, spec, draft_table(parents, page_size, 384), parents
    )
    out, lse = attend(q, kv, make_plan(forest, spec, CARD), backend="gluon")
    assert (out.float() - expected).norm() < 5e-3 * expected.norm()
    assert (lse - expected_lse).norm() < 1e-4 * expected_lse.norm()


def test_plans_of_its_tiles_go_to_gluon_unasked_unless_a_copy_would_not_fit() -> None:
    forest, spec = ragged(16, 1), SPECS["gqa"]
    q, kv, _ = problem(forest, spec)
    plan = make_plan(forest, spec, CARD)
    expected = attend(q, kv, plan, backend="gluon")[0]
    assert torch.equal(attend(q, kv, plan)[0], expected)
    shifted = torch.empty(kv[0].numel() + 1, device="cuda", dtype=torch.bfloat16)[1:]
    odd = shifted.view_as(kv[0]).copy_(kv[0])
    with pytest.raises(NotImplementedError, match="multiples of 16 bytes"):
        attend(q, (odd, kv[1]), plan, backend="gluon")
    portable = make_plan(forest, spec, Device.current())
    out = attend(q, (odd, kv[1]), portable)[0]
    assert (out - expected).float().norm() < 5e-3 * expected.float().norm()


def test_a_plan_made_on_the_device_is_run() -> None:
    spec = SPECS["gqa"]
    table = np.arange(40 * 60, dtype=np.int32).reshape(40, 60)
    table[:, :30] = table[0, :30]
    lens = np.arange(481, 481 + 40 * 11, 11)
    forest = Forest.from_page_table(table, lens, 16)
    q, kv, _ = problem(forest, spec)
    cost = CostModel(spec=spec, device=CARD, itemsize=2)
    plan = DevicePlan(spec, CARD, 16, DeviceCapacity.of_batch(*table.shape, cost))
    lens_there = torch.tensor(lens, dtype=torch.int32, device="cuda")
    plan.update(torch.tensor(table, device="cuda"), lens_there)
    out, lse = attend(q, kv, plan, backend="gluon")
    expected, expected_lse = attend(q, kv, make_plan(forest, spec, CARD), backend="reference")
    assert (out - expected).float().norm() < 5e-3 * expected.float().norm()
    assert (lse - expected_lse).norm() < 1e-4 * expected_lse.norm()


def test_the_same_plan_twice_gives_the_same_bits() -> None:
    forest, spec = forest_from_text("1,8,128|200,300,40", shuffle_seed=0), SPECS["gqa"]
    q, kv, _ = problem(forest, spec)
    plan = make_plan(forest, spec, CARD)
    first = [tensor.clone() for tensor in attend(q, kv, plan, backend="gluon")]
    for _ in range(20):
        again = attend(q, kv, plan, backend="gluon")
        assert all(map(torch.equal, first, again))


def test_a_captured_graph_serves_growing_leaves() -> None:
    kv = torch.randn(2, 1280, 16, 8, 128, device="cuda").bfloat16()
    steps, lens = [], np.array(GROWING_LENS)
    for step in range(40):
        lens = np.where(lens > 0, lens + 1, 0)
        lens[step % 6] = 1 if step % 10 == 0 else lens[step % 6]
        steps.append(lens)
    assert_graph_serves(steps, SPECS["gqa"], CARD, (kv[0], kv[1]), page_size=16)
