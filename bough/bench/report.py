"""What is left of a run: its figures as JSON, and where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bough.bench.clocks import clocks_for
from bough.bench.kernel import Row
from bough.bench.machine import describe_run
from bough.bench.plans import PlanRow
from bough.bench.problem import Setup
from bough.bench.ranks import RankRow
from bough.bench.roofline import Rates
from bough.bench.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run of a benchmark.

    Args:
        benchmark: `kernel`, `plan` or `ranks`.
        suite: the suite's name, None for workloads given by hand.
        settings: what all rows share, and where they were measured; plain JSON values.
        rows: the measurements.
        summary: what they say as a whole, where the benchmark has that.
    """

    benchmark: str
    suite: str | None
    settings: dict[str, Any]
    rows: Sequence[Row] | Sequence[PlanRow] | Sequence[RankRow]
    summary: Summary | None = None

    def write(self, path: Path) -> None:
        """Write JSON; the file appears whole or not at all."""
        facts = {"benchmark": self.benchmark, "suite": self.suite, **self.settings}
        if self.summary is not None:
            facts["summary"] = asdict(self.summary)
        facts["rows"] = [asdict(row) for row in self.rows]
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, path)


def rank_settings(device: str, num_ranks: int, close_seconds: float) -> dict[str, Any]:
    """Collect what all rows of `bough bench ranks` share.

    Args:
        device: `cuda` or `cpu`.
        num_ranks: that shared each model.
        close_seconds: that they took to end.
    """
    shared = {"ranks": num_ranks, "close_seconds": round(close_seconds, 3)}
    return describe_run(torch.device(device)) | shared


def run_settings(setup: Setup, rates: Rates | None) -> dict[str, Any]:
    """Collect what all rows of a run share.

    Args:
        setup: spec, device, dtype and page size.
        rates: the measured roofline, where the run has one.
    """
    here = torch.device(setup.device.torch_device if rates else "cpu")
    settings = describe_run(here) | {
        "spec": asdict(setup.spec),
        "planned_for": setup.device.name,
        "dtype": str(setup.dtype).removeprefix("torch."),
        "page_size": setup.page_size,
    }
    if rates is not None:
        settings["figures"] = clocks_for(here.type).descriptions
        settings["copy_gb_per_s"] = rates.bandwidth / 1e9
        settings["matmul_tflop_per_s"] = rates.matmul_rate / 1e12
    return settings
