"""Measured rates of GPUs: a table that ships with the package, and what was measured here.

`bough calibrate` writes what it measures into the user's cache, under the name of the GPU and the
version of what was measured: kernels and cost model. Other versions' rates are not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bough.expect import expect

_PACKAGE = Path(__file__).parent
_TABLE = _PACKAGE / "rates.json"
# What decides how long a tile takes, and what is made of it.
_MEASURED = ("kernels/triton/**/*.py", "kernels/gluon/**/*.py", "plan/cost.py", "device.py")

Rates = dict[str, Any]


@cache
def shipped_rates() -> dict[str, Rates]:
    """Return the table that ships: fields of a `Device` by its short name, such as `h100`."""
    return json.loads(_TABLE.read_text(encoding="utf-8"))


def cached_rates(gpu: str) -> Rates | None:
    """Return what was measured on this GPU with these kernels; None where nothing was.

    Args:
        gpu: the GPU's name, as its driver has it.

    Raises:
        ValueError: the file in the cache is not what `store_rates` wrote.
    """
    path = cache_path(gpu)
    if not path.exists():
        return None
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))["rates"]
    except (KeyError, TypeError, ValueError):
        rates = None
    expect(isinstance(rates, dict), "cached rates", "JSON as `bough calibrate` writes it", path)
    return rates


def store_rates(gpu: str, rates: Mapping[str, Any]) -> Path:
    """Write what was measured into the user's cache; the file appears whole or not at all.

    Args:
        gpu: the GPU's name.
        rates: fields of a `Device` that were measured.

    Returns:
        The file.
    """
    path = cache_path(gpu)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps({"gpu": gpu, "rates": rates}, indent=2) + "\n", "utf-8")
    os.replace(unfinished, path)
    return path


def cache_path(gpu: str) -> Path:
    """Name the file of a GPU's rates, in `$XDG_CACHE_HOME` or `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return Path(root) / "bough" / f"{name}-{measured_version()}.json"


@cache
def measured_version() -> str:
    """Return a short hash of the kernels and of the cost model that their rates are for."""
    digest = hashlib.sha256()
    for pattern in _MEASURED:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
