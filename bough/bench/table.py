"""Figures for people: tables in the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from bough.bench.kernel import Row, Score, timed_names
from bough.bench.plans import PlanRow
from bough.bench.ranks import RankRow
from bough.bench.summary import fa3_counted

# So that no word of a named case is broken.
_CASE_WIDTH = 18


def kernel_table(rows: list[Row]) -> Table:
    """Return rows of `bough bench kernel` as a table: one line a case, peers side by side.

    Behind a peer's time stands how many times ours it is.
    """
    ours, *others = timed_names(rows)
    has_cold = any(row.scores[0].cold_us is not None for row in rows)
    table = _new_table()
    titles = ["reads\nsaved", "roofline\nus", f"{ours}\nus", *[f"{ours}\ncold us"] * has_cold]
    titles += ["% of\nroofline", "\nGB/s", "\nTFLOP/s", *(f"{name}\nus" for name in others)]
    for title in (*titles, "plan\nus"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        score = row.score(ours)
        table.add_row(
            Text(row.case),
            f"{row.path_tokens / max(1, row.unique_tokens):.1f}x",
            _number(row.roofline_us, 1),
            _number(score.us, 1),
            *[_number(score.cold_us, 1)] * has_cold,
            _number(score.percent_of_roofline),
            _number(score.gb_per_s),
            _number(score.tflop_per_s, 1),
            *(_compared(row.score(name)) for name in others),
            f"{row.plan_us:,.0f}",
        )
    return table


def traffic_table(rows: list[Row]) -> Table:
    """Return the bytes that ncu counted in ours and in FlashAttention-3, and their ratio."""
    ours = rows[0].scores[0].name
    table = _new_table()
    for level in ("memory", "L2"):
        for title in (f"{ours}\n{level} MB", "times\nunique", f"fa3\n{level} MB"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("re-\nduction", justify="right", no_wrap=True)
    for row in rows:
        own, theirs = row.scores[0], fa3_counted(row)
        their_dram, their_l2 = (theirs.dram_bytes, theirs.l2_bytes) if theirs else (None, None)
        unique = row.kv_bytes + row.qo_bytes
        table.add_row(
            Text(row.case),
            *_level(own.dram_bytes, their_dram, unique),
            *_level(own.l2_bytes, their_l2, unique),
        )
    return table


def _level(own: int | None, theirs: int | None, unique: int) -> tuple[str, str, str, str]:
    return (
        _number(own and own / 1e6, 1),
        "-" if own is None else f"{own / unique:.2f}x",
        _number(theirs and theirs / 1e6, 1),
        "-" if not own or not theirs else f"{theirs / own:.1f}x",
    )


def left_out(rows: list[Row]) -> list[str]:
    """Return a line for each contestant that was not timed in a case, one where in none."""
    cases: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for score in row.scores:
            if score.refusal is not None:
                cases.setdefault((score.name, score.refusal), []).append(row.case)
    return [
        f"{workload}: {name} left out, {refusal}"
        for (name, refusal), workloads in cases.items()
        for workload in (workloads if len(workloads) < len(rows) else ["every workload"])
    ]


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


def rank_table(rows: list[RankRow]) -> Table:
    """Return the rows of `bough bench ranks` as a table; KV bytes are a token's in one layer."""
    table = _new_table("model")
    titles = ("tokens\nequal", "KV bytes\nalone", "KV bytes\neach", "\npaper's")
    for title in (*titles, "ms/step\nalone", "ms/step\ntogether"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(f"{row.model} {row.dtype}"),
            f"{row.num_equal} of {row.num_tokens}",
            _number(row.kv_bytes_alone),
            " ".join(_number(found) for found in row.kv_bytes),
            _number(row.published_kv_bytes),
            _number(row.step_ms_alone, 2),
            _number(row.step_ms, 2),
        )
    return table


def _new_table(subject: str = "workload") -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column(f"\n{subject}", overflow="fold", min_width=_CASE_WIDTH)
    return table


def _compared(score: Score) -> Text:
    if score.us is None:
        return Text("-")
    style = "green" if (score.times_ours or 0) >= 1 else "red"
    ratio = "" if score.times_ours is None else f" {score.times_ours:.2f}x"
    return Text.assemble(_number(score.us, 1), (ratio, style))


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
