"""Blocks that hold tokens of several heads side by side, whose rows share a product's width."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from bough.kernels.gluon.grouped.claim import read_rows
from bough.kernels.gluon.grouped.scores import find_visible, is_partly_hidden
from bough.kernels.gluon.grouped.tile import FEW_ROWS, unpack_rows
from bough.kernels.gluon.late import late_range


class Pack(NamedTuple):
    """What stands where in scores [tokens, rows].

    Of each row its head in the pack and its number there; of each token its number among those of
    its head; and whether a token is of a row's own head.
    """

    head: Any
    row: Any
    token: Any
    is_own: Any


@gluon.jit
def open_pack(tile, KV: gl.constexpr, ACROSS: gl.constexpr):
    """Find out for blocks of KV stored rows."""
    rows = late_range(FEW_ROWS, gl.SliceLayout(0, ACROSS), tile.first_head)
    head, row = unpack_rows(tile, rows)
    offs_kv = late_range(KV, gl.SliceLayout(1, ACROSS), tile.first_head)
    token = offs_kv & ((1 << tile.token_bits) - 1)
    is_own = (offs_kv >> tile.token_bits)[:, None] == head[None, :]
    return Pack(head, row, token, is_own)


@gluon.jit
def hide_others(score, pack, call, turn, tile, origin, low, num_tokens, SHAPE: gl.constexpr):
    """Mask what rows do not see of the block at token `low` of a segment, and other heads' part."""
    end = origin + num_tokens
    num_step = 1 << tile.token_bits
    if is_partly_hidden(origin + low, end, tile, num_step, SHAPE.WINDOW) | (tile.pack_bits > 0):
        rows = read_rows(
            call.shared.claims, turn, 0, FEW_ROWS, gl.SliceLayout(0, score.type.layout)
        )
        place = origin + low + pack.token
        sees = pack.is_own & find_visible(call.tables, rows, place, end, SHAPE, 0)
        score = gl.where(sees, score, float("-inf"))
    return score
