"""Ours: `attend`, as one layer of many sees it."""

from __future__ import annotations

from bough.attend import attend
from bough.bench.contestant import Step
from bough.bench.problem import Problem
from bough.plan import make_plan


class Bough:
    """`attend` over a plan that is made outside the timing."""

    name = "bough"

    def refusal(self, problem: Problem) -> str | None:
        """Take part everywhere: a problem that no backend serves is an error."""
        return None

    def prepare(self, problem: Problem) -> Step:
        """Make the plan."""
        setup = problem.setup
        plan = make_plan(problem.forest, setup.spec, setup.device, itemsize=setup.itemsize)
        return Step(lambda: attend(problem.q, problem.kv, plan), lambda result: result[0])
