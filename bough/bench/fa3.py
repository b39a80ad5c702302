"""FlashAttention-3, as vLLM ships it: every request on its own, over the shared pages."""

from __future__ import annotations

import torch

from bough.bench.contestant import Step
from bough.bench.operators import load_operators
from bough.bench.paged import refuse_paged, request_tables
from bough.bench.problem import Problem

# The extension by itself, then inside a whole installation.
_MODULES = ("_vllm_fa3_C", "vllm.vllm_flash_attn._vllm_fa3_C")


class FlashAttention3:
    """One varlen call with a scheduler's metadata, made outside the timing as an engine does."""

    name = "fa3"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse where the library is absent, and what it cannot read."""
        if load_operators(*_MODULES) is None:
            return "vLLM's FlashAttention-3 cannot be imported"
        return refuse_paged(problem)

    def prepare(self, problem: Problem) -> Step:
        """Write the page table and ask the library for its schedule."""
        spec, forest, q = problem.spec, problem.forest, problem.q
        key, value = problem.plain_kv
        tables = request_tables(forest)
        counts = torch.from_numpy(forest.query_indptr).int()
        table, lengths, indptr = (
            array.to(q.device) for array in (tables.pages, tables.lengths, counts)
        )
        num_requests, most = forest.num_requests, int(tables.lengths.max())
        most_queries = int(counts.diff().max())
        is_causal = most_queries > 1
        # Arguments as in the library's own interface; None, -1 and 0 leave a feature off.
        metadata = load_operators(*_MODULES).get_scheduler_metadata(
            *(num_requests, most_queries, most, spec.num_q_heads, spec.num_kv_heads),
            *(spec.qk_dim, spec.v_dim, q.dtype, lengths, indptr, None, None, None, None),
            *(problem.setup.page_size, 0, is_causal, -1, -1, False, 0, None, 0),
        )
        out = torch.empty(len(q), spec.num_q_heads, spec.v_dim, dtype=q.dtype, device=q.device)

        def run() -> torch.Tensor:
            return load_operators(*_MODULES).fwd(
                *(q, key, value, None, None, None, out, indptr, None, None, None, lengths),
                *(most_queries, most, table, None, None, None, None, None, None, None, None),
                *(spec.scale, is_causal, -1, -1, 0.0, True, metadata, 0, None, 0),
                *(None, 1, 0, None),
            )[0]

        return Step(run, lambda result: result)
