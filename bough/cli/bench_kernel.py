"""`bough bench kernel`: one layer's attention, ours and every peer's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bough.cli.bench_options import (
    DTYPES,
    Json,
    PageSize,
    Png,
    Spec,
    Suite,
    Workloads,
    read_setup,
)
from bough.cli.errors import check_outputs

if TYPE_CHECKING:
    from bough.bench.cases import Case
    from bough.bench.contestant import Contestant
    from bough.bench.kernel import Row
    from bough.bench.problem import Setup
    from bough.bench.roofline import Rates
    from bough.bench.summary import Summary

# Whose bytes are counted beside ours.
_COUNTED = ("fa3", "fa3-latent")
# Requests of a trace that decode together where nothing is said.
_CONCURRENCY = 64


def kernel(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    suite: Suite = None,
    workload: Workloads = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="A trace of requests as JSON lines: measure forests taken out of it."),
    ] = None,
    concurrency: Annotated[
        list[int] | None,
        typer.Option(help="Requests of the trace that decode together; 64. May be repeated."),
    ] = None,
    spec: Spec = "gqa:32:8:128",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float16 or bfloat16; by default bfloat16 on cuda, else float32."
        ),
    ] = None,
    page_size: PageSize = 16,
    query_len: Annotated[int, typer.Option(help="Newest tokens a request that are queries.")] = 1,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Measure every forest with shuffled pages too.")
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Only this contestant beside ours, such as fa3. May be repeated."),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed calls of each contestant.")] = 15,
    ncu: Annotated[
        bool, typer.Option("--ncu", help="Count bytes at memory and L2 too, with Nsight Compute.")
    ] = False,
    json: Json = None,
    png: Png = None,
) -> None:
    """Time one layer's decode attention against its peers, in turn, in one run.

    Contestants: ours, ours with sharing off (apart), torch's SDPA request by request; on cuda also
    FlexAttention over the packed forest, and FlashAttention-3, FlashInfer's decode and its cascade
    wherever they import, all in CUDA graphs, with a warm L2 and with a cold one.
    Every output is checked against the fp64 reference first; a wrong contestant gets no figure,
    and if it is ours the exit code is 1.
    The roofline is this machine's own: its copy bandwidth and matmul rate, measured in the
    same run.

    Examples:

        bough bench kernel --suite cpu --json out/cpu.json --png out/cpu.png

        bough bench kernel --workload "1,16|8192,128" --workload "16|2048 shuffled page=1"

        bough bench kernel --workload "1,8|4096,512" --spec mla:16 --dtype bfloat16

        bough bench kernel --device cuda --suite codec --against fa3 --ncu --json out/codec.json

        bough bench kernel --device cuda --trace FILE.jsonl --concurrency 16 --concurrency 64
    """
    from bough.bench.clocks import clocks_for
    from bough.bench.contestants import choose
    from bough.bench.counters import find_ncu
    from bough.bench.report import Report, run_settings
    from bough.bench.roofline import measure_rates
    from bough.bench.summary import summarise

    if device not in DTYPES:
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    if ncu:
        if device == "cpu":
            raise ValueError("--ncu must be left out on the CPU, got --device cpu")
        find_ncu()
    check_outputs(json=json, png=png)
    suite = suite if suite or workload or trace else {"cpu": "cpu", "cuda": "trees"}[device]
    contestants = choose(device, against)
    setup = read_setup(device, spec, dtype or DTYPES[device], page_size)
    cases = _read_cases(suite, workload or [], trace, concurrency, query_len, shuffled)
    with Console(stderr=True).status("measuring the roofline"):
        clocks = clocks_for(setup.device.torch_device)
        rates = measure_rates(setup.device.torch_device, setup.dtype, clocks.main)
    rows = _measure(cases, setup, rates, contestants, repeats)
    if ncu:
        rows = _count(cases, setup, rows)
    summary = summarise(rows)
    report = Report(
        benchmark="kernel",
        suite=suite or ("trace" if trace else None),
        settings=run_settings(setup, rates),
        rows=rows,
        summary=summary,
    )
    if json is not None:
        report.write(json)
    if png is not None:
        from bough.bench.plot import plot_kernel

        plot_kernel(report, png)
    _show(rows, summary, has_traffic=ncu)
    if any(row.scores[0].refusal for row in rows):
        raise typer.Exit(1)


def _read_cases(
    suite: str | None,
    workloads: list[str],
    trace: Path | None,
    concurrency: list[int] | None,
    query_len: int,
    is_shuffled: bool,
) -> list[Case]:
    from bough.bench.suites import TRACE, read_cases
    from bough.bench.trace import trace_cases

    if suite == TRACE:
        if trace is None:
            raise ValueError("--suite trace must come with a --trace FILE, got none")
        suite = None
    cases = read_cases(suite, workloads, query_len=query_len, is_shuffled=is_shuffled)
    if trace is None:
        if concurrency:
            raise ValueError(f"--concurrency must come with a --trace, got {concurrency} alone")
        return cases
    return [*cases, *trace_cases(trace, concurrency or [_CONCURRENCY])]


def _measure(
    cases: list[Case],
    setup: Setup,
    rates: Rates,
    contestants: Sequence[Contestant],
    repeats: int,
) -> list[Row]:
    from bough.bench.kernel import bench_kernel

    rows: list[Row] = []
    with Console(stderr=True).status("") as status:
        for case in cases:
            status.update(f"{len(rows)} of {len(cases)} done, measuring {case.name}")
            row = bench_kernel(case, setup, rates, repeats=repeats, contestants=contestants)
            rows.append(row)
    return rows


def _count(cases: list[Case], setup: Setup, rows: list[Row]) -> list[Row]:
    from bough.bench.counters import count_traffic, with_traffic

    with Console(stderr=True).status(f"counting the bytes of {len(cases)} cases"):
        return with_traffic(rows, count_traffic(cases, setup, _COUNTED))


def _show(rows: list[Row], summary: Summary, *, has_traffic: bool) -> None:
    from bough.bench.summary import summary_lines
    from bough.bench.table import kernel_table, left_out, traffic_table

    console = Console()
    console.print(kernel_table(rows))
    if has_traffic:
        console.print()
        console.print(traffic_table(rows))
    for line in summary_lines(summary):
        console.print(line, highlight=False)
    for line in left_out(rows):
        console.print(line, style="yellow", highlight=False)
