"""The shape of the Hopper kernel over grouped heads in fp8. Pure."""

from __future__ import annotations

from bough.kernels.gluon.grouped.config import TILE_HEIGHTS, BlockShape
from bough.spec import AttentionSpec

# Query rows of the tiles that the kernel is written for.
MOST_ROWS = TILE_HEIGHTS[0]
# Stored bytes that a program holds or has in flight.
_BYTES_IN_FLIGHT = 128 * 1024


def block_shape(spec: AttentionSpec) -> BlockShape:
    """Choose the compile-time shape of `attend_quantized_heads`.

    Args:
        spec: a spec that the kernel over 16-bit rows does not refuse.
    """
    return BlockShape(
        HAS_FEW=True,
        HAS_MANY=False,
        NUM_STAGES=_BYTES_IN_FLIGHT // (2 * 64 * spec.v_dim),
        NUM_PLACES=1,
        CONSUMER_REGISTERS=184,
        PRODUCER_REGISTERS=88,
        SCOUT_REGISTERS=56,
        ENTRY_REGISTERS=128,
    )
