"""Peers on latents: FlashMLA and FlashAttention-3, as vLLM ships them, request by request."""

from __future__ import annotations

from typing import Any

import torch

from bough.bench.contestant import Step
from bough.bench.operators import load_operators
from bough.bench.paged import NO_TREES, page_table_of, request_tables
from bough.bench.problem import Problem

# Each extension by itself, then inside a whole installation.
_FLASHMLA = ("_flashmla_C", "vllm._flashmla_C")
_FA3 = ("_vllm_fa3_C", "vllm.vllm_flash_attn._vllm_fa3_C")
_FLASHMLA_DIMS = (1, 512, 64)
_FLASHMLA_PAGE = 64


class FlashMla:
    """Its dense decode; the schedule of the first call serves all others, as in its own wrapper."""

    name = "flashmla"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse where the library is absent, and what it cannot read."""
        spec, forest = problem.spec, problem.forest
        if load_operators(*_FLASHMLA) is None:
            return "vLLM's FlashMLA cannot be imported"
        if (spec.num_kv_heads, spec.v_dim, spec.rope_dim) != _FLASHMLA_DIMS:
            return "takes one latent of 512 columns and rotary keys of 64"
        if forest.page_size != _FLASHMLA_PAGE:
            return f"takes pages of {_FLASHMLA_PAGE}, got {forest.page_size}"
        if forest.num_queries % forest.num_requests:
            return "takes as many queries of one request as of any other"
        return refuse_latents(problem)

    def prepare(self, problem: Problem) -> Step:
        """Write the page table and let the first call make the schedule."""
        spec, forest = problem.spec, problem.forest
        tables = request_tables(forest)
        pages, lengths = (array.to(problem.q.device) for array in tables)
        q = problem.q.unflatten(0, (forest.num_requests, -1))
        kv = _one_tensor(problem)[:, :, None]
        is_causal = q.shape[1] > 1
        made: list[Any] = [None, None]

        def run() -> torch.Tensor:
            out, _, *schedule = load_operators(*_FLASHMLA).dense_decode_fwd(
                *(q, kv, spec.v_dim, lengths, pages, spec.scale, is_causal, *made, None)
            )
            if made[0] is None:
                made[:] = schedule
            return out

        return Step(run, lambda out: out.flatten(0, 1))


class FlashAttention3Latent:
    """Its `qv` argument: rotary keys are keys, latents are values and the rest of the keys."""

    name = "fa3-latent"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse where the library is absent, and what it cannot read."""
        spec = problem.spec
        if load_operators(*_FA3) is None:
            return "vLLM's FlashAttention-3 cannot be imported"
        if not spec.tied or (spec.v_dim, spec.rope_dim) not in ((256, 64), (512, 64)):
            return "takes latents of 256 or 512 columns and rotary keys of 64"
        return refuse_latents(problem)

    def prepare(self, problem: Problem) -> Step:
        """Write the page table and ask the library for its schedule."""
        spec, forest, q = problem.spec, problem.forest, problem.q
        tables = request_tables(forest)
        counts = torch.from_numpy(forest.query_indptr).int()
        pages, lengths, indptr = (
            array.to(q.device) for array in (tables.pages, tables.lengths, counts)
        )
        most, most_queries = int(tables.lengths.max()), int(counts.diff().max())
        states, rope = _one_tensor(problem).split(
            [spec.num_kv_heads * spec.v_dim, spec.rope_dim], dim=2
        )
        states = states.unflatten(2, (spec.num_kv_heads, spec.v_dim))
        rope = rope[:, :, None].expand(-1, -1, spec.num_kv_heads, -1)
        q_nope, q_rope = (half.contiguous() for half in q.split([spec.nope_dim, spec.rope_dim], 2))
        is_causal = most_queries > 1
        # Arguments as in the library's own interface; None, -1 and 0 leave a feature off.
        metadata = load_operators(*_FA3).get_scheduler_metadata(
            *(forest.num_requests, most_queries, most, spec.num_q_heads, spec.num_kv_heads),
            *(spec.rope_dim, spec.v_dim, q.dtype, lengths, indptr, None, None, None, None),
            *(forest.page_size, 0, is_causal, -1, -1, False, 0, None, 0),
        )
        out = q.new_empty(len(q), spec.num_q_heads, spec.v_dim)

        def run() -> torch.Tensor:
            return load_operators(*_FA3).fwd(
                *(q_rope, rope, states, None, None, q_nope, out, indptr, None, None, None),
                *(lengths, most_queries, most, pages, *[None] * 8),
                *(spec.scale, is_causal, -1, -1, 0.0, True, metadata, 0, None, 0),
                *(None, 1, 0, None),
            )[0]

        return Step(run, lambda result: result)


def refuse_latents(problem: Problem) -> str | None:
    """Say what a peer on latents in page tables cannot read; None where it can."""
    if not problem.spec.tied or problem.spec.nope_dim != problem.spec.v_dim:
        return "takes latents"
    if problem.q.dtype not in (torch.float16, torch.bfloat16):
        return f"takes float16 and bfloat16, not {problem.setup.dtype}"
    if problem.forest.query_hidden is not None:
        return NO_TREES
    if page_table_of(problem.forest) is None:
        return "an inner node ends inside a page, which a page table cannot say"
    return None


def _one_tensor(problem: Problem) -> torch.Tensor:
    assert isinstance(problem.plain_kv, torch.Tensor)
    return problem.plain_kv
