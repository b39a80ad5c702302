"""Engines on ranks that are started once, for that takes seconds: one engine after another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bough.engine.config import EngineConfig
from bough.engine.engine import Engine
from bough.engine.worker import Assignment, load_share, run_steps
from bough.parallel import Ranks, join_ranks


def entry(device: str) -> str:
    """What the other ranks are to run."""
    return f"from tests.engine.ranked import follow; follow({device!r})"


def follow(device: str) -> None:
    """Be another rank: run one engine's steps after another's."""
    ranks = join_ranks(device)
    while (assignment := ranks.receive()) is not None:
        run_steps(assignment, ranks)
    ranks.close()


@contextmanager
def engine_on(ranks: Ranks, model: Path, device: str, **options: Any) -> Iterator[Engine]:
    """Run a model without its tokenizer on `ranks`."""
    config = EngineConfig(device=device, tensor_parallel_size=ranks.size, **options)
    assignment = Assignment(model=str(model), config=config)
    ranks.send(assignment)
    decoder, config = load_share(assignment, ranks)
    try:
        yield Engine(decoder, None, config)
    finally:
        ranks.send(None)  # the ranks go on to the next engine, whatever became of this one
