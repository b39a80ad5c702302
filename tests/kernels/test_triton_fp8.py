"""Triton kernels on fp8 KV against the oracle on the same values, as `test_triton.py`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bough.attend import attend, store_kv
from bough.device import Device
from bough.forest import Forest
from bough.fp8 import FP8
from bough.kv import QuantizedKV, tensors_of
from bough.plan import make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.draft_trees import draft_forest, random_parents
from tests.forests import SPECS, quantized, random_problem

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GPU = replace(Device.named("h100"), torch_device=DEVICE)
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def on_device(kv: QuantizedKV) -> QuantizedKV:
    # Copies keep their bits: NaN in unused slots, and words of scales.
    return replace(
        kv,
        planes=tuple(plane.to(DEVICE) for plane in kv.planes),
        scales=kv.scales.to(DEVICE),
        rope=None if kv.rope is None else kv.rope.to(DEVICE),
    )


def check(
    forest: Forest, spec: AttentionSpec, dtype: torch.dtype = torch.float32, magnitude: float = 1.0
) -> None:
    q, kv = random_problem(forest, spec, 0)
    kv = (kv[0], kv[1] * magnitude) if isinstance(kv, tuple) else kv
    fp8 = on_device(quantized(kv, spec, forest))
    q = q.to(dtype).to(DEVICE)
    plan = make_plan(forest, spec, GPU, itemsize=1)
    out, lse = attend(q, fp8, plan, backend="triton")
    expected, expected_lse = attend(q.float(), fp8, plan, backend="reference")
    for actual, wanted in ((out, expected), (lse, expected_lse)):
        difference = (actual.double() - wanted.double()).norm()
        assert difference < TOLERANCE[dtype] * wanted.double().norm()


@pytest.mark.parametrize("variant", SPECS)
def test_every_variant_agrees_with_the_oracle(variant: str) -> None:
    check(forest_from_text("1,3|70,9", page_size=4, shuffle_seed=1), SPECS[variant])


@pytest.mark.parametrize(
    "spec",
    [AttentionSpec.gqa(4, 2, 192), AttentionSpec.mla(4, 320, 16, 16)],
    ids=["two scales a row", "three scales a row"],
)
def test_rows_of_several_scales_agree(spec: AttentionSpec) -> None:
    check(forest_from_text("1,2|40,5", page_size=4), spec)


@pytest.mark.parametrize("variant", ["gqa", "gla"])
def test_half_precision_agrees(variant: str) -> None:
    check(forest_from_text("1,4|100,20"), SPECS[variant], torch.float16)


@pytest.mark.parametrize("magnitude", [1e-6, 1e5])
def test_values_beyond_the_range_of_products_agree(magnitude: float) -> None:
    check(forest_from_text("1,4|60,20"), SPECS["gqa"], torch.bfloat16, magnitude)


@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_any_page_size_and_several_queries_in_causal_order(page_size: int) -> None:
    forest = forest_from_text("1,3|50,21", page_size=page_size, query_len=5, shuffle_seed=2)
    check(forest, SPECS["gqa"])


@pytest.mark.parametrize("variant", ["gqa", "gta"])
def test_draft_trees_of_few_rows_agree_in_long_blocks(variant: str) -> None:
    check(draft_forest(random_parents([4, 0, 3], seed=1), 16, 32), SPECS[variant])


@pytest.mark.parametrize("variant", ["gqa", "mla", "gta"])
def test_rows_are_quantised_as_the_cpu_does(variant: str) -> None:
    """Numbers are ones that fp8 has: the interpreter rounds others wrongly."""
    spec = replace(SPECS[variant], v_dim=144) if variant == "mla" else SPECS[variant]
    tails = [(spec.elements_per_token,)] if spec.tied else [(spec.num_kv_heads, spec.v_dim)] * 2
    rows = tuple(torch.randn(4, *tail).to(FP8).float() * 2.0**-5 for tail in tails)
    slots = torch.tensor([14, -1, 0, 7])
    stored = []
    for backend, device in (("triton", DEVICE), ("cpu", "cpu")):
        kv = QuantizedKV.empty(spec, 5, 3, torch.device(device))
        for tensor in tensors_of(kv):
            tensor.view(torch.uint8).zero_()
        new = tuple(row.to(device) for row in rows)
        store_kv(kv, new[0] if spec.tied else new, slots.to(device), backend=backend)  # type: ignore[arg-type]
        stored.append([tensor.cpu().contiguous().view(torch.uint8) for tensor in tensors_of(kv)])
    for actual, expected in zip(*stored, strict=True):
        assert torch.equal(actual, expected)
