"""Engines on ranks that are started once, for that takes seconds: one engine after another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bough.engine.config import EngineConfig
from bough.engine.engine import Engine
from bough.engine.worker import Assignment, load_share, run_steps
from bough.parallel import Ranks, join_ranks


def entry(device: str) -> str:
    """What the other ranks are to run."""
    return f"from tests.engine.ranked import follow; follow({device!r})"


def follow(device: str) -> None:
    """Be another rank: run one engine's steps after another's, and say what memory each took."""
    ranks = join_ranks(device)
    while (assignment := ranks.receive()) is not None:
        reset_peak_bytes()
        run_steps(assignment, ranks)
        ranks.gather(peak_bytes())
    ranks.close()


@contextmanager
def engine_on(
    ranks: Ranks, model: Path, device: str, peaks: list[int] | None = None, **options: Any
) -> Iterator[Engine]:
    """Run a model without its tokenizer on `ranks`; `peaks` gets the most bytes of each GPU."""
    config = EngineConfig(device=device, tensor_parallel_size=ranks.size, **options)
    assignment = Assignment(model=str(model), config=config)
    reset_peak_bytes()
    ranks.send(assignment)
    decoder, config = load_share(assignment, ranks)
    yield Engine(decoder, None, config)
    ranks.send(None)
    found = ranks.gather(peak_bytes())
    if peaks is not None:
        peaks += found


def reset_peak_bytes() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """Most bytes of this rank's GPU that were taken at once since the last reset; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
