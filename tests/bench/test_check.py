from __future__ import annotations

import pytest
import torch

from bough.attend import attend
from bough.bench.check import TOLERANCE, consult_oracle
from bough.plan import make_plan
from tests.bench.problems import problem_of


def test_the_oracle_answers_for_every_query_of_a_small_problem() -> None:
    problem = problem_of("1,3|6,5", query_len=2)
    oracle = consult_oracle(problem)
    assert oracle.queries.tolist() == list(range(6))
    plan = make_plan(problem.forest, problem.spec, problem.setup.device)
    out, _ = attend(problem.q, problem.kv, plan, backend="reference")
    assert torch.equal(oracle.out, out)


def test_the_oracle_answers_for_first_last_and_some_between_of_a_large_one() -> None:
    oracle = consult_oracle(problem_of("1,64|4000,3", "mqa:1:4"))
    assert 2 < len(oracle.queries) < 64
    assert oracle.queries[0] == 0
    assert oracle.queries[-1] == 63


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rounding_to_the_dtype_passes_and_one_wrong_head_does_not(dtype: torch.dtype) -> None:
    oracle = consult_oracle(problem_of("1,3|6,5", dtype=dtype))
    out = oracle.out.to(dtype, copy=True)
    assert oracle.error(out) <= TOLERANCE[dtype]
    out[1, 2] *= 1.2
    assert oracle.error(out) > TOLERANCE[dtype]


def test_nan_is_never_within_tolerance() -> None:
    oracle = consult_oracle(problem_of("1,3|6,5"))
    out = oracle.out.clone()
    out[0, 0, 0] = torch.nan
    assert not oracle.error(out) <= TOLERANCE[torch.float32]
