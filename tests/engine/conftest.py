"""Small checkpoints that the engine's tests share; each is written once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.checkpoints import make_checkpoint, make_tokenizer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a family's checkpoint, with a tokenizer."""
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            path = tmp_path_factory.mktemp(family)
            folders[family] = make_tokenizer(make_checkpoint(family, path))
        return folders[family]

    return folder


@pytest.fixture(scope="session")
def model(checkpoint: Callable[[str], Path]) -> Path:
    """One checkpoint with a tokenizer, where the family does not matter."""
    return checkpoint("llama")


@pytest.fixture(scope="session")
def bare_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a tokenizer."""
    return make_checkpoint("llama", tmp_path_factory.mktemp("bare"))
