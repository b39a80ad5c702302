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

ENTRY = "from tests.engine.ranked import follow; follow()"


def follow() -> None:
    """Be another rank: run one engine's steps after another's."""
    torch.set_num_threads(1)
    ranks = join_ranks("cpu")
    while (assignment := ranks.receive()) is not None:
        run_steps(assignment, ranks)
    ranks.close()


@contextmanager
def engine_on(ranks: Ranks, model: Path, **options: Any) -> Iterator[Engine]:
    """Run a model without its tokenizer on `ranks`."""
    config = EngineConfig(device="cpu", tensor_parallel_size=ranks.size, **options)
    assignment = Assignment(model=str(model), config=config)
    ranks.send(assignment)
    decoder, config = load_share(assignment, ranks)
    yield Engine(decoder, None, config)
    ranks.send(None)
