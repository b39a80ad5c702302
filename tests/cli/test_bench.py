from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bough.bench.suites import SUITES, TRACE
from bough.cli.app import app
from bough.cli.bench_options import Suite

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
    assert facts["summary"]["mean"].keys() == {"apart", "sdpa"}
    assert [(row["workload"], row["pages"]) for row in facts["rows"]] == [
        ("1,4|16,5", "in order"),
        ("1,4|16,5", "shuffled"),
        ("2|9", "in order"),
        ("2|9", "shuffled"),
    ]
    assert picture.exists()


def test_the_help_names_every_suite() -> None:
    (option,) = Suite.__metadata__
    names = option.help.removeprefix("Named cases: ").partition(" (")[0].replace("or ", "")
    assert sorted(names.split(", ")) == sorted([*SUITES, TRACE])


def test_forests_are_taken_out_of_a_trace(tmp_path: Path) -> None:
    trace, path = tmp_path / "chat.jsonl", tmp_path / "kernel.json"
    line = {"input_length": 600, "output_length": 4, "hash_ids": [1, 2]}
    trace.write_text(f"{json.dumps(line)}\n" * 6, encoding="utf-8")
    arguments = ["--trace", str(trace), "--concurrency", "2", "--repeats", "1"]
    arguments += ["--against", "sdpa", "--json", str(path)]
    result = CliRunner().invoke(app, ["bench", "kernel", *SMALL, *arguments])
    assert result.exit_code == 0, result.output
    facts = json.loads(path.read_text(encoding="utf-8"))
    assert facts["suite"] == "trace"
    assert facts["rows"][0]["case"] == "chat, 2 at 25%"
    assert all(row["unique_tokens"] < row["path_tokens"] for row in facts["rows"])


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--ncu"], "--ncu must be left out on the CPU"),
        (["--concurrency", "4"], "--concurrency must come with a --trace"),
        (["--against", "fa3"], "against must be of draft-nodes, plain, apart, sdpa, got 'fa3'"),
        (["--suite", "trace"], "--suite trace must come with a --trace FILE"),
        (["--suite", "all"], "suite must be one of cpu, codec"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], what: str) -> None:
    result = CliRunner().invoke(app, ["bench", "kernel", *SMALL, *arguments])
    assert result.exit_code != 0
    assert what in str(result.exception or result.output)


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
