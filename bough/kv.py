"""How one layer's keys and values lie in tensors: number by number, or in fp8 with scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bough.expect import expect
from bough.fp8 import FP8, SCALE_COLUMNS, dequantize, quantize
from bough.spec import NUM_SCALES, AttentionSpec

_SCALE = torch.float8_e8m0fnu


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedKV:
    """One layer's KV in fp8: a number is an e4m3 value times a power of two.

    128 columns of a token's row of one stored head have their power in common: the least with which
    the largest of them fits. A fraction in the scale would gain nothing, since e4m3 rounds relative
    to each number; a power alone takes one byte, and taking it off is exact.

    Args:
        planes: e4m3, any even strides with the last axis contiguous, of even size. Untied specs:
            keys and values, each [num_pages, page_size, num_kv_heads, dim]. Tied specs: the states
            alone, [num_pages, page_size, num_kv_heads, v_dim].
        scales: [num_pages, page_size, num_kv_heads, 4] e8m0, each four a whole word. The first is
            of columns 0 to 127, the next of 128 to 255, and so on; untied specs keep those of keys
            in the first two and those of values in the last two. Others mean nothing.
        rope: the rotary keys of tied specs, [num_pages, page_size, rope_dim] bfloat16.

    Raises:
        ValueError: a tensor has another dtype, shape or stride.
    """

    planes: tuple[Tensor, ...]
    scales: Tensor
    rope: Tensor | None = None

    def __post_init__(self) -> None:
        expect(len(self.planes) in (1, 2), "planes", "one tensor or two", len(self.planes))
        grid = self.planes[0].shape[:3]
        for plane in self.planes:
            is_met = plane.dtype == FP8 and plane.dim() == 4 and plane.shape[:3] == grid
            found = f"{list(plane.shape)} of {plane.dtype}"
            expect(is_met, "planes", f"{[*grid, 'dim']} of {FP8}", found)
            steps = (plane.shape[3], *plane.stride()[:3], plane.storage_offset())
            is_even = plane.stride(-1) == 1 and not any(step % 2 for step in steps)
            expect(is_even, "planes", "rows of pairs, of even strides", plane.stride())
        scales = self.scales
        is_met = scales.dtype == _SCALE and scales.shape == (*grid, NUM_SCALES)
        found = f"{list(scales.shape)} of {scales.dtype}"
        expect(is_met, "scales", f"{[*grid, NUM_SCALES]} of {_SCALE}", found)
        steps = (*scales.stride()[:3], scales.storage_offset())
        is_word = scales.stride(-1) == 1 and not any(step % NUM_SCALES for step in steps)
        expect(is_word, "scales", "whole words in the last axis", f"strides {scales.stride()}")
        if self.rope is not None:
            is_met = self.rope.dtype == torch.bfloat16 and self.rope.shape[:2] == grid[:2]
            found = f"{list(self.rope.shape)} of {self.rope.dtype}"
            expect(is_met, "rope", f"{[*grid[:2], 'rope_dim']} of torch.bfloat16", found)

    @classmethod
    def empty(
        cls, spec: AttentionSpec, num_pages: int, page_size: int, device: torch.device
    ) -> QuantizedKV:
        """Allocate planes; nothing is written to them.

        On a CPU keys and values lie head by head in memory, else token by token. A page keeps the
        scales of each head together.

        Raises:
            ValueError: the spec's rows are longer than their scales reach.
        """
        expect_dims(spec)
        grid, heads = (num_pages, page_size), spec.num_kv_heads
        words = torch.empty(num_pages, heads, page_size, NUM_SCALES, dtype=_SCALE, device=device)
        rope = None
        if spec.tied:
            rope = torch.empty(*grid, spec.rope_dim, dtype=torch.bfloat16, device=device)
        return cls(
            planes=tuple(new_plane(heads, grid, dim, FP8, device) for dim in _dims(spec)),
            scales=words.transpose(1, 2),
            rope=rope,
        )


# Untied: keys and values, each [num_pages, page_size, num_kv_heads, dim]. Tied: one tensor
# [num_pages, page_size, num_kv_heads * v_dim + rope_dim], a token's states, then its rotary key.
PlainKV = tuple[Tensor, Tensor] | Tensor
KV = PlainKV | QuantizedKV


def new_plane(
    num_heads: int, grid: tuple[int, int], dim: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Allocate rows [num_pages, page_size, num_heads, dim], on a CPU head by head in memory."""
    if device.type == "cpu":
        return torch.empty(num_heads, *grid, dim, dtype=dtype).permute(1, 2, 0, 3)
    return torch.empty(*grid, num_heads, dim, dtype=dtype, device=device)


def tensors_of(kv: KV) -> tuple[Tensor, ...]:
    """List the tensors of a layer's KV."""
    if isinstance(kv, QuantizedKV):
        return (*kv.planes, kv.scales, *(() if kv.rope is None else (kv.rope,)))
    return kv if isinstance(kv, tuple) else (kv,)


def row_shapes(kv: KV) -> list[tuple[int, ...]]:
    """Shapes of what a token stores: one row for each tensor of `store_kv`'s new rows."""
    if isinstance(kv, QuantizedKV) and kv.rope is not None:
        num_heads, dim = kv.planes[0].shape[2:]
        return [(num_heads * dim + kv.rope.shape[2],)]
    planes = kv.planes if isinstance(kv, QuantizedKV) else tensors_of(kv)
    return [tuple(plane.shape[2:]) for plane in planes]


def plain_rows(kv: KV, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Turn rows read from each of `tensors_of(kv)` into rows as plain KV has them; fp8 into fp32.

    Args:
        kv: where they were read.
        parts: [..., last axes of the tensor] each.
    """
    if not isinstance(kv, QuantizedKV):
        return tuple(parts)
    planes = parts[: len(kv.planes)]
    scales = parts[len(planes)].view(torch.uint8)
    rows: list[Tensor] = []
    for numbers, first in zip(planes, _first_scales(planes), strict=True):
        num_scales = -(-numbers.shape[-1] // SCALE_COLUMNS)
        rows.append(dequantize(numbers, scales[..., first : first + num_scales]))
    if kv.rope is None:
        return tuple(rows)
    return (torch.cat([rows[0].flatten(-2), parts[-1].float()], dim=-1),)


def rows_to_store(kv: KV, new: KV) -> list[tuple[Tensor, Tensor]]:
    """Pair each of `tensors_of(kv)`, scales as bytes, with what new tokens write to it.

    Args:
        kv: a layer's KV.
        new: rows of new tokens, [num_tokens, ...] each, as plain KV has them.
    """
    rows = tensors_of(new)
    if not isinstance(kv, QuantizedKV):
        return list(zip(tensors_of(kv), rows, strict=True))
    if kv.rope is not None:
        num_heads, dim = kv.planes[0].shape[2:]
        states, rope = rows[0].split([num_heads * dim, kv.rope.shape[2]], dim=-1)
        rows = (states.unflatten(-1, (num_heads, dim)), rope)
    shape = (len(rows[0]), *kv.scales.shape[2:])
    scales = torch.zeros(shape, dtype=torch.uint8, device=rows[0].device)
    pairs = []
    for plane, values, first in zip(kv.planes, rows, _first_scales(kv.planes), strict=False):
        numbers, exponents = quantize(values)
        scales[..., first : first + exponents.shape[-1]] = exponents
        pairs.append((plane, numbers))
    pairs.append((kv.scales.view(torch.uint8), scales))
    return pairs if kv.rope is None else [*pairs, (kv.rope, rows[-1].bfloat16())]


def expect_dims(spec: AttentionSpec) -> None:
    """Refuse a spec whose rows have more columns than their scales reach.

    Raises:
        ValueError: a dimension is too large.
    """
    most = SCALE_COLUMNS * NUM_SCALES // len(_dims(spec))
    expect(max(_dims(spec)) <= most, "dims", f"at most {most} for fp8 KV", max(_dims(spec)))


def expect_kv(kv: KV, spec: AttentionSpec, page_size: int) -> None:
    """Refuse KV that is not what a spec stores.

    Raises:
        ValueError: the form, a shape or a stride is another; the message says which.
    """
    is_quantized = isinstance(kv, QuantizedKV)
    planes = kv.planes if isinstance(kv, QuantizedKV) else tensors_of(kv)
    num_planes = 1 if spec.tied else 2
    is_met = len(planes) == num_planes and (is_quantized or isinstance(kv, tuple) != spec.tied)
    if not is_met:
        wanted = "one tensor" if spec.tied else "a tuple (k, v)"
        found = f"a tuple of {len(planes)}" if isinstance(kv, tuple) else type(kv).__name__
        raise ValueError(f"kv must be {wanted} for this spec, got {found}")
    tails: list[tuple[int, ...]] = [(spec.num_kv_heads, dim) for dim in _dims(spec)]
    if spec.tied and not is_quantized:
        tails = [(spec.elements_per_token,)]
    if isinstance(kv, QuantizedKV):
        expect_dims(spec)
        is_met = (kv.rope is not None) == spec.tied
        expect(is_met, "rope", f"{'given' if spec.tied else 'None'} for this spec", type(kv.rope))
        if kv.rope is not None:
            planes, tails = (*planes, kv.rope), [*tails, (spec.rope_dim,)]
    for plane, tail in zip(planes, tails, strict=True):
        if plane.shape[1:] != (page_size, *tail):
            expected = ["num_pages", page_size, *tail]
            raise ValueError(f"kv must be {expected}, got {list(plane.shape)}")
        if plane.stride(-1) != 1:
            raise ValueError(f"kv must be contiguous in its last axis, got {plane.stride()}")


def _first_scales(planes: Sequence[Tensor]) -> list[int]:
    """Where the scales of each plane begin."""
    return [at * NUM_SCALES // len(planes) for at in range(len(planes))]


def _dims(spec: AttentionSpec) -> tuple[int, ...]:
    """Columns of the rows of one stored head, plane by plane."""
    return (spec.v_dim,) if spec.tied else (spec.nope_dim, spec.v_dim)
