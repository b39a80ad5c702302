"""What an implementation of decode attention must provide to be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from bough.bench.problem import Problem


class Step(NamedTuple):
    """One contestant, set up for one problem.

    Attributes:
        run: does one step; this alone is timed.
        output: turns what `run` returned into [num_queries, num_q_heads, v_dim].
        is_fp8: whether it reads KV in fp8; then it is checked against the same values.
    """

    run: Callable[[], Any]
    output: Callable[[Any], torch.Tensor]
    is_fp8: bool = False


class Contestant(Protocol):
    """An implementation of decode attention."""

    name: str

    def refusal(self, problem: Problem) -> str | None:
        """Say why it cannot take part here; None where it can."""
        ...

    def prepare(self, problem: Problem) -> Step:
        """Do everything that is not timed: plans, layouts of its own, buffers."""
        ...
