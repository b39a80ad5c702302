"""Why a plan looks as it does: what each class of tiles is expected to take, and what it took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from bough.attend import attend
from bough.bench.clocks import clocks_for
from bough.bench.problem import Problem
from bough.bench.timing import time_alone
from bough.plan import Plan

_REPEATS = 9


class TileClass(NamedTuple):
    """Tiles of one height.

    Attributes:
        height: query rows at which they are computed.
        num_items: how many they are, each on one stored head or several.
        share: of the work of all tiles.
        rows: fewest and most query rows of a tile.
        tokens: fewest and most KV tokens of a tile.
        num_cuts: runs of KV into which their queries' work is cut, most of any.
        read_bytes: KV bytes that they read, each once a tile.
        busy_us: expected time if all workers shared them evenly.
        longest_us: expected time of the longest.
    """

    height: int
    num_items: int
    share: float
    rows: tuple[int, int]
    tokens: tuple[int, int]
    num_cuts: int
    read_bytes: int
    busy_us: float
    longest_us: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a step took on this machine, warm, as `bough bench kernel` times it.

    Args:
        us: microseconds of the whole step.
        kernels: microseconds of each kernel of the step, in the order of their start, without
            what launches cost; empty on a CPU.
    """

    us: float
    kernels: tuple[tuple[str, float], ...]


def tile_classes(plan: Plan) -> list[TileClass]:
    """Sum a plan's tiles up by height, tallest first."""
    schedule, cost = plan.schedule, plan.cost
    tile = schedule.items // schedule.num_head_splits
    place = cost.tile_class(schedule.tile_num_queries[tile])
    heights = reversed(list(enumerate(cost.tile_heights)))
    return [
        _tile_class(plan, height, np.flatnonzero(place == at))
        for at, height in heights
        if (place == at).any()
    ]


def _tile_class(plan: Plan, height: int, items: npt.NDArray[np.intp]) -> TileClass:
    schedule, cost = plan.schedule, plan.cost
    seconds = schedule.item_seconds[items]
    tile = np.unique(schedule.items[items] // schedule.num_head_splits)
    rows = schedule.tile_num_queries[tile] * cost.spec.group_size
    length = (schedule.segment_stop - schedule.segment_begin).astype(np.int64)
    tokens = np.add.reduceat(length, schedule.tile_segment_indptr[:-1])[tile]
    _, cuts = np.unique(schedule.tile_query_begin[tile], return_counts=True)
    return TileClass(
        height=height,
        num_items=len(seconds),
        share=float(seconds.sum() / schedule.item_seconds.sum()),
        rows=(int(rows.min()), int(rows.max())),
        tokens=(int(tokens.min()), int(tokens.max())),
        num_cuts=int(cuts.max()),
        read_bytes=cost.spec.kv_bytes(int(tokens.sum()), cost.itemsize),
        busy_us=float(seconds.sum()) / cost.device.num_workers * 1e6,
        longest_us=float(seconds.max()) * 1e6,
    )


def measure_plan(plan: Plan, problem: Problem) -> Measured:
    """Time one step of a plan, and on a GPU each of its kernels.

    Args:
        plan: the plan.
        problem: what it was made for.
    """

    def run() -> None:
        attend(problem.q, problem.kv, plan)

    run()
    clock = clocks_for(problem.setup.device.torch_device).main
    us = time_alone(run, clock, repeats=_REPEATS).median * 1e6
    is_gpu = problem.q.device.type == "cuda"
    return Measured(us=us, kernels=_kernel_times(run) if is_gpu else ())


def _kernel_times(run: Callable[[], None]) -> tuple[tuple[str, float], ...]:
    """Trace one warm step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as trace:
        run()
        run()
        torch.cuda.synchronize()
    kernels = [
        event
        for event in trace.events() or []
        if event.device_type == torch.autograd.DeviceType.CUDA and event.device_time > 0
    ]
    kernels.sort(key=lambda event: event.time_range.start)
    last = kernels[len(kernels) // 2 :]
    return tuple((event.name, float(event.device_time)) for event in last)
