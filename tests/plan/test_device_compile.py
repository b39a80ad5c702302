"""The device planner's kernels compile for Hopper without a GPU, and spill no registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_no_kernel_of_the_planner_spills_registers_on_sm_90() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.plan.compile_device"],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout)
    assert len(figures) == 9
    assert {name: figure for name, figure in figures.items() if figure["spilled"]} == {}
