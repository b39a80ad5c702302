"""`bough calibrate`: the rates and fixed costs of this machine, from its own kernels' times.

The copy bandwidth is measured as such, and so is what one worker reads: by a few long leaves, on so
few workers that each gets all it can take. All other numbers of a `Device` are fitted: small
forests, each of which leans on one of them (tall tiles, short tiles, partials, a merge and nothing
else), are planned, timed and compared with what the cost model expects of the very same schedules.
Twice, because better numbers make other plans.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bough.attend import attend
from bough.bench.cases import Case
from bough.bench.clocks import clocks_for
from bough.bench.fit import fit_positive
from bough.bench.machine import describe_run
from bough.bench.problem import Problem, Setup, make_problem
from bough.bench.roofline import measure_rates
from bough.bench.timing import time_alone
from bough.device import Device
from bough.plan import Plan, make_plan
from bough.plan.assign import assign
from bough.plan.cost import CostModel
from bough.plan.divide import merge_seconds
from bough.plan.schedule import Schedule

# By what they lean on; the page ids of all are scattered, as they are in a served pool.
PROBES = {
    "bandwidth": ("32|8192", "256|2048", "1,4|32768,4096"),
    "tall tiles": ("1,16|65536,16", "1,32|32768,16", "1,64|32768,16", "1,256|16384,16"),
    "roots beside leaves": ("1,64|65536,1024", "1,512|4096,128"),
    "dense roots": ("1,512|4096,16", "1,1024|2048,16", "1,256|8192,16 spec=mha:32:128"),
    "short tiles": ("1024|16", "1024|64", "512|128", "1,512|64,32", "1,8,512|32,256,64"),
    "partials": ("1,256|2048,128", "1,4,16,256|512,256,128,32", "1,2,4,8,16,32|512"),
    "merging": ("1|1024", "1|4096", "2|8192", "1,8|4000,16", "8|512"),
}
# Long leaves, one item each: what a worker reads where it has all the bandwidth it can take.
READERS = "4|32768 spec=gqa:32:8:128"
# Numbers of a `Device` that are fitted, where it has them.
FITTED = (
    "matmul_rate",
    "score_rate",
    "cache_bandwidth",
    "tile_seconds",
    "partial_seconds",
    "merge_seconds",
)
_ROUNDS = 2
_REPEATS = 9
# Weight of staying near the numbers at the start, for those that no probe tells apart.
_INERTIA = 1e-3
# Where the search begins for a cost that was believed to be nothing: a nanosecond.
_LEAST = 1e-9


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One forest under the numbers that were found.

    Args:
        kind: what it leans on.
        case: the forest.
        measured_us: microseconds of a step.
        expected_us: what the cost model says of the same schedule.
    """

    kind: str
    case: str
    measured_us: float
    expected_us: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was found on a machine.

    Args:
        before: the device as it was described.
        device: the same with the numbers that were found.
        probes: every forest of the last round.
    """

    before: Device
    device: Device
    probes: tuple[Probe, ...]

    @property
    def rates(self) -> dict[str, Any]:
        """The fields that were measured."""
        names = ("num_workers", "bandwidth", "worker_bandwidth", *fitted_names(self.device))
        return {name: getattr(self.device, name) for name in names}

    @property
    def mean_error(self) -> float:
        """Geometric mean of how far expectations are off, as a share."""
        return math.expm1(sum(_miss(probe) for probe in self.probes) / len(self.probes))

    @property
    def worst_error(self) -> float:
        """The largest of them."""
        return math.expm1(max(_miss(probe) for probe in self.probes))

    def write(self, path: Path, gpu: str) -> None:
        """Write all of it as JSON, with the machine and the versions."""
        facts = describe_run(torch.device(self.device.torch_device)) | {
            "gpu": gpu,
            "rates": self.rates,
            "probes": [asdict(probe) for probe in self.probes],
        }
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _miss(probe: Probe) -> float:
    return abs(math.log(probe.expected_us / probe.measured_us))


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedProbe:
    """One forest as it was measured.

    Args:
        kind: what it leans on.
        case: the forest.
        plan: the plan that was timed.
        seconds: of a step.
    """

    kind: str
    case: Case
    plan: Plan
    seconds: float


def calibrate(setup: Setup) -> Calibration:
    """Measure a machine.

    Args:
        setup: the machine, and the spec, dtype and page size of probes that name none.

    Raises:
        NotImplementedError: no backend serves the setup.
    """
    device = setup.device
    clock = clocks_for(device.torch_device).main
    copied = measure_rates(device.torch_device, setup.dtype, clock)
    found = replace(device, bandwidth=copied.bandwidth)
    found = replace(found, worker_bandwidth=_worker_bandwidth(replace(setup, device=found)))
    timed: list[TimedProbe] = []
    for _ in range(_ROUNDS):
        latest = _time_probes(replace(setup, device=found))
        timed += latest
        found = fit_device(found, timed)
    probes = tuple(
        Probe(
            kind=probe.kind,
            case=probe.case.name,
            measured_us=probe.seconds * 1e6,
            expected_us=expected_seconds(probe.plan, found) * 1e6,
        )
        for probe in latest
    )
    return Calibration(before=device, device=found, probes=probes)


def fitted_names(device: Device) -> list[str]:
    """Return the numbers of a device that are fitted."""
    return [name for name in FITTED if hasattr(device, name)]


def expected_seconds(plan: Plan, device: Device) -> float:
    """Return what a plan's schedule is expected to take on a device with other rates.

    Args:
        plan: the plan, made for a device of the same shape.
        device: the rates and fixed costs that count.
    """
    cost, schedule = replace(plan.cost, device=device), plan.schedule
    splits = cost.num_head_splits
    length = (schedule.segment_stop - schedule.segment_begin).astype(np.int64)
    tokens = np.add.reduceat(length, schedule.tile_segment_indptr[:-1])
    per_token = cost.per_token(schedule.tile_num_queries, _readers(schedule))
    factor = per_token.reading_factor(tokens, cost.least_reading_factor)
    of_tile = tokens * schedule.tile_num_heads / splits
    seconds = device.tile_seconds + per_token.seconds(factor) * of_tile
    tile = schedule.items // splits
    reading = (per_token.reading * of_tile)[tile] if factor < 1 else None
    makespan = assign(seconds[tile], cost.num_workers, reading).makespan
    return makespan + float(merge_seconds(np.asarray(schedule.num_partials), cost))


def _readers(schedule: Schedule) -> npt.NDArray[np.int64]:
    """[num_tiles] tiles that read a tile's last tokens, each for other queries."""
    last = schedule.tile_segment_indptr[1:] - 1
    ends = np.stack([schedule.segment_node[last], schedule.segment_stop[last]])
    _, at, count = np.unique(ends, axis=1, return_inverse=True, return_counts=True)
    return count[at.ravel()]


def _time_probes(setup: Setup) -> list[TimedProbe]:
    timed = []
    for kind, texts in PROBES.items():
        for text in texts:
            case = replace(Case.parse(text), is_shuffled=True)
            problem = make_problem(case, setup)
            plan, seconds = _time_plan(problem)
            timed.append(TimedProbe(kind=kind, case=case, plan=plan, seconds=seconds))
    return timed


def with_few_workers(setup: Setup, num_requests: int) -> Setup:
    """Leave a device as many workers as requests of one query have items, so that none is cut."""
    cost = CostModel(spec=setup.spec, device=setup.device, itemsize=setup.itemsize)
    num_items = num_requests * cost.num_head_splits // cost.least_heads
    return replace(setup, device=replace(setup.device, num_workers=num_items))


def _worker_bandwidth(setup: Setup) -> float:
    """Bytes per second of each worker where few read at once."""
    problem = make_problem(replace(Case.parse(READERS), is_shuffled=True), setup)
    few = with_few_workers(problem.setup, problem.forest.num_requests)
    plan, seconds = _time_plan(replace(problem, setup=few))
    reading = len(plan.schedule.items) * (seconds - setup.device.tile_seconds)
    return problem.kv_bytes / reading


def _time_plan(problem: Problem) -> tuple[Plan, float]:
    setup = problem.setup
    plan = make_plan(problem.forest, setup.spec, setup.device, itemsize=setup.itemsize)
    clock = clocks_for(setup.device.torch_device).main
    timing = time_alone(lambda: attend(problem.q, problem.kv, plan), clock, repeats=_REPEATS)
    return plan, timing.median


def fit_device(device: Device, timed: Sequence[TimedProbe]) -> Device:
    """Change the numbers of a device until it explains the times.

    Args:
        device: where to begin.
        timed: plans with their times.
    """
    names = fitted_names(device)
    start = _flatten(device, names)

    def error(numbers: Sequence[float]) -> float:
        tried = _with_numbers(device, names, numbers)
        misses = [math.log(expected_seconds(probe.plan, tried) / probe.seconds) for probe in timed]
        moved = [math.log(now / then) for now, then in zip(numbers, start, strict=True)]
        return sum(miss**2 for miss in misses) + _INERTIA * sum(move**2 for move in moved)

    return _with_numbers(device, names, fit_positive(start, error))


def _flatten(device: Device, names: Sequence[str]) -> list[float]:
    numbers: list[float] = []
    for name in names:
        value = getattr(device, name)
        numbers += value if isinstance(value, tuple) else [value]
    return [max(number, _LEAST) for number in numbers]


def _with_numbers(device: Device, names: Sequence[str], numbers: Sequence[float]) -> Device:
    rest = list(numbers)
    changed: dict[str, Any] = {}
    for name in names:
        value = getattr(device, name)
        if isinstance(value, tuple):
            changed[name] = tuple(rest.pop(0) for _ in value)
        else:
            changed[name] = rest.pop(0)
    return replace(device, **changed)
