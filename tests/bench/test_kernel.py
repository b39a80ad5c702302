from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from bough.bench.cases import Case
from bough.bench.contestant import Step
from bough.bench.kernel import Row, Score, bench_kernel
from bough.bench.ours import Bough
from bough.bench.plot import plot_kernel
from bough.bench.problem import Problem
from bough.bench.report import Report, run_settings
from bough.bench.sdpa import TorchSdpa
from bough.bench.table import kernel_table, left_out
from tests.bench.problems import RATES, setup_for


class AlwaysWrong:
    name = "wrong"

    def refusal(self, problem: Problem) -> str | None:
        return None

    def prepare(self, problem: Problem) -> Step:
        return Step(lambda: torch.zeros_like(problem.q), lambda out: out)


class AlwaysFailing(AlwaysWrong):
    name = "failing"

    def prepare(self, problem: Problem) -> Step:
        raise RuntimeError("no kernel for head size 16\nsecond line")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Two cases with a contestant that is wrong in both."""
    contestants = (Bough(), TorchSdpa(), AlwaysWrong())
    return [
        bench_kernel(Case.parse(text), setup_for(), RATES, repeats=2, contestants=contestants)
        for text in ("1,4|16,5", "2|9 shuffled")
    ]


def test_a_wrong_contestant_gets_no_figure(rows: list[Row]) -> None:
    wrong = rows[0].score("wrong")
    assert wrong.us is None
    assert wrong.error == pytest.approx(1.0)
    assert wrong.refusal is not None and wrong.refusal.startswith("wrong: error 1.0e+00")
    assert "wrong left out, wrong: error 1.0e+00" in left_out(rows)[0]


def test_a_peer_that_fails_is_left_out_with_its_reason() -> None:
    case, contestants = Case.parse("2|9"), (Bough(), AlwaysFailing())
    row = bench_kernel(case, setup_for(), RATES, repeats=1, contestants=contestants)
    assert row.score("failing").refusal == "failed: no kernel for head size 16"
    assert row.score("bough").us is not None


def test_figures_follow_from_the_median(rows: list[Row]) -> None:
    row = rows[0]
    ours, sdpa = row.score("bough"), row.score("sdpa")
    assert ours.us is not None and sdpa.us is not None and sdpa.times_ours is not None
    assert ours.gb_per_s == pytest.approx((row.kv_bytes + row.qo_bytes) / ours.us / 1e3)
    assert ours.tflop_per_s == pytest.approx(row.flops / ours.us / 1e6)
    assert ours.percent_of_roofline == pytest.approx(100 * row.roofline_us / ours.us)
    assert sdpa.times_ours == pytest.approx(sdpa.us / ours.us)
    assert (row.unique_tokens, row.path_tokens) == (36, 84)


def test_the_report_holds_what_a_reader_needs(rows: list[Row], tmp_path: Path) -> None:
    report = Report(
        benchmark="kernel", suite="cpu", settings=run_settings(setup_for(), RATES), rows=rows
    )
    path = tmp_path / "kernel.json"
    report.write(path)
    facts = json.loads(path.read_text(encoding="utf-8"))
    wanted = "benchmark suite date commit device threads versions spec dtype page_size"
    assert facts["figures"] == {"us": "median of wall times"}
    assert {*wanted.split(), "copy_gb_per_s", "matmul_tflop_per_s"} <= facts.keys()
    assert [row["pages"] for row in facts["rows"]] == ["in order", "shuffled"]
    assert {score["name"] for score in facts["rows"][0]["scores"]} == {"bough", "sdpa", "wrong"}
    assert [file.name for file in path.parent.iterdir()] == ["kernel.json"]


def test_the_table_names_every_workload(rows: list[Row]) -> None:
    console = Console(width=100, file=StringIO())
    with console.capture() as capture:
        console.print(kernel_table(rows))
    assert "1,4|16,5" in capture.get()
    assert "2|9 shuffled" in capture.get()


def test_a_case_may_have_a_page_size_and_a_spec_of_its_own() -> None:
    case = Case.parse("2|9 page=2 spec=mha:4:8 queries=3")
    row = bench_kernel(case, setup_for(), RATES, repeats=1, contestants=(Bough(),))
    assert (row.case, row.page_size, row.spec, row.query_len) == (case.name, 2, "mha:4:8", 3)
    assert row.kv_bytes == 18 * 2 * 4 * 8 * 4
    assert row.scores[0].refusal is None


def test_a_contestant_that_is_in_no_case_is_named_once(rows: list[Row]) -> None:
    absent = Score(name="peer", refusal="cannot be imported")
    ours = [replace(row, scores=(*row.scores[:2], absent)) for row in rows]
    assert left_out(ours) == ["every workload: peer left out, cannot be imported"]


def test_the_picture_is_written(rows: list[Row], tmp_path: Path) -> None:
    settings = run_settings(setup_for(), RATES)
    report = Report(benchmark="kernel", suite=None, settings=settings, rows=rows)
    plot_kernel(report, tmp_path / "kernel.png")
    assert (tmp_path / "kernel.png").read_bytes().startswith(b"\x89PNG")
