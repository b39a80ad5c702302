"""Decode attention that reads every shared branch of the KV cache once."""

from bough.attend import attend
from bough.device import Device
from bough.forest import Forest
from bough.plan import make_plan
from bough.spec import AttentionSpec

__all__ = ["AttentionSpec", "Device", "Forest", "attend", "make_plan"]
