"""KV in fp8: its form, what is stored into it, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bough.attend import attend, store_kv
from bough.device import Device
from bough.kv import KV, QuantizedKV, tensors_of
from bough.plan import make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.forests import SPECS, quantized, random_problem

FOREST = forest_from_text("1,3|40,9", page_size=4, shuffle_seed=1)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("variant", SPECS)
def test_every_variant_attends_the_quantised_values_and_errs_by_their_rounding(
    variant: str,
) -> None:
    spec = SPECS[variant]
    q, kv = random_problem(FOREST, spec, 0)
    plan = make_plan(FOREST, spec, Device.cpu())
    fp8 = quantized(kv, spec, FOREST)
    out, lse = attend(q, fp8, plan)
    expected, expected_lse = attend(q, fp8, plan, backend="reference")
    assert relative_error(out, expected) < 2e-5
    assert relative_error(lse, expected_lse) < 2e-5
    assert 5e-3 < relative_error(out, attend(q, kv, plan)[0]) < 8e-2


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("variant", ["gqa", "gla"])
def test_rows_are_quantised_into_the_named_slots_and_no_others(backend: str, variant: str) -> None:
    spec = SPECS[variant]
    kv = QuantizedKV.empty(spec, 3, 4, torch.device("cpu"))
    for tensor in tensors_of(kv):
        tensor.view(torch.uint8).zero_()
    tails = [(spec.elements_per_token,)] if spec.tied else [(spec.num_kv_heads, spec.v_dim)] * 2
    rows = tuple(torch.randn(3, *tail) for tail in tails)
    new = rows[0] if spec.tied else (rows[0], rows[1])
    store_kv(kv, new, torch.tensor([9, -1, 2]), backend=backend)
    for tensor in tensors_of(kv):
        is_written = tensor.contiguous().view(torch.uint8).flatten(0, 1).flatten(1).any(dim=1)
        assert is_written.nonzero().flatten().tolist() == [2, 9]


@pytest.mark.parametrize("layout", ["page-major", "interleaved"])
def test_any_strides_of_foreign_planes_give_the_same_output(layout: str) -> None:
    spec = SPECS["gqa"]
    q, kv = random_problem(FOREST, spec, 3)
    plan = make_plan(FOREST, spec, Device.cpu())
    fp8 = quantized(kv, spec, FOREST)
    expected, _ = attend(q, fp8, plan)
    if layout == "page-major":
        planes = tuple(plane.contiguous() for plane in fp8.planes)
    else:
        both = torch.stack(fp8.planes, dim=1)
        planes = (both[:, 0], both[:, 1])
    other = replace(fp8, planes=planes, scales=fp8.scales.contiguous())
    torch.testing.assert_close(attend(q, other, plan)[0], expected)


class TestBadArguments:
    spec = SPECS["gqa"]

    def kv(self, spec: AttentionSpec | None = None) -> QuantizedKV:
        pages = FOREST.max_page + 1
        return QuantizedKV.empty(spec or self.spec, pages, 4, torch.device("cpu"))

    def refused(self, kv: KV, spec: AttentionSpec | None = None) -> None:
        spec = spec or self.spec
        q = torch.randn(FOREST.num_queries, spec.num_q_heads, spec.qk_dim)
        attend(q, kv, make_plan(FOREST, spec, Device.cpu()))

    def test_planes_of_another_dtype(self) -> None:
        kv = self.kv()
        with pytest.raises(ValueError, match=r"planes must be .*float8_e4m3fn, got .*bfloat16"):
            replace(kv, planes=tuple(plane.bfloat16() for plane in kv.planes))

    def test_scales_of_another_shape_or_dtype(self) -> None:
        kv = self.kv()
        with pytest.raises(ValueError, match=r"scales must be .* 4\] of torch.float8_e8m0fnu"):
            replace(kv, scales=kv.scales[..., :1])
        with pytest.raises(ValueError, match=r"scales must be .*, got .*float32"):
            replace(kv, scales=kv.scales.float())

    def test_scales_that_are_no_whole_words(self) -> None:
        kv = self.kv()
        wide = torch.empty(*kv.scales.shape[:3], 5, dtype=kv.scales.dtype)
        with pytest.raises(ValueError, match="scales must be whole words in the last axis"):
            replace(kv, scales=wide[..., 1:])

    def test_planes_of_odd_strides(self) -> None:
        kv = self.kv()
        odd = torch.empty(*kv.planes[0].shape[:3], 17, dtype=kv.planes[0].dtype)
        with pytest.raises(ValueError, match="planes must be rows of pairs"):
            replace(kv, planes=(odd[..., :16], kv.planes[1]))

    def test_a_rotary_key_of_another_dtype(self) -> None:
        kv = self.kv(SPECS["gla"])
        assert kv.rope is not None
        with pytest.raises(ValueError, match=r"rope must be .*bfloat16, got .*float16"):
            replace(kv, rope=kv.rope.half())

    def test_kv_of_another_spec(self) -> None:
        with pytest.raises(ValueError, match=r"kv must be a tuple \(k, v\) for this spec"):
            self.refused(self.kv(SPECS["gla"]))
        with pytest.raises(ValueError, match=r"kv must be \['num_pages', 4, 2, 16\], got"):
            self.refused(self.kv(SPECS["mha"]))

    def test_rows_that_are_longer_than_their_scales_reach(self) -> None:
        with pytest.raises(ValueError, match="dims must be at most 256 for fp8 KV, got 288"):
            self.kv(AttentionSpec.gqa(2, 1, 288))
        assert self.kv(AttentionSpec.mla(2, 512)).planes[0].shape[3] == 512

    def test_new_rows_in_fp8(self) -> None:
        kv = self.kv()
        with pytest.raises(ValueError, match="new must be 2 tensors, got a QuantizedKV"):
            store_kv(kv, kv, torch.zeros(1, dtype=torch.int64))
