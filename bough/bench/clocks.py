"""Which clock measures on which device: the wall's on a CPU, CUDA graphs and events on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bough.bench.timing import Clock, Run, WallClock

# Calls of short steps in one graph, and the seconds of eager calls that a graph may hold.
_MOST_CALLS = 8
_GRAPH_SECONDS = 4e-3
# Several times the L2 of any GPU.
FLUSH_BYTES = 256 << 20


class WarmClock:
    """Replays a CUDA graph of several calls twice and times the second: they find a warm L2."""

    description = (
        f"median of CUDA graphs of up to {_MOST_CALLS} calls, each replayed untimed just before: "
        "L2 warm as far as the step fits"
    )

    def arm(self, run: Run) -> Callable[[], float]:
        """Capture the calls; the returned function replays them."""
        num_calls = max(1, min(_MOST_CALLS, int(_GRAPH_SECONDS / _eager_seconds(run))))
        graph = _capture(run, num_calls)

        def measure() -> float:
            graph.replay()
            return _replay_seconds(graph) / num_calls

        return measure


class ColdClock:
    """Reads a large buffer, then times one replayed call, which finds nothing of its own in L2."""

    description = (
        f"median of CUDA graphs of one call, {FLUSH_BYTES >> 20} MiB of other data read before "
        "each: L2 cold; only the call is between the events"
    )

    def __init__(self, device: str) -> None:
        self._other = torch.zeros(FLUSH_BYTES // 4, device=device)
        self._sum = torch.zeros((), device=device)

    def arm(self, run: Run) -> Callable[[], float]:
        """Capture one call; the returned function empties the L2 and replays it."""
        _eager_seconds(run)
        graph = _capture(run, 1)

        def measure() -> float:
            torch.sum(self._other, dim=0, out=self._sum)
            return _replay_seconds(graph)

        return measure


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """How the steps of a run are timed.

    Args:
        main: the clock of all figures but the cold ones.
        cold: the clock whose calls find an empty L2; None where there is none.
        descriptions: what each figure of a `Score` is, by its name.
    """

    main: Clock
    cold: Clock | None
    descriptions: dict[str, str]


def clocks_for(device: str) -> Clocks:
    """Choose the clocks of a device.

    Args:
        device: as torch writes it.

    Raises:
        ValueError: no clock measures there.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return Clocks(main=WallClock(), cold=None, descriptions={"us": "median of wall times"})
    if kind != "cuda":
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    warm, cold = WarmClock(), ColdClock(device)
    descriptions = {"us": warm.description, "cold_us": cold.description}
    return Clocks(main=warm, cold=cold, descriptions=descriptions)


def _eager_seconds(run: Run) -> float:
    """Run twice outside a graph, so that all is compiled and set up, and time the second."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
        side.synchronize()
        began, ended = _new_events()
        began.record()
        run()
        ended.record()
        ended.synchronize()
    torch.cuda.current_stream().wait_stream(side)
    return began.elapsed_time(ended) / 1e3


def _capture(run: Run, num_calls: int) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(num_calls):
            run()
    return graph


def _replay_seconds(graph: torch.cuda.CUDAGraph) -> float:
    began, ended = _new_events()
    began.record()
    graph.replay()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1e3


def _new_events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
