"""Which grouped specs the Hopper kernel takes, and its shape for each. Pure."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bough.device import PAIRED_DIMS, PAIRED_TILING
from bough.spec import AttentionSpec

# Query rows of the tiles that the kernel is written for.
TILE_HEIGHTS = PAIRED_TILING.heights
# Tokens from which on a tall tile counts as long.
_LONG = 1024
# Stored bytes of one plane that a program holds or has in flight.
_BYTES_IN_FLIGHT = 64 * 1024


class BlockShape(NamedTuple):
    """Compile-time shape of `attend_grouped`, and of its like for fp8.

    It is compiled for the heights of tiles that a plan has: few rows, many, or both. A program has
    NUM_STAGES places for 64 rows of either plane, of which a block takes NUM_PLACES; in fp8, it has
    NUM_TURNED for blocks in 16 bits, too. Registers are those of a thread.
    """

    HAS_FEW: bool
    HAS_MANY: bool
    NUM_STAGES: int
    NUM_PLACES: int
    CONSUMER_REGISTERS: int
    PRODUCER_REGISTERS: int
    SCOUT_REGISTERS: int
    ENTRY_REGISTERS: int
    NUM_TURNED: int = 0


def refusal(spec: AttentionSpec, dtype: torch.dtype, capability: tuple[int, int]) -> str | None:
    """Say why the kernel does not take a spec, a dtype or a card; None where it does.

    Args:
        spec: the attention variant.
        dtype: of queries and stored rows.
        capability: compute capability of the GPU.
    """
    if capability[0] != 9:
        return f"needs compute capability 9, got {capability[0]}.{capability[1]}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"takes float16 and bfloat16, got {dtype}"
    dims = (spec.nope_dim, spec.rope_dim, spec.v_dim)
    if dims not in PAIRED_DIMS:
        return f"takes (nope_dim, rope_dim, v_dim) of {PAIRED_DIMS}, got {dims}"
    if spec.group_size > TILE_HEIGHTS[-1]:
        return f"takes at most {TILE_HEIGHTS[-1]} query heads a stored head, got {spec.group_size}"
    return None


def block_shape(spec: AttentionSpec, heights: frozenset[int], tall_tokens: int) -> BlockShape:
    """Choose the compile-time shape.

    Args:
        spec: a spec that is not refused.
        heights: those of TILE_HEIGHTS at which tiles run.
        tall_tokens: KV tokens that a tile of the greatest height visits.
    """
    few, *many = TILE_HEIGHTS
    # Longer blocks take fewer turns of the softmax. They leave a short tile nothing to overlap, and
    # other tiles' code, or the second kind of rows of tied states, no registers.
    is_long = tall_tokens >= _LONG and heights == {TILE_HEIGHTS[-1]} and not spec.tied
    consumer, producer, scout = (208, 56, 40) if is_long else (200, 64, 48)
    if spec.tied:
        consumer, producer = 192, 80
    return BlockShape(
        HAS_FEW=few in heights,
        HAS_MANY=not heights.isdisjoint(many),
        NUM_STAGES=_BYTES_IN_FLIGHT // (2 * 64 * spec.v_dim),
        NUM_PLACES=2 if is_long else 1,
        CONSUMER_REGISTERS=consumer,
        PRODUCER_REGISTERS=producer,
        SCOUT_REGISTERS=scout,
        ENTRY_REGISTERS=128,
    )
