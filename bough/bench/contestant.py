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
    """

    run: Callable[[], Any]
    output: Callable[[Any], torch.Tensor]


class Contestant(Protocol):
    """An implementation of decode attention."""

    name: str

    def refusal(self, problem: Problem) -> str | None:
        """Say why it cannot take part here; None where it can."""
        ...

    def prepare(self, problem: Problem) -> Step:
        """Do everything that is not timed: plans, layouts of its own, buffers."""
        ...
