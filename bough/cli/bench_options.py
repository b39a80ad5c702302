"""What the commands below `bough bench` have in common: their options, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bough.bench.problem import Setup

# What decode is measured in where nothing is said.
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}

Workloads = Annotated[
    list[str] | None,
    typer.Option(
        "--workload",
        help="A forest as 'nodes per level | tokens per node'; behind it, if wanted, 'shuffled', "
        "'kv=fp8', 'queries=2', 'page=1', 'spec=mha:32:128'. May be given several times.",
    ),
]
Suite = Annotated[
    str | None,
    typer.Option(
        help="Named cases: cpu, codec, pat, fasttree, no-loss, rollouts, trees, wide, prefill, "
        "latent, latent-ranks, latent-trees, tied, drafts, fp8, or trace (with --trace)."
    ),
]
Spec = Annotated[str, typer.Option(help="Attention variant, such as gqa:32:8:128 or mla:128.")]
PageSize = Annotated[int, typer.Option(help="Tokens per page.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")]
Png = Annotated[Path | None, typer.Option(help="Draw the figures into this file.")]


def read_setup(device: str, spec: str, dtype: str, page_size: int) -> Setup:
    """Read what all cases of a run share.

    Raises:
        ValueError: one of them is unknown.
    """
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
