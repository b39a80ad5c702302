"""KV planes as the products want them: heads first, tokens by slot, in fp32."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bough.kv import KV, plain_rows, tensors_of
from bough.spec import AttentionSpec


class Rows(NamedTuple):
    """Some tokens of n tiles, each tile with as many.

    Attributes:
        key: [num_kv_heads, n, num_tokens, nope_dim] fp32.
        rope: [n, num_tokens, rope_dim] fp32, or None for untied specs.
        value: [num_kv_heads, n, num_tokens, v_dim] fp32.
    """

    key: torch.Tensor
    rope: torch.Tensor | None
    value: torch.Tensor


class Planes:
    """One layer's KV, read by slot (`page * page_size + slot in page`).

    Args:
        kv: the layer's planes, in any strides.
        spec: what they hold.
    """

    def __init__(self, kv: KV, spec: AttentionSpec) -> None:
        self._spec = spec
        self._kv = kv
        self._planes = tensors_of(kv)
        self._flat = [_flat(plane) for plane in self._planes]

    def read(self, slots: torch.Tensor | slice) -> Rows:
        """Read tokens; a slice of slots is a view where planes allow it, and nothing is copied.

        Args:
            slots: [n, num_tokens] slots, or a slice of consecutive slots (then n is 1).
        """
        parts = [
            _select(plane, flat, slots)
            for plane, flat in zip(self._planes, self._flat, strict=True)
        ]
        rows = [row.float() for row in plain_rows(self._kv, parts)]
        if len(rows) == 2:
            return Rows(rows[0].movedim(2, 0), None, rows[1].movedim(2, 0))
        states, rope = rows[0].split(
            [self._spec.num_kv_heads * self._spec.v_dim, self._spec.rope_dim], dim=-1
        )
        value = states.unflatten(-1, (self._spec.num_kv_heads, self._spec.v_dim)).movedim(2, 0)
        return Rows(value[..., : self._spec.nope_dim], rope, value)


def _flat(plane: torch.Tensor) -> torch.Tensor | None:
    """View `[num_pages, page_size, ...]` as `[num_slots, ...]` where the strides allow it."""
    num_pages, page_size = plane.shape[:2]
    if num_pages > 1 and plane.stride(0) != page_size * plane.stride(1):
        return None
    size = (num_pages * page_size, *plane.shape[2:])
    return plane.as_strided(size, plane.stride()[1:], plane.storage_offset())


def _select(
    plane: torch.Tensor, flat: torch.Tensor | None, slots: torch.Tensor | slice
) -> torch.Tensor:
    """[n, num_tokens, ...] in the memory order of the plane, so that a head's rows stay whole."""
    if isinstance(slots, slice):
        if flat is not None:
            return flat[slots][None]
        slots = torch.arange(slots.start, slots.stop, device=plane.device)[None]
    if flat is None:
        return plane[slots // plane.shape[1], slots % plane.shape[1]]
    if flat.dim() == 3:
        heads_first = flat.movedim(1, 0).index_select(1, slots.reshape(-1))
        return heads_first.unflatten(1, slots.shape).movedim(0, 2)
    return flat.index_select(0, slots.reshape(-1)).unflatten(0, slots.shape)
