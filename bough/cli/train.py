"""`bough train`: a small model from Python source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def train(
    output: Annotated[Path, typer.Argument(help="Checkpoint folder to make.")],
    size: Annotated[str, typer.Option(help="tiny (seconds on a CPU) or demo.")] = "tiny",
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall time of the whole run, in place of --steps.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; the GPU where there is one.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="Folder of Python files; this interpreter's standard library if none."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the windows and the dropout.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace OUTPUT if it exists.")] = False,
) -> None:
    """Train a tokenizer and a small Llama-architecture model on Python source.

    The folder holds what Hugging Face's AutoModelForCausalLM and AutoTokenizer read.

    Examples:

        bough train out/tiny

        bough train out/stdlib-gqa --size demo --minutes 6 --device cuda

        bough train out/mine --source src --steps 500 --overwrite
    """
    from bough.train import TrainConfig
    from bough.train import train as run

    changes = {"steps": steps, "minutes": minutes, "device": device, "source": source}
    given = {name: value for name, value in changes.items() if value is not None}
    config = TrainConfig.preset(size, output, seed=seed, overwrite=overwrite, **given)
    report = run(config)
    console = Console()
    console.print(
        f"[bold]{report.output}[/]: {report.num_params:,} parameters, "
        f"{report.num_bytes / 1e6:.1f} MB, trained on {report.device}"
    )
    console.print(
        f"{report.num_steps:,} steps in {report.seconds:.0f} s "
        f"({report.tokens_per_second:,.0f} tokens/s); validation loss "
        f"{report.validation_loss:.3f} nats a token"
    )
