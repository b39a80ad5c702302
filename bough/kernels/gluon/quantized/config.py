"""The shape of the Hopper kernel over grouped heads in fp8. Pure."""

from __future__ import annotations

from bough.kernels.gluon.grouped.config import TILE_HEIGHTS, BlockShape
from bough.spec import AttentionSpec


def block_shape(spec: AttentionSpec, heights: frozenset[int]) -> BlockShape:
    """Choose the compile-time shape of `attend_quantized_heads`.

    Args:
        spec: a spec that the kernel over 16-bit rows does not refuse.
        heights: those of TILE_HEIGHTS at which tiles run.
    """
    few, *many = TILE_HEIGHTS
    has_many = not heights.isdisjoint(many)
    # Blocks of 128 columns, as they are stored and in fp16.
    num_stages, num_turned = (4, 4) if has_many else (8, 0)
    per_block = 128 // spec.v_dim
    return BlockShape(
        HAS_FEW=few in heights or not has_many,
        HAS_MANY=has_many,
        NUM_STAGES=num_stages * per_block,
        NUM_PLACES=1,
        CONSUMER_REGISTERS=184,
        PRODUCER_REGISTERS=80 if has_many else 88,
        SCOUT_REGISTERS=64 if has_many else 56,
        ENTRY_REGISTERS=128,
        NUM_TURNED=num_turned * per_block,
    )
