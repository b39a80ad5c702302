"""Triton kernels against the oracle: on a GPU where there is one, else in the interpreter.

The interpreter's bf16 products are not to be trusted, so bf16 is tested on the GPU alone.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bough.attend import attend, store_kv
from bough.device import Device
from bough.forest import Forest
from bough.kv import KV
from bough.plan import Plan, PlanCapacity, make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.forests import SPECS, random_problem

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GPU = replace(Device.named("h100"), torch_device=DEVICE)
CAPACITY = PlanCapacity(
    num_tiles=400,
    num_segments=900,
    num_queries=32,
    num_query_rows=500,
    num_partials=600,
    num_pages=900,
)
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def on_device(kv: KV) -> KV:
    return tuple(plane.to(DEVICE) for plane in kv) if isinstance(kv, tuple) else kv.to(DEVICE)  # type: ignore[return-value]


def check(
    forest: Forest,
    spec: AttentionSpec,
    dtype: torch.dtype = torch.float32,
    sinks: torch.Tensor | None = None,
    plan: Plan | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    q, kv = random_problem(forest, spec, 0, dtype)
    q, kv = q.to(dtype).to(DEVICE), on_device(kv)
    plan = plan or make_plan(forest, spec, GPU)
    out, lse = attend(q, kv, plan, sinks=sinks, backend="triton")
    expected_out, expected_lse = attend(q, kv, plan, sinks=sinks, backend="reference")
    sees = expected_lse > -torch.inf
    assert torch.equal(lse > -torch.inf, sees)
    assert (out[~sees] == 0).all()
    if sees.any():
        for actual, expected in ((out[sees], expected_out[sees]), (lse[sees], expected_lse[sees])):
            difference = (actual.double() - expected.double()).norm()
            assert difference < TOLERANCE[dtype] * expected.double().norm()
    return out, lse


@pytest.mark.parametrize("variant", SPECS)
@pytest.mark.parametrize("text", ["1,3|70,9", "2,4,8|40,3,17", "3|150"])
def test_every_variant_agrees_with_the_oracle(variant: str, text: str) -> None:
    check(forest_from_text(text, page_size=4, shuffle_seed=1), SPECS[variant])


@pytest.mark.parametrize("variant", ["gqa", "gla"])
def test_half_precision_agrees(variant: str) -> None:
    check(forest_from_text("1,4|100,20", page_size=16), SPECS[variant], torch.float16)


@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_any_page_size_and_several_queries_in_causal_order(page_size: int) -> None:
    forest = forest_from_text("1,3|50,21", page_size=page_size, query_len=5, shuffle_seed=2)
    check(forest, SPECS["gqa"])


@pytest.mark.parametrize(
    "change", [{"window": 7}, {"window": 45}, {"softcap": 3.0}, {"sinks": True}], ids=str
)
def test_windows_soft_caps_and_sinks_agree(change: dict) -> None:
    spec = replace(SPECS["gqa"], **change)
    sinks = torch.randn(spec.num_q_heads, device=DEVICE) * 3 if spec.sinks else None
    check(forest_from_text("1,2,4|60,20,10", page_size=4, query_len=2), spec, sinks=sinks)


@pytest.mark.parametrize("head_dim", [64, 80, 96, 192])
def test_head_dims_that_are_no_power_of_two_agree(head_dim: int) -> None:
    check(forest_from_text("1,2|40,5"), AttentionSpec.gqa(4, 2, head_dim))


@pytest.mark.parametrize("group_size", [1, 5, 64])
def test_any_group_size_agrees(group_size: int) -> None:
    check(forest_from_text("1,5|40,5"), AttentionSpec.gqa(2 * group_size, 2, 32))


def test_padding_and_queries_in_inner_nodes_agree() -> None:
    table = [[0, 1, 2], [0, 1, -9], [0, 3, 4], [-9, -9, -9], [0, 1, 2]]
    forest = Forest.from_page_table(table, [40, 20, 48, 0, 37], 16, [3, 1, 2, 1, 4])
    check(forest, SPECS["gqa"])


def test_planes_of_any_strides_agree() -> None:
    spec, forest = SPECS["gqa"], forest_from_text("1,3|60,14", page_size=4)
    q, (k, v) = random_problem(forest, spec, 3)
    plan = make_plan(forest, spec, GPU)
    expected, _ = attend(q.to(DEVICE), on_device((k, v)), plan, backend="triton")
    both = torch.stack([k, v], dim=1).to(DEVICE)
    interleaved, _ = attend(q.to(DEVICE), (both[:, 0], both[:, 1]), plan, backend="triton")
    assert torch.equal(interleaved, expected)
    heads_first = tuple(
        plane.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3).to(DEVICE) for plane in (k, v)
    )
    assert torch.equal(attend(q.to(DEVICE), heads_first, plan, backend="triton")[0], expected)


def test_a_plan_with_capacity_serves_forest_after_forest() -> None:
    spec = SPECS["gqa"]
    plan = make_plan(forest_from_text("1,4|100,20"), spec, GPU, CAPACITY)
    for text in ("1,4|100,20", "2|33", "1,2,8|40,20,30"):
        forest = forest_from_text(text)
        plan.update(forest)
        check(forest, spec, plan=plan)


def test_the_same_plan_twice_gives_the_same_bits() -> None:
    forest = forest_from_text("1,8|300,10")
    plan = make_plan(forest, SPECS["gqa"], GPU)
    first, second = (check(forest, SPECS["gqa"], plan=plan) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("variant", ["gqa", "gla"])
def test_store_kv_writes_the_named_slots_and_no_others(variant: str) -> None:
    spec = SPECS[variant]
    tails = [(spec.elements_per_token,)] if spec.tied else [(spec.num_kv_heads, spec.v_dim)] * 2
    planes = [torch.zeros(5, 3, *tail, device=DEVICE) for tail in tails]
    rows = [torch.randn(4, *tail, device=DEVICE) for tail in tails]
    slots = torch.tensor([14, -1, 0, 7], device=DEVICE)
    kv, new = (planes[0], rows[0]) if spec.tied else (tuple(planes), tuple(rows))
    store_kv(kv, new, slots, backend="triton")  # type: ignore[arg-type]
    for plane, values in zip(planes, rows, strict=True):
        expected = torch.zeros_like(plane)
        for token, slot in enumerate(slots.tolist()):
            if slot >= 0:
                expected[slot // 3, slot % 3] = values[token]
        assert torch.equal(plane, expected)


def test_what_the_kernels_cannot_do_is_refused() -> None:
    spec, forest = SPECS["gqa"], forest_from_text("1,2|8,4")
    q, kv = random_problem(forest, spec, 0)
    plan = make_plan(forest, spec, GPU)
    with pytest.raises(NotImplementedError, match="q and kv of one dtype"):
        attend(q.half().to(DEVICE), on_device(kv), plan, backend="triton")
    whole = make_plan(forest, spec, replace(GPU, is_split_by_head=False))
    with pytest.raises(NotImplementedError, match="plans split by head"):
        attend(q.to(DEVICE), on_device(kv), whole, backend="triton")
