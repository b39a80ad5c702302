"""Blocks that hold tokens of several heads side by side, whose rows share a product's width."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from bough.kernels.gluon.grouped.scores import find_visible, is_partly_hidden
from bough.kernels.gluon.grouped.tile import FEW_ROWS, unpack_rows


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
    head, row = unpack_rows(tile, gl.arange(0, FEW_ROWS, layout=gl.SliceLayout(0, ACROSS)))
    offs_kv = gl.arange(0, KV, layout=gl.SliceLayout(1, ACROSS))
    token = offs_kv & ((1 << tile.token_bits) - 1)
    is_own = (offs_kv >> tile.token_bits)[:, None] == head[None, :]
    return Pack(head, row, token, is_own)


@gluon.jit
def hide_others(score, tables, rows, pack, tile, origin, low, num_tokens, SHAPE: gl.constexpr):
    """Mask what rows do not see of the block at token `low` of a segment, and other heads' part."""
    end = origin + num_tokens
    num_step = 1 << tile.token_bits
    if is_partly_hidden(origin + low, end, tile, num_step, SHAPE.WINDOW) | (tile.pack_bits > 0):
        place = origin + low + pack.token
        sees = pack.is_own & find_visible(tables, rows, place, end, SHAPE, 0)
        score = gl.where(sees, score, float("-inf"))
    return score


@gluon.jit
def sum_tokens(weights, LAYOUT: gl.constexpr):
    """Add weights [tokens, rows] up over tokens."""
    # A warp holds whole columns: sums over tokens stay inside it.
    WHOLE: gl.constexpr = gl.BlockedLayout([2, 4], [32, 1], [1, 4], [0, 1])
    return gl.convert_layout(gl.sum(gl.convert_layout(weights, WHOLE), 0), LAYOUT)
