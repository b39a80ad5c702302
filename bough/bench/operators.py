"""Operators of other projects, from extensions that need nothing but torch."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch


@cache
def load_operators(*modules: str) -> Any:
    """Load the first of some extension modules that is installed.

    Args:
        modules: names of one extension; the last part is what torch calls its operators.

    Returns:
        its operators, or None where it is not installed.
    """
    for module in modules:
        try:
            spec = find_spec(module)
        except ModuleNotFoundError:
            continue
        if spec is not None and spec.origin is not None:
            torch.ops.load_library(spec.origin)
            return getattr(torch.ops, module.rpartition(".")[2])
    return None
