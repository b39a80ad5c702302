from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from bough.cli.app import app

SMALL = ["--spec", "gqa:4:2:16", "--page-size", "4"]


def test_kernels_are_measured_by_hand_written_workloads(tmp_path: Path) -> None:
    path, picture = tmp_path / "new" / "kernel.json", tmp_path / "kernel.png"
    arguments = ["--workload", "1,4|16,5", "--workload", "2|9", "--shuffled", "--repeats", "1"]
    outputs = ["--json", str(path), "--png", str(picture)]
    result = CliRunner().invoke(app, ["bench", "kernel", *SMALL, *arguments, *outputs])
    assert result.exit_code == 0, result.output
    facts = json.loads(path.read_text(encoding="utf-8"))
    assert facts["copy_gb_per_s"] > 0
    assert facts["matmul_tflop_per_s"] > 0
    assert [(row["workload"], row["pages"]) for row in facts["rows"]] == [
        ("1,4|16,5", "in order"),
        ("1,4|16,5", "shuffled"),
        ("2|9", "in order"),
        ("2|9", "shuffled"),
    ]
    assert picture.exists()


def test_a_device_without_kernels_is_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "kernel", "--device", "h100"])
    assert result.exit_code != 0
    assert "device must be cpu or cuda, got 'h100'" in str(result.exception or result.output)


def test_the_planner_is_measured_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    arguments = ["--workload", "1,16|64,12", "--json", str(path)]
    result = CliRunner().invoke(app, ["bench", "plan", *arguments])
    assert result.exit_code == 0, result.output
    facts = json.loads(path.read_text(encoding="utf-8"))
    assert facts["planned_for"] == "h100"
    assert facts["dtype"] == "bfloat16"
    assert facts["rows"][0]["num_requests"] == 16
