"""`bough bench`: figures of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bough.cli.bench_kernel import kernel
from bough.cli.bench_options import DTYPES, Json, PageSize, Spec, Suite, Workloads, read_setup
from bough.cli.bench_ranks import ranks
from bough.cli.errors import check_outputs

if TYPE_CHECKING:
    from bough.bench.plans import PlanRow

bench = typer.Typer(
    no_args_is_help=True,
    help="Measure attention, the planner, and what ranks that share a model store.",
)
bench.command()(kernel)
bench.command()(ranks)


@bench.command()
def plan(
    device: Annotated[
        str, typer.Option(help="Machine to plan for: h100, h200, cpu or cuda.")
    ] = "h100",
    suite: Suite = None,
    workload: Workloads = None,
    spec: Spec = "gqa:32:8:128",
    page_size: PageSize = 16,
    json: Json = None,
) -> None:
    """Time the planner on the host: forest from a page table, plan from scratch, update.

    Without --suite and --workload: all named forests, and 1024 requests of 8192 pages.

    Examples:

        bough bench plan --json out/plan.json

        bough bench plan --suite pat --spec gqa:64:8:128

        bough bench plan --workload "1,1024|2048,32" --device cpu
    """
    from bough.bench.plans import PLAN_SUITE, bench_plan
    from bough.bench.report import Report, run_settings
    from bough.bench.suites import read_cases
    from bough.bench.table import plan_table

    check_outputs(json=json)
    setup = read_setup(device, spec, DTYPES.get(device, "bfloat16"), page_size)
    texts = workload or ([] if suite else list(PLAN_SUITE))
    cases = read_cases(suite, texts, query_len=1, is_shuffled=False)
    rows: list[PlanRow] = []
    with Console(stderr=True).status("planning") as status:
        for case in cases:
            status.update(f"{len(rows)} of {len(cases)} done, planning {case.name}")
            rows.append(bench_plan(case, setup))
    Console().print(plan_table(rows))
    if json is not None:
        settings = run_settings(setup, None)
        Report(benchmark="plan", suite=suite, settings=settings, rows=rows).write(json)
