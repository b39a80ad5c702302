"""Figures for people: tables in the terminal."""

from __future__ import annotations

from statistics import geometric_mean

from rich.table import Table
from rich.text import Text

from bough.bench.kernel import Row, Score
from bough.bench.plans import PlanRow


def kernel_table(rows: list[Row]) -> Table:
    """Return rows of `bough bench kernel` as a table: one line a case, peers side by side."""
    names = [score.name for score in rows[0].scores]
    table = _new_table()
    titles = ["reads\nsaved", "roofline\nus", *(f"{name}\nus" for name in names)]
    titles += [f"vs\n{name}" for name in names[1:]]
    has_cold = any(row.scores[0].cold_us is not None for row in rows)
    titles += [f"{names[0]}\ncold us"] * has_cold
    for title in (*titles, "\nGB/s", "% of\nroofline", "plan\nus"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        ours = row.score(names[0])
        shuffled = " shuffled" if row.pages == "shuffled" else ""
        table.add_row(
            Text(row.workload + shuffled),
            f"{row.path_tokens / max(1, row.unique_tokens):.1f}x",
            f"{row.roofline_us:,.0f}",
            *(_number(row.score(name).us) for name in names),
            *(_ratio(row.score(name)) for name in names[1:]),
            *[_number(ours.cold_us)] * has_cold,
            _number(ours.gb_per_s, 1),
            _number(ours.percent_of_roofline),
            f"{row.plan_us:,.0f}",
        )
    return table


def left_out(rows: list[Row]) -> list[str]:
    """Return a line for each contestant that was not timed in a case, one where in none."""
    cases: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for score in row.scores:
            if score.refusal is not None:
                cases.setdefault((score.name, score.refusal), []).append(row.workload)
    return [
        f"{workload}: {name} left out, {refusal}"
        for (name, refusal), workloads in cases.items()
        for workload in (workloads if len(workloads) < len(rows) else ["every workload"])
    ]


def summary(rows: list[Row]) -> list[str]:
    """Return one line a peer: the geometric mean of its times over ours."""
    lines = []
    for name in [score.name for score in rows[0].scores[1:]]:
        ratios = [ratio for row in rows if (ratio := row.score(name).times_ours) is not None]
        if ratios:
            mean = geometric_mean(ratios)
            lines.append(f"{name}: {mean:.2f}x our time, geometric mean of {len(ratios)}")
    return lines


def plan_table(rows: list[PlanRow]) -> Table:
    """Return the rows of `bough bench plan` as a table."""
    table = _new_table()
    titles = ("\nnodes", "re-\nquests", "table\nus", "plan\nus", "update\nus", "\ntiles")
    for title in (*titles, "makespan\nus", "over\nbound"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.workload),
            f"{row.num_nodes:,}",
            f"{row.num_requests:,}",
            _number(row.table_us),
            f"{row.plan_us:,.0f}",
            f"{row.update_us:,.0f}" + ("" if row.is_kept else " anew"),
            f"{row.num_tiles:,}",
            f"{row.makespan_us:,.1f}",
            f"{row.times_lower_bound:.3f}x",
        )
    return table


def _new_table() -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("\nworkload", overflow="fold")
    return table


def _ratio(score: Score) -> Text:
    if score.times_ours is None:
        return Text("-")
    return Text(f"{score.times_ours:.2f}x", style="green" if score.times_ours >= 1 else "red")


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
