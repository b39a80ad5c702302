"""The shape of the Hopper kernel over grouped heads in fp8. Pure."""

from __future__ import annotations

from typing import NamedTuple

from bough.spec import AttentionSpec

# Query rows of the tiles that the kernel is written for.
MOST_ROWS = 16
# Stored bytes that a program holds or has in flight.
_BYTES_IN_FLIGHT = 128 * 1024


class BlockShape(NamedTuple):
    """Compile-time shape of `attend_quantized_heads`, for tiles of few rows alone.

    A program has NUM_STAGES places for blocks of 64 tokens, each of NUM_PLACES; registers are those
    of a thread.
    """

    HAS_FEW: bool
    HAS_MANY: bool
    NUM_STAGES: int
    NUM_PLACES: int
    CONSUMER_REGISTERS: int
    PRODUCER_REGISTERS: int
    SCOUT_REGISTERS: int
    ENTRY_REGISTERS: int


def block_shape(spec: AttentionSpec) -> BlockShape:
    """Choose the compile-time shape for a spec that the kernel over 16-bit rows does not refuse."""
    return BlockShape(
        HAS_FEW=True,
        HAS_MANY=False,
        NUM_STAGES=_BYTES_IN_FLIGHT // (2 * 64 * spec.v_dim),
        NUM_PLACES=1,
        CONSUMER_REGISTERS=184,
        PRODUCER_REGISTERS=96,
        SCOUT_REGISTERS=48,
        ENTRY_REGISTERS=128,
    )
