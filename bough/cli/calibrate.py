"""`bough calibrate`: measure this GPU's rates once, for every plan that is made on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bough.cli.errors import check_outputs

if TYPE_CHECKING:
    from bough.bench.calibrate import Calibration


def calibrate(
    spec: Annotated[
        str, typer.Option(help="Attention variant that is timed where a probe names none.")
    ] = "gqa:32:8:128",
    keep: Annotated[
        bool, typer.Option(help="Keep what is found in the user's cache, for later plans.")
    ] = True,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write what is found to this file too.")
    ] = None,
) -> None:
    """Measure the GPU's bandwidth, its rates and the fixed costs of tiles, partials and merges.

    Some twenty small forests are planned and timed, and the numbers of the cost model are fitted
    to their times. Takes less than a minute. The result is kept for this GPU and for this version
    of the kernels; `--no-keep` only shows it. H100 and H200 need no calibration: their rates ship
    with the package.

    Examples:

        bough calibrate

        bough calibrate --no-keep --json out/rates.json
    """
    import torch

    from bough.bench.calibrate import calibrate as measure
    from bough.cli.bench_options import read_setup
    from bough.rates import store_rates

    check_outputs(json=json)
    setup = read_setup("cuda", spec, "bfloat16", 16)
    gpu = torch.cuda.get_device_name(setup.device.torch_device)
    with Console(stderr=True).status("timing forests, twice"):
        found = measure(setup)
    console = Console()
    console.print(_rates_table(found))
    console.print()
    console.print(_probe_table(found))
    console.print(f"off by {found.mean_error:.0%} on average, {found.worst_error:.0%} at worst")
    if json is not None:
        found.write(json, gpu)
    if keep:
        console.print(f"kept in {store_rates(gpu, found.rates)}", soft_wrap=True, highlight=False)


def _rates_table(found: Calibration) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("")
    for title in ("before", "found"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, value in found.rates.items():
        table.add_row(name, _text(getattr(found.before, name)), _text(value))
    return table


def _probe_table(found: Calibration) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("leans on")
    table.add_column("forest", overflow="fold")
    for title in ("measured us", "expected us", "off by"):
        table.add_column(title, justify="right", no_wrap=True)
    for probe in found.probes:
        error = f"{probe.expected_us / probe.measured_us - 1:+.0%}"
        times = f"{probe.measured_us:,.1f}", f"{probe.expected_us:,.1f}"
        table.add_row(probe.kind, probe.case, *times, error)
    return table


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_text(one) for one in value)
    return str(value) if isinstance(value, int) else f"{value:.4g}"
