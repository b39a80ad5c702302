"""The door: backends agree with the oracle, and bad arguments are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bough.attend import attend, store_kv
from bough.device import Device
from bough.forest import Forest
from bough.kernels.reference import ReferenceBackend
from bough.plan import PlanCapacity, make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.forests import SPECS, devices, forests, random_problem, visible_slots


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    difference = (actual.double() - expected.double()).norm()
    return float(difference / expected.double().norm().clamp(min=1e-30))


@pytest.mark.parametrize("variant", SPECS)
@settings(max_examples=40, deadline=None)
@given(
    forest=forests(),
    device=devices(),
    seed=st.integers(0, 99),
    window=st.sampled_from([None, 3, 20]),
)
def test_cpu_agrees_with_the_oracle_and_reads_no_unused_slot(
    variant: str, forest: Forest, device: Device, seed: int, window: int | None
) -> None:
    spec = replace(SPECS[variant], window=window)
    q, kv = random_problem(forest, spec, seed)
    plan = make_plan(forest, spec, device)
    out, lse = attend(q, kv, plan)
    expected_out, expected_lse = attend(q, kv, plan, backend="reference")
    assert error(out, expected_out) < 2e-5
    sees = expected_lse > -torch.inf
    assert torch.equal(lse > -torch.inf, sees)
    assert error(lse[sees], expected_lse[sees]) < 2e-5
    assert (out[~sees] == 0).all()


def test_a_plan_with_room_to_spare_serves_smaller_forests_on_the_cpu() -> None:
    spec = SPECS["gqa"]
    device = replace(Device.named("h100"), torch_device="cpu")
    room = PlanCapacity(
        num_tiles=99, num_segments=99, num_queries=50, num_query_rows=99, num_partials=99,
        num_pages=99,
    )  # fmt: skip
    plan = make_plan(forest_from_text("1,4|400,20"), spec, device, room)
    for text in ("1,4|400,20", "2|33", "1,2,8|400,20,30"):
        forest = forest_from_text(text)
        plan.update(forest)
        assert plan.forest.num_queries < room.num_queries
        q, kv = random_problem(forest, spec, 0)
        out, lse = attend(q, kv, plan)
        expected_out, expected_lse = attend(q, kv, plan, backend="reference")
        assert error(out, expected_out) < 2e-5
        assert error(lse, expected_lse) < 2e-5


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_soft_cap_and_sinks_agree_with_plain_softmax(
    softcap: float | None, has_sinks: bool
) -> None:
    spec = replace(SPECS["gqa"], softcap=softcap, sinks=has_sinks)
    forest = forest_from_text("1,3|40,9", page_size=4, query_len=2)
    q, (k, v) = random_problem(forest, spec, 0)
    sinks = torch.randn(spec.num_q_heads) * 3 if has_sinks else None
    out, lse = attend(q, (k, v), make_plan(forest, spec, Device.cpu()), sinks=sinks)
    for query in range(forest.num_queries):
        slots = visible_slots(forest, query)
        for head in range(spec.num_q_heads):
            keys = k.flatten(0, 1)[slots, head // spec.group_size]
            values = v.flatten(0, 1)[slots, head // spec.group_size]
            score = keys @ q[query, head] * spec.scale
            if softcap is not None:
                score = softcap * torch.tanh(score / softcap)
            if sinks is not None:
                score = torch.cat([score, sinks[head : head + 1]])
                values = torch.cat([values, torch.zeros(1, spec.v_dim)])
            torch.testing.assert_close(out[query, head], score.softmax(0) @ values)
            torch.testing.assert_close(lse[query, head], score.logsumexp(0))


def test_tied_specs_use_the_state_as_value_and_its_head_as_key() -> None:
    spec = SPECS["gla"]
    forest = forest_from_text("1,2|11,4", page_size=4)
    q, kv = random_problem(forest, spec, 1)
    assert isinstance(kv, torch.Tensor)
    out, _ = attend(q, kv, make_plan(forest, spec, Device.cpu()))
    for query in range(2):
        rows = kv.flatten(0, 1)[visible_slots(forest, query)]
        rope = rows[:, -spec.rope_dim :]
        for head in range(spec.num_q_heads):
            group = head // spec.group_size
            state = rows[:, group * spec.v_dim : (group + 1) * spec.v_dim]
            key = torch.cat([state[:, : spec.nope_dim], rope], dim=1)
            weight = (key @ q[query, head] * spec.scale).softmax(0)
            torch.testing.assert_close(out[query, head], weight @ state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", ["gqa", "gla"])
def test_16_bit_kv_is_attended_in_fp32(variant: str, dtype: torch.dtype) -> None:
    spec = SPECS[variant]
    forest = forest_from_text("1,4|700,60")
    q, kv = random_problem(forest, spec, 2, dtype)
    plan = make_plan(forest, spec, Device.cpu())
    out, lse = attend(q, kv, plan)
    expected, expected_lse = attend(q, kv, plan, backend="reference")
    assert error(out, expected) < 2e-5
    assert error(lse, expected_lse) < 2e-5
    assert attend(q.to(dtype), kv, plan)[0].dtype == dtype


@pytest.mark.parametrize("layout", ["pool", "page-major", "interleaved", "heads-first"])
def test_any_strides_of_foreign_planes_give_the_same_output(layout: str) -> None:
    spec = SPECS["gqa"]
    forest = forest_from_text("1,3|600,40", shuffle_seed=4)
    q, (k, v) = random_problem(forest, spec, 3)
    plan = make_plan(forest, spec, Device.cpu())
    expected, _ = attend(q, (k, v), plan)
    if layout == "pool":
        k, v = (plane.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3) for plane in (k, v))
    elif layout == "interleaved":
        both = torch.stack([k, v], dim=1)
        k, v = both[:, 0], both[:, 1]
    elif layout == "heads-first":
        k, v = (plane.transpose(1, 2).contiguous().transpose(1, 2) for plane in (k, v))
    torch.testing.assert_close(attend(q, (k, v), plan)[0], expected)


def test_the_same_plan_twice_gives_the_same_bits() -> None:
    spec = SPECS["gqa"]
    forest = forest_from_text("1,8,64|100,50,20")
    q, kv = random_problem(forest, spec, 5)
    plan = make_plan(forest, spec, Device.cpu())
    first, second = attend(q, kv, plan), attend(q, kv, plan)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_a_plan_that_advanced_sees_one_more_token() -> None:
    spec = SPECS["gqa"]
    table = np.array([[0, 1], [0, 2]])
    plan = make_plan(Forest.from_page_table(table, [18, 20], 16), spec, Device.cpu())
    plan.advance()
    grown = Forest.from_page_table(table, [19, 21], 16)
    q, kv = random_problem(grown, spec, 6)
    expected = attend(q, kv, make_plan(grown, spec, Device.cpu()))
    for backend in ("cpu", "reference"):
        out, lse = attend(q, kv, plan, backend=backend)
        torch.testing.assert_close(out, expected[0])
        torch.testing.assert_close(lse, expected[1])


def test_float32_and_float64_oracles_agree() -> None:
    spec = SPECS["mla"]
    forest = forest_from_text("1,2|30,5")
    q, kv = random_problem(forest, spec, 7)
    plan = make_plan(forest, spec, Device.cpu())
    single, _ = ReferenceBackend(torch.float32).attend(q, kv, plan, None)
    double, _ = ReferenceBackend(torch.float64).attend(q, kv, plan, None)
    assert 0 < error(single, double) < 2e-6


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_store_kv_writes_the_named_slots_and_no_others(backend: str, variant: str) -> None:
    spec = SPECS[variant]
    tails = [(spec.elements_per_token,)] if spec.tied else [(spec.num_kv_heads, spec.v_dim)] * 2
    planes = tuple(torch.zeros(3, 4, *tail) for tail in tails)
    rows = tuple(torch.randn(3, *tail) for tail in tails)
    slots = torch.tensor([9, -1, 2])
    kv, new = (planes[0], rows[0]) if spec.tied else (planes, rows)
    store_kv(kv, new, slots, backend=backend)
    for plane, values in zip(planes, rows, strict=True):
        assert torch.equal(plane[2, 1], values[0])
        assert torch.equal(plane[0, 2], values[2])
        assert plane.flatten(0, 1).flatten(1).any(dim=1).sum() == 2


class TestBadArguments:
    spec = SPECS["gqa"]
    forest = forest_from_text("1,2|8,4", page_size=4)

    def problem(self) -> tuple:
        q, kv = random_problem(self.forest, self.spec, 0)
        return q, kv, make_plan(self.forest, self.spec, Device.cpu())

    def test_nan_in_q(self) -> None:
        q, kv, plan = self.problem()
        q[1, 2, 3] = torch.nan
        with pytest.raises(ValueError, match="q must be free of NaN, got NaN in token 1"):
            attend(q, kv, plan)

    def test_wrong_shape_of_q(self) -> None:
        q, kv, plan = self.problem()
        with pytest.raises(ValueError, match=r"q must be \[2, 6, 16\], got \[1, 6, 16\]"):
            attend(q[:1], kv, plan)

    def test_double_precision_q(self) -> None:
        q, kv, plan = self.problem()
        with pytest.raises(NotImplementedError, match="what works: float32, float16, bfloat16"):
            attend(q.double(), kv, plan)

    def test_planes_without_the_forests_pages(self) -> None:
        q, (k, v), plan = self.problem()
        with pytest.raises(ValueError, match="kv must hold page 3 of the forest, got 2 pages"):
            attend(q, (k[:2], v[:2]), plan)

    def test_planes_of_another_page_size(self) -> None:
        q, (k, v), plan = self.problem()
        with pytest.raises(ValueError, match="kv must be"):
            attend(q, (k[:, :2], v[:, :2]), plan)

    def test_a_tied_tensor_for_an_untied_spec(self) -> None:
        q, (k, _), plan = self.problem()
        with pytest.raises(
            ValueError, match=r"kv must be a tuple \(k, v\) for this spec, got Tensor"
        ):
            attend(q, k, plan)
        with pytest.raises(ValueError, match="for this spec, got a tuple of 1"):
            attend(q, (k,), plan)  # type: ignore[arg-type]

    def test_planes_that_are_not_contiguous_in_the_last_axis(self) -> None:
        q, (k, v), plan = self.problem()
        strided = k.repeat_interleave(2, dim=-1)[..., ::2]
        with pytest.raises(ValueError, match="contiguous in its last axis"):
            attend(q, (strided, v), plan)

    def test_sinks_that_the_spec_does_not_have(self) -> None:
        q, kv, plan = self.problem()
        with pytest.raises(ValueError, match="sinks must be None for this spec"):
            attend(q, kv, plan, sinks=torch.zeros(6))

    def test_a_plan_for_another_device(self) -> None:
        q, kv, _ = self.problem()
        plan = make_plan(self.forest, self.spec, Device.named("h100"))
        with pytest.raises(ValueError, match="q must be on cuda, as its plan, got cpu"):
            attend(q, kv, plan)

    def test_an_unknown_backend(self) -> None:
        q, kv, plan = self.problem()
        with pytest.raises(NotImplementedError, match="what works: cpu, gluon, reference, triton"):
            attend(q, kv, plan, backend="abacus")

    def test_a_backend_of_gpus_on_a_cpu(self) -> None:
        q, kv, plan = self.problem()
        with pytest.raises(NotImplementedError, match="gluon takes tensors on a GPU, got cpu"):
            attend(q, kv, plan, backend="gluon")

    def test_slots_outside_the_planes(self) -> None:
        _, (k, v), _ = self.problem()
        new = (torch.zeros(1, 2, 16), torch.zeros(1, 2, 16))
        with pytest.raises(ValueError, match="slots must be from -1 to"):
            store_kv((k, v), new, torch.tensor([k.shape[0] * 4]))


def test_the_example_of_the_public_face_runs() -> None:
    spec = AttentionSpec.gqa(num_q_heads=32, num_kv_heads=8, head_dim=128)
    forest = Forest.from_page_table([[0, 1], [0, 2]], [20, 31], page_size=16, query_lens=None)
    plan = make_plan(forest, spec, Device.cpu())
    kv = (torch.randn(3, 16, 8, 128), torch.randn(3, 16, 8, 128))
    out, lse = attend(torch.randn(2, 32, 128), kv, plan)
    assert out.shape == (2, 32, 128)
    assert lse.shape == (2, 32)
