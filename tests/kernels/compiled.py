"""What a script that compiles kernels for Hopper says of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

Figures = dict[str, dict[str, int]]


def compile_all(module: str) -> Figures:
    """Run a script in a process without Triton's interpreter; registers and more by kernel."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures: Figures = json.loads(done.stdout)
    return figures


def assert_fits_without_spills(figures: Figures) -> None:
    """No registers are spilled, all are written before they are read, and shared memory is what a
    multiprocessor of an H100 has."""
    lost = ("spilled", "unwritten", "stale")
    assert {n: figure for n, figure in figures.items() if any(figure[part] for part in lost)} == {}
    assert all(figure["shared"] <= 227 * 1024 for figure in figures.values())
