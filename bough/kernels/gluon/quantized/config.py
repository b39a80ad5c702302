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
    # Registers of a thread; the turner has the scout's. Tied specs copy two planes, consumers of
    # untied ones hold keys' powers.
    if not has_many:
        consumer, producer, scout = 184, 88, 56
    elif spec.tied:
        consumer, producer, scout = 168, 112, 64
    else:
        consumer, producer, scout = 184, 72, 72
    return BlockShape(
        HAS_FEW=few in heights or not has_many,
        HAS_MANY=has_many,
        NUM_STAGES=num_stages * per_block,
        NUM_PLACES=1,
        CONSUMER_REGISTERS=consumer,
        PRODUCER_REGISTERS=producer,
        SCOUT_REGISTERS=scout,
        ENTRY_REGISTERS=128,
        NUM_TURNED=num_turned * per_block,
    )
