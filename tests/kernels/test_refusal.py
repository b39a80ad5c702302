"""What calls the Hopper kernels refuse, on a card that is only said to be one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bough.device import PAIRED_TILING, Device
from bough.forest import Forest
from bough.kernels.gluon.refusal import refusal
from bough.kv import KV
from bough.plan import Plan, make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.draft_trees import draft_forest, random_parents
from tests.forests import quantized

H100 = replace(Device.named("h100"), torch_device="cpu")
PAIRED = replace(H100, paired_tiling=PAIRED_TILING)
GQA = AttentionSpec.gqa(32, 8, 128)
GLA = AttentionSpec.gla(16, 2)


@pytest.fixture(autouse=True)
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def call(spec: AttentionSpec, device: Device) -> tuple[torch.Tensor, KV, Plan]:
    """A step of 3 requests that share 32 tokens."""
    forest = forest_from_text("1,3|32,16")
    plan = make_plan(forest, spec, device, itemsize=2)
    q = torch.zeros(3, spec.num_q_heads, spec.qk_dim, dtype=torch.bfloat16)
    pages = forest.max_page + 1
    if spec.tied:
        return q, torch.zeros(pages, 16, spec.elements_per_token, dtype=torch.bfloat16), plan
    plane = torch.zeros(pages, 16, spec.num_kv_heads, spec.v_dim, dtype=torch.bfloat16)
    return q, (plane, plane.clone()), plan


@pytest.mark.parametrize(
    ("spec", "device"), [(GQA, PAIRED), (AttentionSpec.gta(32, 8, 128), PAIRED), (GLA, H100)]
)
def test_what_fits_is_taken(spec: AttentionSpec, device: Device) -> None:
    assert refusal(*call(spec, device)) is None


def test_grouped_heads_want_plans_of_paired_tiles() -> None:
    apart = replace(H100, paired_tiling=None)
    assert "plans of paired tiles, got tiles of (16, 64) rows" in (refusal(*call(GQA, apart)) or "")


def test_rows_must_start_at_multiples_of_16_bytes() -> None:
    q, kv, plan = call(GQA, PAIRED)
    assert isinstance(kv, tuple)
    odd = torch.zeros(kv[0].numel() + 1, dtype=torch.bfloat16)[1:].view_as(kv[0])
    assert "multiples of 16 bytes" in (refusal(q, (kv[0], odd), plan) or "")
    q, kv, plan = call(GLA, H100)
    assert isinstance(kv, torch.Tensor)
    shifted = torch.zeros(kv.numel() + 1, dtype=torch.bfloat16)[1:].view_as(kv)
    assert "multiples of 16 bytes" in (refusal(q, shifted, plan) or "")


def test_keys_and_values_lie_at_equal_steps() -> None:
    q, kv, plan = call(GQA, PAIRED)
    assert isinstance(kv, tuple)
    apart = torch.zeros(2 * len(kv[0]), *kv[0].shape[1:], dtype=torch.bfloat16)[::2]
    assert "equal strides" in (refusal(q, (kv[0], apart), plan) or "")


def test_dtypes_agree_but_for_fp8() -> None:
    for spec, device in ((GQA, PAIRED), (AttentionSpec.gta(32, 8, 128), PAIRED), (GLA, H100)):
        q, kv, plan = call(spec, device)
        assert "one dtype" in (refusal(q.half(), kv, plan) or "")
        assert refusal(q, quantized(kv, spec, plan.forest), plan) is None
        assert "got torch.float32" in (
            refusal(q.float(), quantized(kv, spec, plan.forest), plan) or ""
        )


def test_fp8_of_grouped_heads_is_taken_at_any_height_but_for_drafts_in_tall_tiles() -> None:
    _, kv, plan = call(GQA, PAIRED)
    q = torch.zeros(64, 32, 128, dtype=torch.bfloat16)
    fp8 = quantized(kv, GQA, plan.forest)
    tall = make_plan(forest_from_text("1,64|320,16"), GQA, PAIRED, itemsize=1)
    assert refusal(q, fp8, tall) is None
    forest = draft_forest(random_parents([15]), 16, 128)
    drafts = make_plan(forest, GQA, PAIRED, itemsize=1)
    assert "fp8 with drafts where tiles have at most 16 rows" in (refusal(q, fp8, drafts) or "")


def test_a_plan_without_tiles_is_taken_in_fp8() -> None:
    q, kv, plan = call(GQA, PAIRED)
    nobody = Forest.from_page_table([[0]], [0], 16)
    empty = make_plan(nobody, GQA, PAIRED, itemsize=1)
    assert len(empty.schedule.items) == 0
    assert refusal(q[:1], quantized(kv, GQA, plan.forest), empty) is None
