"""`bough plan`: a forest and its plan as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bough.cli.bench_options import DTYPES
from bough.cli.errors import check_outputs


def plan(
    forest: Annotated[str, typer.Argument(help="'nodes per level | tokens per node'.")],
    spec: Annotated[
        str, typer.Option(help="Attention variant, such as gqa:32:8:128 or mla:128.")
    ] = "gqa:32:8:128",
    device: Annotated[
        str, typer.Option(help="Machine to plan for: h100, h200, cpu or cuda.")
    ] = "h100",
    page_size: Annotated[int, typer.Option(help="Tokens per page.")] = 16,
    query_len: Annotated[
        int, typer.Option(help="Newest tokens of each request that are queries.")
    ] = 1,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show each class of tiles with its expected time, and measure where the plan is "
            "for this machine.",
        ),
    ] = False,
    png: Annotated[Path | None, typer.Option(help="Draw the picture into this file too.")] = None,
) -> None:
    """Show how a forest of shared prefixes is divided into tiles and dealt to workers.

    FOREST is written level by level: '1,16|4096,128' is one prefix of 4096 tokens with 16 leaves
    of 128; '8,64|512,32' are eight such trees; '1,2,4|1024' gives each level 1024 tokens a node.
    Nothing is computed, so any machine can be planned for; only --explain runs a step where the
    plan is for this very machine, cuda or cpu.

    Examples:

        bough plan "1,16|4096,128"

        bough plan "1,4,16,512|1024,256,128,32" --spec gqa:64:8:128 --png out/plan.png

        bough plan "1,64|8192,256" --spec mla:128 --query-len 2

        bough plan "1,64|120000,2048" --device cuda --explain
    """
    from bough.cli.plan_tree import load_chart, plan_tree
    from bough.device import Device
    from bough.plan import make_plan
    from bough.spec import AttentionSpec
    from bough.workloads import forest_from_text

    check_outputs(png=png)
    made = make_plan(
        forest_from_text(forest, page_size, query_len=query_len),
        AttentionSpec.parse(spec),
        Device.named(device),
    )
    title = f"{forest}   {spec}   {device}"
    console = Console()
    console.print(plan_tree(made, title))
    console.print()
    console.print(load_chart(made))
    console.print()
    console.print(made.describe(), markup=False, highlight=False, soft_wrap=True)
    if explain:
        from bough.bench.cases import Case
        from bough.cli.plan_explain import explanation, measured_here

        case = Case(workload=forest, query_len=query_len, page_size=page_size, spec=spec)
        measured = measured_here(made, case) if device in DTYPES else None
        console.print()
        console.print(explanation(made, measured))
    if png is not None:
        from bough.cli.plan_picture import draw_plan

        draw_plan(made, title, png)
