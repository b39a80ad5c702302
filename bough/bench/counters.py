"""`--ncu`: the bytes that one step moves, counted by the hardware, at memory and at the L2.

ncu runs `bough.bench.profiled` in a process of its own, which does one step of each contestant
in each case; the steps are told apart by a marker kernel that runs before each.
"""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bough.bench.cases import Case
from bough.bench.kernel import Row
from bough.bench.problem import Setup
from bough.expect import expect

# A sector is what the L2 hands out at a time.
_SECTOR_BYTES = 32
_READ = "dram__bytes_read.sum"
_WRITTEN = "dram__bytes_write.sum"
# Sectors that multiprocessors ask for; one asked for by several at once through multicast
# counts once. Few enough metrics for one pass, so that no kernel is repeated on a warm L2.
_SECTORS = "lts__t_sectors_srcunit_tex.sum"
# Clocks are left alone, and caches as the program left them: it empties the L2 itself.
_OPTIONS = (
    *("--profile-from-start", "off", "--clock-control", "none", "--cache-control", "none"),
    *("--csv", "--page", "raw", "--print-units", "base"),
    *("--metrics", ",".join((_READ, _WRITTEN, _SECTORS))),
)
# The kernel of `torch.cuda._sleep`, which stands before each step.
MARKER = "spin_kernel"


class Job(NamedTuple):
    """What the counted process does.

    Attributes:
        cases: the forests.
        setup: spec, device, dtype and page size.
        names: contestants besides ours.
        steps: a file to which it writes the (case, contestant) of each step, in order.
    """

    cases: Sequence[Case]
    setup: Setup
    names: Sequence[str]
    steps: Path


class Traffic(NamedTuple):
    """Bytes of one step.

    Attributes:
        dram: read from and written to memory.
        l2: that multiprocessors asked of the L2.
    """

    dram: int
    l2: int


def find_ncu() -> str:
    """Return the path of ncu.

    Raises:
        ValueError: it is not installed.
    """
    found = shutil.which("ncu")
    expect(found is not None, "--ncu", "left out where ncu is not on the PATH", "--ncu")
    assert found is not None
    return found


def count_traffic(
    cases: Sequence[Case], setup: Setup, names: Sequence[str]
) -> dict[tuple[int, str], Traffic]:
    """Count the bytes of one step of ours and of some peers in each case.

    Args:
        cases: the forests.
        setup: spec, device, dtype and page size.
        names: contestants besides ours.

    Returns:
        Bytes by (index of the case, contestant), without those that take no part in a case.

    Raises:
        ValueError: ncu is not installed, or cannot count here.
    """
    ncu = find_ncu()
    with tempfile.TemporaryDirectory() as folder:
        job, log, steps = (Path(folder) / name for name in ("job", "log", "steps"))
        job.write_bytes(pickle.dumps(Job(cases, setup, names, steps)))
        program = [sys.executable, "-m", "bough.bench.profiled", str(job)]
        command = [ncu, *_OPTIONS, "--log-file", str(log), *program]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        said = [*lines, *done.stderr.splitlines()]
        complaints = [line for line in said if "ERROR" in line or "Error" in line] or said[-1:]
        expect(done.returncode == 0, "ncu", "able to count here", " ".join(complaints[-3:]))
        entries = [(case, name) for case, name in json.loads(steps.read_text(encoding="utf-8"))]
        return dict(zip(entries, sum_kernels(lines), strict=True))


def sum_kernels(lines: Iterable[str]) -> list[Traffic]:
    """Add up the kernels of each step, in the order of the steps.

    Args:
        lines: what ncu logged; a table of comma-separated values among its own remarks.
    """
    table = list(csv.DictReader(line for line in lines if line.startswith('"')))
    steps: list[Traffic] = []
    for row in table[1:]:  # the first holds the units
        if MARKER in row["Kernel Name"]:
            steps.append(Traffic(0, 0))
            continue
        read, written, sectors = (
            int(float(row[name].replace(",", ""))) for name in (_READ, _WRITTEN, _SECTORS)
        )
        before = steps.pop()
        steps.append(Traffic(before.dram + read + written, before.l2 + sectors * _SECTOR_BYTES))
    return steps


def with_traffic(rows: Sequence[Row], traffic: dict[tuple[int, str], Traffic]) -> list[Row]:
    """Write counted bytes into the scores of the cases they belong to."""
    return [
        replace(
            row,
            scores=tuple(
                replace(score, dram_bytes=found.dram, l2_bytes=found.l2)
                if (found := traffic.get((index, score.name)))
                else score
                for score in row.scores
            ),
        )
        for index, row in enumerate(rows)
    ]
