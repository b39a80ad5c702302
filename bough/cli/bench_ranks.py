"""`bough bench ranks`: models on one device and on several."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bough.cli.bench_options import Json
from bough.cli.errors import check_outputs

if TYPE_CHECKING:
    from bough.bench.ranks import RankRow


def ranks(
    tp: Annotated[int, typer.Option(min=2, help="Ranks that share a model, a GPU each.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    model: Annotated[
        list[Path] | None,
        typer.Option(help="A Hugging Face folder to run too. May be given several times."),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Of weights and KV; float32 and bfloat16. May be given several times."),
    ] = None,
    json: Json = None,
) -> None:
    """Share models among ranks: are the tokens those of one device, and what does each store?

    Random models with the heads of the paper's 1.47B ones (GQA-4, GTA-4, GLA-2, MLA: 16 heads of
    128 columns), and those that --model names, complete the same prompts greedily on one device
    and on several. Bytes of KV are measured on every device and stand beside the paper's.

    In float32 all tokens must agree, else the exit code is 1; in bfloat16 a near tie may fall the
    other way, and whatever follows it then.

    Examples:

        bough bench ranks --tp 2

        bough bench ranks --tp 2 --device cuda --model models/stdlib-gla --json out/ranks.json
    """
    from bough.bench.report import Report, rank_settings
    from bough.bench.table import rank_table

    check_outputs(json=json)
    rows, close_seconds = _measure(tp, device, model or [], dtype or ["float32", "bfloat16"])
    if json is not None:
        settings = rank_settings(device, tp, close_seconds)
        Report(benchmark="ranks", suite=None, settings=settings, rows=rows).write(json)
    Console().print(rank_table(rows))
    if any(row.num_equal < row.num_tokens for row in rows if row.dtype == "float32"):
        raise typer.Exit(1)


def _measure(
    tp: int, device: str, models: list[Path], dtypes: list[str]
) -> tuple[list[RankRow], float]:
    """Every model in every dtype, and the seconds that the ranks took to end."""
    from bough.bench.rank_models import PUBLISHED_KV_BYTES, write_random_model
    from bough.bench.ranks import bench_ranks, start_bench_ranks

    rows: list[RankRow] = []
    console = Console(stderr=True)
    with console.status("starting the ranks") as status, TemporaryDirectory() as scratch:
        together = start_bench_ranks(tp, device)
        try:
            for variant in PUBLISHED_KV_BYTES:
                write_random_model(Path(scratch) / variant, variant)
            for path in [*(Path(scratch) / variant for variant in PUBLISHED_KV_BYTES), *models]:
                for dtype in dtypes:
                    status.update(f"{len(rows)} done, running {path.name} in {dtype}")
                    rows.append(bench_ranks(path, device, dtype, together))
        except BaseException:
            together.abandon()
            raise
        began = time.perf_counter()
        together.close()
        return rows, time.perf_counter() - began
