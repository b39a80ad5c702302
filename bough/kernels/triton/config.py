"""Which block shapes a spec runs at. Pure, so that tests and compile checks can list them."""

from __future__ import annotations

from dataclasses import dataclass

from bough.spec import AttentionSpec


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """Compile-time shape of `attend_tiles`.

    Args:
        small_block_q: rows of tiles that have few.
        block_q: rows at a time of all others; the planner's tallest tile where it fits.
        block_kv: KV tokens visited at a time.
        num_stages: loads in flight.
        num_warps: warps of one program.
        max_registers: registers a thread may have; None leaves the choice to the assembler.
    """

    small_block_q: int
    block_q: int
    block_kv: int
    num_stages: int
    num_warps: int
    max_registers: int | None = None


def tile_config(spec: AttentionSpec, max_tile_rows: int, itemsize: int) -> TileConfig:
    """Choose block shapes so that loads in flight and states fit one multiprocessor.

    Args:
        spec: what a row and a stored token hold.
        max_tile_rows: rows of the planner's tallest tile.
        itemsize: bytes of a stored number.
    """
    widest = max(spec.qk_dim, spec.v_dim)
    if itemsize == 4:
        # IEEE products keep whole blocks in registers: few rows, and no loads ahead.
        return TileConfig(
            small_block_q=16,
            block_q=16,
            block_kv=16,
            num_stages=1,
            num_warps=8,
            # Left alone, the assembler aims at more programs at once and spills.
            max_registers=128 if widest <= 256 else None,
        )
    return TileConfig(
        small_block_q=16,
        block_q=max(16, 1 << (max_tile_rows - 1).bit_length()),
        block_kv=32 if widest <= 128 else 16,
        num_stages=3 if widest <= 128 else 2,
        num_warps=4 if widest <= 128 else 8,
    )


def merge_block(most_partials: int) -> tuple[int, int]:
    """Return the partials and the heads that a merging program reads at a time.

    Few partials are cheapest one after the other, for many heads at once; of many, waiting for
    each in turn would take longest.

    Args:
        most_partials: partials of the query that has most.
    """
    if most_partials <= 4:
        return 1, 8
    block_partials = min(16, 1 << (most_partials - 1).bit_length())
    return block_partials, 16 // block_partials
