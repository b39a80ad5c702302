"""Gluon kernels over latents against fp32, on a Hopper GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bough.attend import attend
from bough.device import Device
from bough.forest import Forest
from bough.plan import make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.kernels.on_hopper import (
    GROWING_LENS,
    assert_agrees_with_fp32,
    assert_graph_serves,
    problem,
)

pytestmark = pytest.mark.gpu
SPECS = {
    "gla-2": AttentionSpec.gla(128, 2),
    "gla-rank": AttentionSpec.gla(16, 1),
    "gla-4-small": AttentionSpec.gla(64, 4, latent_dim=128, rope_dim=32),
    "mla": AttentionSpec.mla(128),
    "mla-rank": AttentionSpec.mla(16),
}
LENS = (1, 63, 64, 65, 700, 1500)


def ragged(page_size: int, query_len: int) -> Forest:
    """Requests of odd lengths on shuffled pages, and a padding one."""
    lens = np.array([max(length, query_len) for length in LENS] + [0])
    counts = -(-lens // page_size)
    ids = np.random.default_rng(0).permutation(counts.sum()).astype(np.int32)
    table = np.zeros((len(lens), counts.max()), dtype=np.int32)
    for row, of_row in zip(table, np.split(ids, np.cumsum(counts)[:-1]), strict=True):
        row[: len(of_row)] = of_row
    return Forest.from_page_table(table, lens, page_size, np.minimum(lens, query_len).clip(1))


def inside_pages() -> Forest:
    """Nodes that start and end inside pages of 64."""
    return Forest.from_nodes(
        page_size=64,
        node_parent=[-1, 0, 0, 1, 1],
        node_len=[100, 30, 300, 77, 5],
        node_pages=[[3, 7], [9], [0, 1, 2, 4, 5, 6], [8, 10], [11]],
        node_first_slot=[5, 34, 0, 10, 59],
        query_node=[2, 2, 3, 4, 1],
    )


def check(forest: Forest, spec: AttentionSpec, dtype: torch.dtype = torch.bfloat16) -> None:
    assert_agrees_with_fp32(forest, spec, Device.current(), dtype)


@pytest.mark.parametrize("query_len", [1, 2, 5])
@pytest.mark.parametrize("page_size", [1, 64])
@pytest.mark.parametrize("name", SPECS)
def test_ragged_requests_agree_with_fp32(name: str, page_size: int, query_len: int) -> None:
    check(ragged(page_size, query_len), SPECS[name])


@pytest.mark.parametrize("page_size", [1, 64])
@pytest.mark.parametrize("text", ["1,4,16|256,40,100", "1,64|1000,40"])
@pytest.mark.parametrize("name", SPECS)
def test_forests_agree_with_fp32(name: str, text: str, page_size: int) -> None:
    check(forest_from_text(text, page_size=page_size, shuffle_seed=0), SPECS[name])


@pytest.mark.parametrize("page_size", [16, 128])
@pytest.mark.parametrize("name", ["gla-2", "mla"])
def test_pages_may_be_shorter_or_longer_than_blocks(name: str, page_size: int) -> None:
    check(ragged(page_size, 3), SPECS[name])


@pytest.mark.parametrize("name", SPECS)
def test_nodes_may_start_and_end_inside_pages(name: str) -> None:
    check(inside_pages(), SPECS[name])


@pytest.mark.parametrize("name", ["gla-2", "mla"])
def test_float16_and_sinks_agree_with_fp32(name: str) -> None:
    spec = AttentionSpec(**{**SPECS[name].__dict__, "sinks": True})
    check(ragged(64, 2), spec, torch.float16)


@pytest.mark.parametrize("text", ["gla:128:2", "gta:32:8:128", "gqa:32:8:128"])
def test_a_hopper_gpu_takes_gluon_unasked(text: str) -> None:
    forest, spec = ragged(64, 1), AttentionSpec.parse(text)
    q, kv, _ = problem(forest, spec)
    plan = make_plan(forest, spec, Device.current())
    assert torch.equal(attend(q, kv, plan)[0], attend(q, kv, plan, backend="gluon")[0])


def test_plans_without_paired_tiles_go_to_triton_and_are_refused_by_name() -> None:
    forest, spec = ragged(64, 1), AttentionSpec.gqa(32, 8, 128)
    q, kv, _ = problem(forest, spec)
    plan = make_plan(forest, spec, replace(Device.current(), paired_tiling=None))
    assert torch.equal(attend(q, kv, plan)[0], attend(q, kv, plan, backend="triton")[0])
    with pytest.raises(NotImplementedError, match="takes plans of paired tiles"):
        attend(q, kv, plan, backend="gluon")


@pytest.mark.parametrize("name", ["gla-2", "mla"])
def test_a_captured_graph_serves_growing_leaves(name: str) -> None:
    spec = SPECS[name]
    kv = torch.randn(320, 64, spec.elements_per_token, device="cuda").bfloat16()
    start = np.array(GROWING_LENS)
    steps = [np.where(start > 0, start + step, 0) for step in range(1, 5)]
    assert_graph_serves(steps, spec, Device.current(), kv, page_size=64)
