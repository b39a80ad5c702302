"""Why a plan looks as it does: what each class of tiles is expected to take, and what it took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
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
        num_items: how many they are, all head splits counted.
        num_cuts: runs of KV into which their blocks of queries are cut, most of any block.
        rows: fewest and most query rows of a tile.
        tokens: fewest and most KV tokens of a tile.
        read_bytes: KV bytes that they read, each once a tile.
        busy_us: expected time if all workers shared them evenly.
        longest_us: expected time of the longest.
    """

    height: int
    num_items: int
    num_cuts: int
    rows: tuple[int, int]
    tokens: tuple[int, int]
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
    splits = schedule.num_head_splits
    num_rows = schedule.tile_num_queries.astype(np.int64) * cost.spec.group_size
    height = tile_heights(plan)
    tokens = np.add.reduceat(
        (schedule.segment_stop - schedule.segment_begin).astype(np.int64),
        schedule.tile_segment_indptr[:-1],
    )
    cuts = _cuts(plan)
    classes = []
    for at in sorted(set(height.tolist()), reverse=True):
        here = height == at
        seconds = schedule.tile_seconds[here]
        classes.append(
            TileClass(
                height=at,
                num_items=int(here.sum()) * splits,
                num_cuts=int(cuts[here].max()),
                rows=(int(num_rows[here].min()), int(num_rows[here].max())),
                tokens=(int(tokens[here].min()), int(tokens[here].max())),
                read_bytes=cost.spec.kv_bytes(int(tokens[here].sum()), cost.itemsize),
                busy_us=float(seconds.sum()) * splits / cost.device.num_workers * 1e6,
                longest_us=float(seconds.max()) * 1e6,
            )
        )
    return classes


def tile_heights(plan: Plan) -> np.ndarray:
    """[num_tiles] rows at which each tile is computed, padding included."""
    quantum = plan.cost.device.row_quantum
    rows = plan.schedule.tile_num_queries.astype(np.int64) * plan.cost.spec.group_size
    return -(-rows // quantum) * quantum


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


def _cuts(plan: Plan) -> np.ndarray:
    """[num_tiles] tiles that have the same queries: the runs into which their KV is cut."""
    begin, count = plan.schedule.tile_query_begin, plan.schedule.tile_num_queries
    _, block, sizes = np.unique(
        np.stack([begin, count]), axis=1, return_inverse=True, return_counts=True
    )
    return sizes[block.ravel()]


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
