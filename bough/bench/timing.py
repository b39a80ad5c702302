"""How a step is timed: contestants in turn, so that a busy machine hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Run = Callable[[], Any]


class Clock(Protocol):
    """Measures calls on some device."""

    def arm(self, run: Run) -> Callable[[], float]:
        """Get ready to measure a run.

        Returns:
            A function that lets it run again and returns the seconds that one call took until
            its results were there.
        """
        ...


class WallClock:
    """For work that is done when the call returns."""

    def arm(self, run: Run) -> Callable[[], float]:
        """Return a function that times one call."""
        return lambda: self.seconds(run)

    def seconds(self, run: Run) -> float:
        """Time one call."""
        began = time.perf_counter()
        run()
        return time.perf_counter() - began


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one call over many repeats.

    Args:
        median: what is reported.
        low: the fastest repeat.
        high: the slowest repeat.
    """

    median: float
    low: float
    high: float


def time_in_turns(
    runs: Mapping[str, Run], clock: Clock, *, repeats: int, warmups: int = 2
) -> dict[str, Timing]:
    """Time each run `repeats` times, one of each in every round.

    On a CPU each finds the caches as another left them, so what fits into a cache is still read
    from memory, as it is in a decode step, where other layers come between.

    Args:
        runs: what to time, by name.
        clock: how a call is timed.
        repeats: timed rounds.
        warmups: rounds before them.

    Raises:
        ValueError: `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    armed = {name: clock.arm(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(warmups + repeats):
        for name, measure in armed.items():
            seconds[name].append(measure())
    return {name: _timing(taken[warmups:]) for name, taken in seconds.items()}


def time_alone(run: Run, clock: Clock, *, repeats: int, warmups: int = 2) -> Timing:
    """Time one run `repeats` times."""
    return time_in_turns({"": run}, clock, repeats=repeats, warmups=warmups)[""]


def _timing(seconds: list[float]) -> Timing:
    return Timing(median=statistics.median(seconds), low=min(seconds), high=max(seconds))
