"""`bough plan --explain`: the classes of tiles, the bounds, and on this machine the real times."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bough.bench.cases import Case
from bough.bench.explain import Measured, measure_plan, tile_classes
from bough.bench.problem import make_problem
from bough.cli.bench_options import DTYPES, read_setup
from bough.plan import Plan


def measured_here(plan: Plan, case: Case) -> Measured:
    """Time a step of a plan that was made for this machine, with random queries and KV.

    Args:
        plan: the plan.
        case: what it was made for, with a page size and a spec of its own.

    Raises:
        NotImplementedError: no backend serves it.
    """
    assert case.spec is not None and case.page_size is not None
    kind = plan.cost.device.torch_device.partition(":")[0]
    setup = read_setup(kind, case.spec, DTYPES[kind], case.page_size)
    return measure_plan(plan, make_problem(case, setup))


def explanation(plan: Plan, measured: Measured | None) -> RenderableType:
    """Return a table of tile classes, then bounds, expectation and measurement.

    Args:
        plan: the plan.
        measured: the same plan's step on this machine; None where it was not made for it.
    """
    table = Table(box=None, header_style="dim", pad_edge=False)
    titles = ("tile\nrows", "\nitems", "share of\nthe work", "rows\nused", "KV tokens\na tile")
    for title in (*titles, "cuts of\ntheir KV", "KV read\nMB", "expected\nus", "longest\nus"):
        table.add_column(title, justify="right", no_wrap=True)
    for found in tile_classes(plan):
        table.add_row(
            f"{found.height}",
            f"{found.num_items:,}",
            f"{found.share:.0%}",
            _span(found.rows),
            _span(found.tokens),
            f"{found.num_cuts}",
            f"{found.read_bytes / 1e6:,.1f}",
            f"{found.busy_us:,.1f}",
            f"{found.longest_us:,.1f}",
        )
    lines = [_line(name, text) for name, text in _totals(plan, measured)]
    return Group(table, Text(""), *lines)


def _totals(plan: Plan, measured: Measured | None) -> list[tuple[str, str]]:
    schedule = plan.schedule
    bound, merging = schedule.lower_bound * 1e6, schedule.seconds - schedule.makespan
    lines = [
        ("lower bound", f"{bound:,.1f} us, which no division of this work beats"),
        ("tiles", f"{schedule.makespan * 1e6:,.1f} us until the last worker is done"),
        ("merging", f"{merging * 1e6:,.1f} us for {schedule.num_partials:,} partials"),
        ("expected", f"{schedule.seconds * 1e6:,.1f} us"),
    ]
    if measured is not None:
        error = schedule.seconds * 1e6 / measured.us - 1
        lines.append(("measured", f"{measured.us:,.1f} us; expected {error:+.0%}"))
        lines += [("", f"{us:,.1f} us in {name}") for name, us in measured.kernels]
    return lines


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"{name:<12}", "bright_black"), text)


def _span(ends: tuple[int, int]) -> str:
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,}..{high:,}"
