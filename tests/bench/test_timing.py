from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bough.bench.timing import Timing, WallClock, time_in_turns


class Recorder:
    """Answers with the seconds that the run itself returns."""

    def arm(self, run: Callable[[], Any]) -> Callable[[], float]:
        return lambda: float(run())


def test_contestants_run_in_turn_and_warm_up_rounds_do_not_count() -> None:
    order: list[str] = []
    answers = {"a": iter([100.0, 1.0, 3.0, 2.0]), "b": iter([100.0, 5.0, 5.0, 8.0])}

    def run(name: str) -> Callable[[], float]:
        return lambda: order.append(name) or next(answers[name])

    runs = {name: run(name) for name in answers}
    timings = time_in_turns(runs, Recorder(), repeats=3, warmups=1)
    assert order == ["a", "b"] * 4
    assert timings["a"] == Timing(median=2.0, low=1.0, high=3.0)
    assert timings["b"] == Timing(median=5.0, low=5.0, high=8.0)


def test_the_wall_clock_runs_once() -> None:
    calls: list[int] = []
    assert WallClock().seconds(lambda: calls.append(1)) >= 0
    assert calls == [1]


def test_no_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        time_in_turns({}, WallClock(), repeats=0)
