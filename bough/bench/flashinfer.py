"""FlashInfer: its batched decode, request by request, and its cascade over the levels of a tree."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from bough.bench.contestant import Step
from bough.bench.paged import cascade_levels, refuse_paged, request_tables
from bough.bench.problem import Problem

_WORKSPACE_BYTES = 512 << 20


class FlashInferDecode:
    """`BatchDecodeWithPagedKVCacheWrapper` on tensor cores, planned outside the timing."""

    name = "flashinfer"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse where the package is absent, and what its decode cannot read."""
        return _refuse_absent() or refuse_paged(problem) or _refuse_long_queries(problem)

    def prepare(self, problem: Problem) -> Step:
        """Write page indices and plan."""
        spec, q, page_size = problem.spec, problem.q, problem.setup.page_size
        tables = request_tables(problem.forest)
        counts = (tables.lengths + page_size - 1) // page_size
        is_used = torch.arange(tables.pages.shape[1]) < counts[:, None]
        indptr = torch.zeros(len(counts) + 1, dtype=torch.int32)
        indptr[1:] = counts.cumsum(0)
        wrapper = _package().BatchDecodeWithPagedKVCacheWrapper(
            _workspace(q.device), "NHD", use_tensor_cores=True, backend="fa2"
        )
        wrapper.plan(
            *(indptr.to(q.device), tables.pages[is_used].to(q.device)),
            ((tables.lengths - 1) % page_size + 1).to(q.device),
            *(spec.num_q_heads, spec.num_kv_heads, spec.v_dim, page_size),
            sm_scale=spec.scale,
            q_data_type=q.dtype,
            kv_data_type=q.dtype,
        )
        out = torch.empty_like(q)
        return Step(lambda: wrapper.run(q, problem.plain_kv, out=out), lambda result: result)


class FlashInferCascade:
    """`MultiLevelCascadeAttentionWrapper`, a level a depth, planned outside the timing."""

    name = "cascade"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse where the package is absent, and forests that are no cascade."""
        refused = _refuse_absent() or refuse_paged(problem) or _refuse_long_queries(problem)
        if refused:
            return refused
        levels = cascade_levels(problem.forest)
        if levels is None:
            return "takes trees whose leaves lie at one depth only"
        return "nothing is shared" if len(levels) == 1 else None

    def prepare(self, problem: Problem) -> Step:
        """Write the levels and plan."""
        spec, q = problem.spec, problem.q
        levels = cascade_levels(problem.forest) or []
        wrapper = _package().MultiLevelCascadeAttentionWrapper(
            len(levels), _workspace(q.device), "NHD"
        )
        wrapper.plan(
            *([array.to(q.device) for array in arrays] for arrays in zip(*levels, strict=True)),
            *(spec.num_q_heads, spec.num_kv_heads, spec.v_dim, problem.setup.page_size),
            sm_scale=spec.scale,
            q_data_type=q.dtype,
            kv_data_type=q.dtype,
        )
        return Step(lambda: wrapper.run(q, problem.plain_kv), lambda result: result)


@cache
def _package() -> Any:
    return import_module("flashinfer")


def _refuse_absent() -> str | None:
    return None if find_spec("flashinfer") else "flashinfer cannot be imported"


def _refuse_long_queries(problem: Problem) -> str | None:
    has_one = problem.forest.num_queries == problem.forest.num_requests
    return None if has_one else "takes one query a request"


def _workspace(device: torch.device) -> torch.Tensor:
    return torch.zeros(_WORKSPACE_BYTES, dtype=torch.uint8, device=device)
