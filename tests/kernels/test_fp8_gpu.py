"""Attention on fp8 KV against fp32 on the same values, and against the values before, on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bough.attend import attend, store_kv
from bough.device import PAIRED_TILING, Device
from bough.forest import Forest
from bough.kernels.reference import ReferenceBackend
from bough.kv import KV, QuantizedKV, tensors_of
from bough.plan import make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.draft_trees import draft_forest, random_parents
from tests.forests import quantized, random_problem
from tests.kernels.on_hopper import GROWING_LENS, assert_graph_serves
from tests.kernels.test_gluon_gpu import inside_pages, ragged

pytestmark = pytest.mark.gpu
SPECS = {
    "gqa": AttentionSpec.gqa(32, 8, 128),
    "gqa-64": AttentionSpec.gqa(32, 8, 64),
    "gqa-192": AttentionSpec.gqa(8, 2, 192),
    "gta": AttentionSpec.gta(32, 8, 128),
    "gla-2": AttentionSpec.gla(128, 2),
    "gla-rank": AttentionSpec.gla(16, 1),
    "gla-4-small": AttentionSpec.gla(64, 4, latent_dim=128, rope_dim=32),
    "mla-rank": AttentionSpec.mla(16),
    "mla-64": AttentionSpec.mla(64),
}
LATENTS = ("gla-2", "gla-rank", "gla-4-small", "mla-rank", "mla-64")
GROUPED = ("gqa", "gqa-64", "gta")


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def device_for(backend: str | None) -> Device:
    """The GPU here, with tiles for plain Triton, or for whatever backend is preferred."""
    tiling = None if backend == "triton" else PAIRED_TILING
    return replace(Device.current(), paired_tiling=tiling)


def on_gpu(kv: KV) -> KV:
    assert not isinstance(kv, QuantizedKV)
    return (kv[0].cuda(), kv[1].cuda()) if isinstance(kv, tuple) else kv.cuda()


def check(
    forest: Forest,
    spec: AttentionSpec,
    dtype: torch.dtype = torch.bfloat16,
    backend: str | None = "triton",
) -> None:
    q, plain = random_problem(forest, spec, 0)
    plain = on_gpu(plain)
    kv, q = quantized(plain, spec, forest), q.to(dtype).cuda()
    sinks = torch.randn(spec.num_q_heads, device="cuda") if spec.sinks else None
    plan = make_plan(forest, spec, device_for(backend), itemsize=1)
    out, lse = attend(q, kv, plan, sinks=sinks, backend=backend)
    exact, exact_lse = ReferenceBackend(torch.float32).attend(q.float(), kv, plan, sinks)
    before, _ = ReferenceBackend(torch.float32).attend(q.float(), plain, plan, sinks)
    sees = exact_lse > -torch.inf
    assert torch.equal(lse > -torch.inf, sees)
    assert (out[~sees] == 0).all()
    assert relative_error(out[sees], exact[sees]) < 5e-3
    assert relative_error(lse[sees], exact_lse[sees]) < 1e-4
    assert relative_error(out[sees], before[sees]) < 8e-2


@pytest.mark.parametrize("query_len", [1, 5])
@pytest.mark.parametrize("page_size", [1, 64])
@pytest.mark.parametrize("name", SPECS)
def test_ragged_requests_agree_with_fp32(name: str, page_size: int, query_len: int) -> None:
    check(ragged(page_size, query_len), SPECS[name])


@pytest.mark.parametrize("query_len", [1, 2, 5])
@pytest.mark.parametrize("page_size", [1, 64])
@pytest.mark.parametrize("name", LATENTS)
def test_ragged_latents_agree_with_fp32_on_hopper(
    name: str, page_size: int, query_len: int
) -> None:
    check(ragged(page_size, query_len), SPECS[name], backend="gluon")


@pytest.mark.parametrize("query_len", [1, 5, 20])
@pytest.mark.parametrize("page_size", [1, 64])
@pytest.mark.parametrize("name", GROUPED)
def test_ragged_requests_agree_with_fp32_on_hopper(
    name: str, page_size: int, query_len: int
) -> None:
    check(ragged(page_size, query_len), SPECS[name], backend="gluon")


@pytest.mark.parametrize("text", ["1,4,16|256,40,100", "1,64|1000,40"])
@pytest.mark.parametrize("name", LATENTS)
def test_forests_of_latents_agree_with_fp32_on_hopper(name: str, text: str) -> None:
    forest = forest_from_text(text, page_size=16, shuffle_seed=0)
    check(forest, SPECS[name], torch.float16, "gluon")


@pytest.mark.parametrize(
    "text",
    ["64|130", "1,4|600,50", "2,8|300,20", "1,64|1000,40", "1,8|4096,512", "1,3,96|700,90,33"],
)
@pytest.mark.parametrize("name", GROUPED)
def test_forests_agree_with_fp32_on_hopper(name: str, text: str) -> None:
    forest = forest_from_text(text, page_size=16, shuffle_seed=0)
    check(forest, SPECS[name], torch.float16, "gluon")


@pytest.mark.parametrize("name", GROUPED)
def test_taller_tiles_agree_with_fp32_unasked(name: str) -> None:
    forest = forest_from_text("1,64|3000,40", page_size=1, shuffle_seed=0)
    check(forest, SPECS[name], backend=None)


@pytest.mark.parametrize("text", ["1,4,16|256,40,100", "1,64|1000,40"])
def test_forests_agree_with_fp32(text: str) -> None:
    forest = forest_from_text(text, page_size=16, shuffle_seed=0)
    check(forest, SPECS["gqa"], torch.float16)


@pytest.mark.parametrize("name", [*LATENTS, *GROUPED])
def test_nodes_that_start_inside_pages_agree(name: str) -> None:
    check(inside_pages(), SPECS[name], backend="gluon")


@pytest.mark.parametrize("query_len", [1, 2])
@pytest.mark.parametrize("name", ["gla-2", "gla-rank", "mla-rank"])
def test_sinks_of_latents_agree_with_fp32_on_hopper(name: str, query_len: int) -> None:
    check(ragged(64, query_len), replace(SPECS[name], sinks=True), backend="gluon")


@pytest.mark.parametrize("counts", [[1, 1, 0], [8, 3, 17]], ids=str)
@pytest.mark.parametrize("name", ["gla-2", "gla-rank", "mla-rank"])
def test_drafts_of_latents_agree_with_fp32_on_hopper(name: str, counts: list[int]) -> None:
    forest = draft_forest(random_parents(counts, seed=0), 16, 384)
    check(forest, SPECS[name], backend="gluon")


@pytest.mark.parametrize("name", ["gla-2", "gla-rank", "mla-rank"])
def test_a_captured_graph_serves_growing_latents(name: str) -> None:
    spec, start = SPECS[name], np.array(GROWING_LENS)
    everything = Forest.from_page_table(
        np.arange(320, dtype=np.int32).reshape(8, 40), np.full(8, 2560), 64
    )
    plain = torch.randn(320, 64, spec.elements_per_token, device="cuda").bfloat16()
    steps = [np.where(start > 0, start + step, 0) for step in range(1, 4)]
    kv = quantized(plain, spec, everything)
    assert_graph_serves(steps, spec, Device.current(), kv, page_size=64)


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize(
    "fields",
    [{"window": 100}, {"softcap": 20.0}, {"sinks": True}],
    ids=lambda fields: next(iter(fields)),
)
def test_windows_softcaps_and_sinks_agree_with_fp32_on_hopper(
    name: str, fields: dict[str, Any]
) -> None:
    spec = replace(SPECS[name], **fields)
    check(ragged(64, 1), spec, backend="gluon")
    check(ragged(64, 7), spec, backend="gluon")


@pytest.mark.parametrize("magnitude", [1e3, 1e6])
@pytest.mark.parametrize("name", [*GROUPED, *LATENTS])
@pytest.mark.parametrize("text", ["4|100", "1,4|200,40", "1,48|500,40"])
def test_values_of_any_magnitude_agree_with_fp32_on_hopper(
    name: str, text: str, magnitude: float
) -> None:
    forest = forest_from_text(text, page_size=16, shuffle_seed=0)
    spec = SPECS[name]
    q, plain = random_problem(forest, spec, 0)
    # Some tokens' values are nothing, others a thousand times as large as the rest, or more. Rotary
    # keys have no power, and queries are fp16 numbers: neither is that large, or that small.
    values = tensors_of(plain)[-1]
    values = values[..., : values.shape[-1] - spec.rope_dim]
    values[::3] *= magnitude
    values[1::3] = values[1::3].nan_to_num() * 0.0
    kv = quantized(on_gpu(plain), spec, forest)
    q = (q * (max(10 / magnitude, 1e-3) if spec.tied else 1.0)).bfloat16().cuda()
    plan = make_plan(forest, spec, device_for("gluon"), itemsize=1)
    out, lse = attend(q, kv, plan, backend="gluon")
    exact, exact_lse = ReferenceBackend(torch.float32).attend(q.float(), kv, plan, None)
    assert relative_error(out, exact) < 5e-3
    assert relative_error(lse, exact_lse) < 1e-4


@pytest.mark.parametrize("name", SPECS)
def test_rows_are_quantised_to_the_bits_of_the_cpu(name: str) -> None:
    spec = SPECS[name]
    tails = [(spec.elements_per_token,)] if spec.tied else [(spec.num_kv_heads, spec.v_dim)] * 2
    rows = [torch.randn(70, *tail).bfloat16() for tail in tails]
    slots = torch.randperm(96)[:70]
    stored = []
    for device in ("cuda", "cpu"):
        kv = QuantizedKV.empty(spec, 6, 16, torch.device(device))
        for tensor in tensors_of(kv):
            tensor.view(torch.uint8).zero_()
        new = [values.to(device) for values in rows]
        store_kv(kv, new[0] if spec.tied else (new[0], new[1]), slots.to(device))
        stored.append([tensor.cpu().contiguous().view(torch.uint8) for tensor in tensors_of(kv)])
    for actual, expected in zip(*stored, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("name", ["gqa", "gta", "gla-2"])
def test_a_graph_stores_and_attends(name: str) -> None:
    spec, forest = SPECS[name], forest_from_text("1,8|300,40", page_size=16)
    q, plain = random_problem(forest, spec, 0)
    kv, q = quantized(on_gpu(plain), spec, forest), q.bfloat16().cuda()
    plan = make_plan(forest, spec, device_for("gluon"), itemsize=1)
    tails = [(spec.elements_per_token,)] if spec.tied else [(spec.num_kv_heads, spec.v_dim)] * 2
    rows = [torch.randn(2, *tail, device="cuda").bfloat16() for tail in tails]
    new, slots = rows[0] if spec.tied else (rows[0], rows[1]), torch.tensor([3, 17]).cuda()

    def step() -> torch.Tensor:
        store_kv(kv, new, slots)
        return attend(q, kv, plan)[0]

    expected = step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    out.fill_(torch.nan)
    graph.replay()
    assert torch.equal(out, expected)


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("name", GROUPED)
def test_draft_trees_agree_with_fp32_unasked(name: str, page_size: int) -> None:
    parents = random_parents([8, 64, 17, 40, 0, 63], seed=page_size)
    check(draft_forest(parents, page_size, 384), SPECS[name], backend=None)


@pytest.mark.parametrize("name", GROUPED)
def test_one_stored_head_leaves_a_consumer_nothing_but_tall_tiles(name: str) -> None:
    spec = SPECS[name]
    alone = replace(spec, num_q_heads=spec.group_size, num_kv_heads=1)
    check(ragged(16, 1), alone, backend="gluon")
    forest = forest_from_text("1,3,39|900,700,600", page_size=16, shuffle_seed=0)
    check(forest, alone, torch.float16, "gluon")


@pytest.mark.parametrize("name", GROUPED)
def test_the_same_plan_twice_gives_the_same_bits(name: str) -> None:
    forest, spec = forest_from_text("1,8,128|200,300,40", page_size=16, shuffle_seed=0), SPECS[name]
    q, plain = random_problem(forest, spec, 0)
    kv, q = quantized(on_gpu(plain), spec, forest), q.bfloat16().cuda()
    plan = make_plan(forest, spec, device_for("gluon"), itemsize=1)
    first = [tensor.clone() for tensor in attend(q, kv, plan, backend="gluon")]
    for _ in range(20):
        assert all(map(torch.equal, first, attend(q, kv, plan, backend="gluon")))


@pytest.mark.parametrize("name", GROUPED)
def test_a_captured_graph_serves_growing_leaves(name: str) -> None:
    spec = SPECS[name]
    kv = QuantizedKV.empty(spec, 1280, 16, torch.device("cuda"))
    tails = [(spec.elements_per_token,)] if spec.tied else [(spec.num_kv_heads, spec.v_dim)] * 2
    rows = [torch.randn(1280 * 16, *tail, device="cuda").bfloat16() for tail in tails]
    slots = torch.arange(1280 * 16, device="cuda")
    store_kv(kv, rows[0] if spec.tied else (rows[0], rows[1]), slots)
    steps, lens = [], np.array(GROWING_LENS)
    for step in range(12):
        lens = np.where(lens > 0, lens + 1, 0)
        lens[step % 6] = 1 if step % 5 == 0 else lens[step % 6]
        steps.append(lens)
    assert_graph_serves(steps, spec, device_for("gluon"), kv, page_size=16)
