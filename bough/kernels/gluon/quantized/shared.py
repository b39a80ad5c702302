"""What a program's producer and consumers share: rows as they are stored, and their barriers."""

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


class Shared(NamedTuple):
    """The ring of blocks, and one of query tiles, two a consumer."""

    claims: Claims
    q_tiles: Any
    q_full: Any
    q_empty: Any
    places: Places
