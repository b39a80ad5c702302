"""`bough bench`: figures of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bough.cli.errors import check_outputs

if TYPE_CHECKING:
    from bough.bench.kernel import Row
    from bough.bench.plans import PlanRow
    from bough.bench.problem import Setup

bench = typer.Typer(
    no_args_is_help=True,
    help="Measure attention and the planner: every contestant, the roofline beside each.",
)

# What decode is measured in where nothing is said.
_DTYPES = {"cpu": "float32", "cuda": "bfloat16"}

Workloads = Annotated[
    list[str] | None,
    typer.Option(
        "--workload",
        help="A forest as 'nodes per level | tokens per node'; ' shuffled' behind it scatters "
        "its pages. May be given several times.",
    ),
]
Suite = Annotated[
    str | None,
    typer.Option(help="Named forests: cpu, codec, pat, fasttree, no-loss, rollouts or trees."),
]
Spec = Annotated[str, typer.Option(help="Attention variant, such as gqa:32:8:128 or mla:128.")]
PageSize = Annotated[int, typer.Option(help="Tokens per page.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")]
Png = Annotated[Path | None, typer.Option(help="Draw the figures into this file.")]


@bench.command()
def kernel(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    suite: Suite = None,
    workload: Workloads = None,
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
    repeats: Annotated[int, typer.Option(help="Timed calls of each contestant.")] = 15,
    json: Json = None,
    png: Png = None,
) -> None:
    """Time one layer's decode attention against its peers, in turn, in one run.

    On cuda: FlashAttention-3, FlashInfer's decode and its cascade take part wherever they import,
    and all are timed in CUDA graphs, with a warm L2 and with a cold one.
    Every output is checked against the fp64 reference first; a wrong contestant gets no figure,
    and if it is ours the exit code is 1.
    The roofline is this machine's own: its copy bandwidth and matmul rate, measured in the
    same run.

    Examples:

        bough bench kernel --suite cpu --json out/cpu.json --png out/cpu.png

        bough bench kernel --workload "1,16|8192,128" --workload "16|2048 shuffled"

        bough bench kernel --workload "1,8|4096,512" --spec mla:16 --dtype bfloat16

        bough bench kernel --device cuda --suite trees --json out/trees.json
    """
    from bough.bench.cases import read_cases
    from bough.bench.clocks import clocks_for
    from bough.bench.kernel import bench_kernel
    from bough.bench.report import Report, run_settings
    from bough.bench.roofline import measure_rates
    from bough.bench.table import kernel_table, left_out, summary

    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    check_outputs(json=json, png=png)
    suite = suite if suite or workload else {"cpu": "cpu", "cuda": "trees"}[device]
    setup = _setup(device, spec, dtype or _DTYPES[device], page_size)
    cases = read_cases(suite, workload or [], query_len=query_len, is_shuffled=shuffled)
    rows: list[Row] = []
    with Console(stderr=True).status("measuring the roofline") as status:
        clocks = clocks_for(setup.device.torch_device)
        rates = measure_rates(setup.device.torch_device, setup.dtype, clocks.main)
        for case in cases:
            status.update(f"{len(rows)} of {len(cases)} done, measuring {case.name}")
            rows.append(bench_kernel(case, setup, rates, repeats=repeats))
    console = Console()
    console.print(kernel_table(rows))
    for line in summary(rows):
        console.print(line, highlight=False)
    for line in left_out(rows):
        console.print(line, style="yellow", highlight=False)
    settings = run_settings(setup, rates)
    report = Report(benchmark="kernel", suite=suite, settings=settings, rows=rows)
    if json is not None:
        report.write(json)
    if png is not None:
        from bough.bench.plot import plot_kernel

        plot_kernel(report, png)
    if any(row.scores[0].refusal for row in rows):
        raise typer.Exit(1)


@bench.command()
def plan(
    device: Annotated[str, typer.Option(help="Machine to plan for: h100, cpu or cuda.")] = "h100",
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
    from bough.bench.cases import read_cases
    from bough.bench.plans import PLAN_SUITE, bench_plan
    from bough.bench.report import Report, run_settings
    from bough.bench.table import plan_table

    check_outputs(json=json)
    setup = _setup(device, spec, _DTYPES.get(device, "bfloat16"), page_size)
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


def _setup(device: str, spec: str, dtype: str, page_size: int) -> Setup:
    import torch

    from bough.bench.problem import Setup
    from bough.device import Device
    from bough.spec import AttentionSpec

    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in dtypes:
        raise ValueError(f"dtype must be one of {', '.join(dtypes)}, got {dtype!r}")
    return Setup(
        spec=AttentionSpec.parse(spec),
        device=Device.named(device),
        dtype=dtypes[dtype],
        page_size=page_size,
    )
