"""The process that `bough.bench.counters` runs under ncu: one step of each contestant and case."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from bough.bench.clocks import FLUSH_BYTES
from bough.bench.contestants import choose
from bough.bench.counters import Job
from bough.bench.problem import make_problem


def main(path: Path) -> None:
    """Do the steps of a job, written by `pickle` for this process alone."""
    job: Job = pickle.loads(path.read_bytes())
    other = torch.zeros(FLUSH_BYTES // 4, device=job.setup.device.torch_device)
    steps = list(_run(job, other))
    job.steps.write_text(json.dumps(steps), encoding="utf-8")


def _run(job: Job, other: torch.Tensor) -> Iterator[tuple[int, str]]:
    profiler = torch.cuda.cudart()
    for index, case in enumerate(job.cases):
        problem = make_problem(case, job.setup)
        for contestant in choose(job.setup.device.torch_device, job.names):
            if contestant.refusal(problem) is not None:
                continue
            step = contestant.prepare(problem)
            step.run()
            # What the step itself reads must come from memory, as in the midst of a model.
            other.sum()
            torch.cuda.synchronize()
            profiler.cudaProfilerStart()
            torch.cuda._sleep(1)
            step.run()
            torch.cuda.synchronize()
            profiler.cudaProfilerStop()
            yield index, contestant.name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
