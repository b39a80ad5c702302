"""Tensors and facts in one file that is written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

_FACTS = "facts"


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a safetensors file with `facts` in its header.

    A run that is killed on the way leaves the file as it was before, or none.

    Args:
        path: the file to make or replace.
        tensors: contiguous ones that share no memory.
        facts: plain JSON values.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    save_file(dict(tensors), unfinished, metadata={_FACTS: json.dumps(facts)})
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors, on the CPU, and facts from a file that `save_state` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()[_FACTS])
