"""What the warps of a program share: rows as they are stored and as fp16, and their barriers."""

from __future__ import annotations

from typing import Any, NamedTuple

from bough.kernels.gluon.grouped.claim import Claims


class Places(NamedTuple):
    """A ring of blocks of 64 tokens: keys, or rotary keys of tied specs; values, or states; and a
    word of exponents for each token."""

    k_rows: Any
    v_rows: Any
    words: Any
    full: Any
    empty: Any


class Turned(NamedTuple):
    """A ring of blocks of values, or states, as fp16, for tiles of many rows.

    Rows are divided by a power of two: `units` has its exponent for each block. A block is full
    when its keys can be multiplied, too. For each claim `first` has the number of the item's first
    block, and `begun` a barrier, complete when all that stands before the item has been turned.
    """

    first: Any
    begun: Any
    v_rows: Any
    units: Any
    full: Any
    empty: Any


class Shared(NamedTuple):
    """The rings of blocks, and one of query tiles, two a consumer, with a power for each row.

    `begun` has a barrier for each claim, complete when all that stands before the item has been
    copied. `turned` is None where all tiles have few rows. For these each consumer has weights
    [tokens, rows] of a block, and what its warps have told each other [warps, rows].
    """

    claims: Claims
    begun: Any
    q_tiles: Any
    q_powers: Any
    q_full: Any
    q_empty: Any
    places: Places
    turned: Any
    weights: Any
    told: Any
