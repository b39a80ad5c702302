from __future__ import annotations

from dataclasses import replace

import pytest

from bough.bench.cases import Case
from bough.bench.kernel import Row, Score, bench_kernel
from bough.bench.ours import Bough
from bough.bench.summary import summarise, summary_lines
from tests.bench.problems import RATES, setup_for


@pytest.fixture(scope="module")
def measured() -> Row:
    case = Case.parse("1,2|8,4")
    return bench_kernel(case, setup_for(), RATES, repeats=1, contestants=(Bough(),))


def with_times(row: Row, case: str, ours: float, **others: float | None) -> Row:
    """The row of a case in which contestants took these microseconds."""
    parsed = Case.parse(case)
    scores = [Score(name="bough", us=ours, times_ours=1.0)]
    scores += [
        Score(name=name, us=us, times_ours=None if us is None else us / ours)
        for name, us in others.items()
    ]
    return replace(
        row,
        case=case,
        workload=parsed.workload,
        page_size=parsed.page_size or 4,
        scores=tuple(scores),
        predicted_us=100.0,
    )


def test_means_are_geometric_and_over_the_cases_that_have_a_figure(measured: Row) -> None:
    rows = [
        with_times(measured, "1|4", 100, fa3=200, flex=None),
        with_times(measured, "1|5", 100, fa3=800, flex=None),
    ]
    assert summarise(rows).mean == {"fa3": pytest.approx(4.0)}


def test_the_best_peer_of_each_case_counts_and_sharing_off_is_no_peer(measured: Row) -> None:
    rows = [
        with_times(measured, "1|4", 100, apart=50, fa3=400, flex=200),
        with_times(measured, "1|5", 100, apart=50, fa3=80, flex=200),
    ]
    summary = summarise(rows)
    assert summary.mean_best == pytest.approx((2.0 * 0.8) ** 0.5)
    assert summary.worst_best is not None
    assert (summary.worst_best.case, summary.worst_best.other) == ("1|5", "fa3")
    assert summary.worst_best.times == pytest.approx(1.25)


def test_losses_are_against_the_better_of_fa3_and_sharing_off(measured: Row) -> None:
    rows = [
        with_times(measured, "1|4", 103, apart=100, fa3=400),
        with_times(measured, "1|5", 100, apart=120, fa3=98),
    ]
    summary = summarise(rows)
    assert summary.worst_alone is not None
    assert (summary.worst_alone.case, summary.worst_alone.other) == ("1|4", "apart")
    assert summary.worst_alone.times == pytest.approx(1.03)
    assert summarise([with_times(measured, "1|4", 103, fa3=400)]).worst_alone is None
    latents = with_times(measured, "1|4", 103, apart=100)
    latents = replace(latents, scores=(*latents.scores, Score(name="fa3-latent", us=90.0)))
    worst = summarise([latents]).worst_alone
    assert worst is not None and worst.other == "fa3-latent"


def test_page_sizes_of_one_forest_are_compared(measured: Row) -> None:
    rows = [
        with_times(measured, "1|4 page=16", 100),
        with_times(measured, "1|4 page=1", 104),
        with_times(measured, "1|5 page=1", 300),
    ]
    (pages,) = summarise(rows).pages
    assert (pages.case, pages.page_size) == ("1|4 page=1", 16)
    assert pages.times == pytest.approx(1.04)


def test_the_prediction_that_is_off_by_most_is_named(measured: Row) -> None:
    rows = [with_times(measured, "1|4", 80), with_times(measured, "1|5", 110)]
    summary = summarise(rows)
    assert summary.plan_error is not None
    assert (summary.plan_error.case, summary.plan_error.times) == ("1|4", pytest.approx(0.25))


def test_counted_bytes_are_compared_at_both_levels(measured: Row) -> None:
    row = with_times(measured, "1|4", 100, fa3=200)
    assert summarise([row]).fewer_bytes == {}
    ours, fa3 = row.scores
    counted = (
        replace(ours, dram_bytes=10, l2_bytes=20),
        replace(fa3, dram_bytes=40, l2_bytes=200),
    )
    fewer = summarise([replace(row, scores=counted)]).fewer_bytes
    assert fewer == {"memory": pytest.approx(4), "L2": pytest.approx(10)}


def test_every_figure_has_a_line(measured: Row) -> None:
    rows = [
        with_times(measured, "1|4 page=16", 100, apart=100, fa3=250),
        with_times(measured, "1|4 page=1", 104, apart=100, fa3=250),
    ]
    lines = summary_lines(summarise(rows))
    assert [line.partition(":")[0] for line in lines] == [
        "apart",
        "fa3",
        "best peer of each case",
        "against the better of fa3 and apart",
        "1|4 page=1",
        "predicted times",
    ]
