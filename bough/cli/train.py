"""`bough train`: a small model from Python source, or a suite of them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bough.cli.errors import check_outputs

if TYPE_CHECKING:
    from bough.train.quality import Suite
    from bough.train.summary import Summary

Seed = Annotated[int | None, typer.Option(help="Of the initial weights; 0 if left out.")]


def train(
    output: Annotated[Path, typer.Argument(help="Checkpoint folder to make.")],
    config: Annotated[
        str | None,
        typer.Option(
            help="tiny (seconds on a CPU; if left out), demo, demo-gla, mha, gqa-4, mqa, gta-4, "
            "mla, gla-2, or a .toml file."
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="quality: all variants of attention on the same tokens."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="With --suite, a variant to train. May be given several times."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="With --suite, a config to train once, by name or as a .toml file, in place of "
            "the suite's own. May be given several times."
        ),
    ] = None,
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
    seed: Seed = None,
    overwrite: Annotated[bool, typer.Option(help="Replace OUTPUT if it exists.")] = False,
    png: Annotated[Path | None, typer.Option(help="Draw the losses into this file.")] = None,
) -> None:
    """Train a tokenizer and a small model on Python source.

    The folder holds what Hugging Face's AutoModelForCausalLM and AutoTokenizer read. A run that was
    killed goes on from its last state when the same command is given again.

    With --suite quality, OUTPUT holds one result a run, and quality.json gathers them; what is
    there already is not run again. All GPUs take part. The text is that of the installed packages.

    Examples:

        bough train out/tiny

        bough train out/stdlib-gla --config demo-gla --minutes 6 --device cuda --png out/losses.png

        bough train out/mine --source src --steps 500 --overwrite

        bough train out/quality --suite quality --png out/quality.png

        bough train out/other --suite quality --steps 1200 --variant mla --variant mine.toml
    """
    given: dict[str, Any] = {
        "config": config,
        "minutes": minutes,
        "source": source,
        "seed": seed,
        "overwrite": overwrite or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    check_outputs(png=png)
    if suite is not None:
        _refuse("--suite", given)
        from bough.train.quality import Suite, variants_of

        own = variants_of(suite)
        variants = dict.fromkeys(variant, 1) if variant else own
        settings = Suite(output=output, variants=variants, steps=steps, device=device)
        _train_suite(settings, only or [], png)
        return
    of_suites = {"only": only, "variant": variant}
    _refuse("no --suite", {name: value for name, value in of_suites.items() if value})
    given |= {"steps": steps} if steps is not None else {}
    given |= {"device": device} if device is not None else {}
    _train_one(given.pop("config", "tiny"), output, given, png)


def _refuse(where: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        raise ValueError(f"--{name} must be left out with {where}, got {value}")


def _train_one(config: str, output: Path, changes: dict[str, Any], png: Path | None) -> None:
    from bough.train import read_config, train
    from bough.train.summary import plot_losses

    report = train(read_config(config, output, **changes))
    if png is not None:
        plot_losses(report.log, png)
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


def _train_suite(suite: Suite, only: list[str], png: Path | None) -> None:
    from bough.train.quality import run_suite
    from bough.train.summary import gaps, plot_quality, summarize

    runs = run_suite(suite, only=only)["runs"]
    if png is not None:
        plot_quality(runs, png)
    console = Console()
    summaries = summarize(runs)
    console.print(_table(list(summaries.values())))
    for pair, gap in gaps(summaries).items():
        console.print(f"{pair}: perplexity {gap:+.2%}")


def _table(summaries: list[Summary]) -> Table:
    """One row a variant; losses in nats a token, KV bytes of a token in all layers."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("variant")
    for heading in ("runs", "params", "KV bytes", "train", "held out", "perplexity", "tokens/s"):
        table.add_column(heading, justify="right")
    for row in summaries:
        spread = "" if row.perplexity_spread is None else f" ± {row.perplexity_spread:.3f}"
        table.add_row(
            row.variant,
            f"{row.num_runs}",
            f"{row.num_params / 1e6:.2f} M",
            f"{row.kv_bytes:,}",
            f"{row.train_loss:.4f}",
            f"{row.loss:.4f}",
            f"{row.perplexity:.3f}{spread}",
            f"{row.tokens_per_second / 1e6:.2f} M",
        )
    return table
