"""Decode attention that reads every shared branch of the KV cache once."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bough.attend import attend
    from bough.device import Device
    from bough.engine import LLM, SamplingParams
    from bough.forest import Forest
    from bough.plan import make_plan
    from bough.spec import AttentionSpec

__all__ = ["LLM", "AttentionSpec", "Device", "Forest", "SamplingParams", "attend", "make_plan"]

# Names are imported when they are first asked for: torch takes seconds, `bough --help` must not.
_HOMES = {
    "AttentionSpec": "bough.spec",
    "Device": "bough.device",
    "Forest": "bough.forest",
    "LLM": "bough.engine",
    "SamplingParams": "bough.engine",
    "attend": "bough.attend",
    "make_plan": "bough.plan",
}


class _Package(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Python hangs an imported submodule on its package; `bough.attend` stays the function.
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
