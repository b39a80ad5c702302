"""Which block shapes a spec runs at. Pure, so that tests and compile checks can list them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bough.kernels.triton.arguments import BlockShape
from bough.kernels.triton.padding import padded
from bough.spec import AttentionSpec

# Rows of tiles that have few, and rows at a time of all others.
_FEW_ROWS = 16
_MANY_ROWS = 64
# Partials of a query that are merged one after the other.
_FEW_PARTIALS = 8


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """Compile-time shape of `attend_tiles`.

    Args:
        small: of tiles that have few rows.
        block: of all others, so many rows at a time.
        num_warps: warps of one program.
        max_registers: registers a thread may have; None leaves the choice to the assembler.
    """

    small: BlockShape
    block: BlockShape
    num_warps: int
    max_registers: int | None = None

    def num_slices(self, num_rows: int) -> int:
        """Programs that the rows of a tile take."""
        return -(-num_rows // self.block.BLOCK_Q)


def tile_config(
    spec: AttentionSpec, max_tile_rows: int, itemsize: int, *, has_drafts: bool = False
) -> TileConfig:
    """Choose block shapes so that loads in flight and states fit one multiprocessor.

    Words of drafts take two registers a row, so many rows have shorter blocks beside them, or there
    are fewer at a time.

    Args:
        spec: what a row and a stored token hold.
        max_tile_rows: rows of the planner's tallest tile.
        itemsize: bytes of a stored number.
        has_drafts: whether words say what queries do not see of the tokens before them.
    """
    widest = max(spec.qk_dim, spec.v_dim)
    if itemsize == 4:
        # IEEE products keep whole blocks in registers: few rows, and no loads ahead.
        shape = BlockShape(BLOCK_Q=_FEW_ROWS, BLOCK_KV=16, NUM_STAGES=1)
        # Left alone, the assembler aims at more programs at once and spills; rows between 256 and
        # 384 columns need more threads for that, not more registers each.
        return TileConfig(
            small=shape,
            block=shape,
            num_warps=16 if 256 < widest <= 384 else 8,
            max_registers=128 if widest <= 256 else None,
        )
    if itemsize == 1:
        return _fp8_config(spec, 16 if has_drafts else 32)
    block_kv, num_stages, num_warps = (32, 3, 4) if widest <= 128 else (16, 2, 8)
    most_rows = _MANY_ROWS // 2 if has_drafts and widest > 320 else _MANY_ROWS
    rows = max(_FEW_ROWS, 1 << (min(max_tile_rows, most_rows) - 1).bit_length())
    return TileConfig(
        small=BlockShape(_FEW_ROWS, block_kv, num_stages),
        block=BlockShape(rows, block_kv, num_stages),
        num_warps=num_warps,
    )


def _fp8_config(spec: AttentionSpec, many_kv: int) -> TileConfig:
    """Choose long blocks of KV: what a block costs whatever its length weighs twice as much as in
    16 bits. Taller tiles have shorter ones, of `many_kv` at most, or registers would spill."""
    widest = max(spec.qk_dim, spec.v_dim)
    if widest > 320:
        shape = BlockShape(_FEW_ROWS, 32, 1)
        return TileConfig(small=shape, block=shape, num_warps=16)
    if widest > 128:
        small, block = BlockShape(_FEW_ROWS, 64, 2), BlockShape(_MANY_ROWS, many_kv, 2)
        return TileConfig(small=small, block=block, num_warps=8)
    small_kv, many_kv = (64, 16) if spec.tied else (128, many_kv)
    return TileConfig(
        small=BlockShape(_FEW_ROWS, small_kv, 3),
        block=BlockShape(_MANY_ROWS, many_kv, 3),
        num_warps=4,
    )


class MergeBlock(NamedTuple):
    """What a merging program reads at a time: partials, heads, and columns of each.

    A query of at most `few` partials is merged by one program a block of heads, all columns and
    `few` partials at a time.
    """

    partials: int
    heads: int
    columns: int
    few: int = 1


def merge_block(most_partials: int, v_dim: int) -> MergeBlock:
    """Choose what a merging program reads at a time.

    Few partials are cheapest one after the other, for many heads at once; of many, waiting for
    each in turn would take longest.

    Args:
        most_partials: partials of the query that has most.
        v_dim: columns of an output.
    """
    columns = padded(v_dim)
    if most_partials <= _FEW_PARTIALS:
        return MergeBlock(partials=1, heads=8, columns=columns)
    most = 32 if columns <= 128 else 16
    partials = min(most, 1 << (most_partials - 1).bit_length())
    return MergeBlock(partials=partials, heads=max(1, 16 // partials), columns=columns)
