"""Is it right? Outputs against the oracle, before anything is timed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from bough.attend import attend
from bough.bench.problem import Problem
from bough.kv import KV
from bough.plan import make_plan

# The oracle takes about a microsecond for a KV token on a CPU, tens of queries a second.
_MOST_TOKENS = 1 << 16
# But the first and the last query, and one between.
_LEAST_QUERIES = 3
# Largest error of a query head, relative to the norm of its output.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@dataclass(frozen=True, kw_only=True, eq=False)
class Oracle:
    """What some of the queries must give.

    Args:
        queries: [n] which queries.
        out: [n, num_q_heads, v_dim] fp32, computed in fp64 by the reference backend.
    """

    queries: torch.Tensor
    out: torch.Tensor

    def error(self, out: torch.Tensor) -> float:
        """Return the largest relative error of a query head; NaN where the output holds one."""
        miss = (out[self.queries.to(out.device)].float() - self.out).norm(dim=-1)
        return float((miss / self.out.norm(dim=-1)).max())


def consult_oracle(problem: Problem, kv: KV | None = None) -> Oracle:
    """Compute queries spread evenly over the forest, as many as can be had quickly.

    Args:
        problem: the case.
        kv: what is attended; its `plain_kv` when None.
    """
    forest, setup = problem.forest, problem.setup
    longest = max(1, int(forest.query_position.max(initial=0)) + 1)
    count = min(forest.num_queries, max(_LEAST_QUERIES, _MOST_TOKENS // longest))
    chosen = np.unique(np.linspace(0, forest.num_queries - 1, count).round().astype(np.int64))
    some = replace(
        forest,
        query_indptr=np.arange(len(chosen) + 1, dtype=np.int32),
        query_node=forest.query_node[chosen],
        query_position=forest.query_position[chosen],
        query_hidden=None if forest.query_hidden is None else forest.query_hidden[chosen],
    )
    plan = make_plan(some, setup.spec, setup.device, itemsize=setup.itemsize)
    queries = torch.from_numpy(chosen)
    q = problem.q[queries.to(problem.q.device)].float()
    kv = problem.plain_kv if kv is None else kv
    out, _ = attend(q, kv, plan, backend="reference")
    return Oracle(queries=queries, out=out)


class Oracles:
    """What a problem's queries must give on its KV as it was drawn, and as it is in fp8.

    Args:
        problem: the case.
    """

    def __init__(self, problem: Problem) -> None:
        self.plain = consult_oracle(problem, problem.plain_kv)
        is_fp8 = problem.setup.is_fp8
        self.quantized = consult_oracle(problem, problem.kv) if is_fp8 else self.plain
