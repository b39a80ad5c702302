"""The launches that store new rows."""

from __future__ import annotations

import torch
import triton

from bough.fp8 import SCALE_COLUMNS
from bough.kernels.triton.launch import plane_of
from bough.kernels.triton.store_kv import store_quantized_rows, store_rows
from bough.kv import QuantizedKV
from bough.spec import NUM_SCALES


def launch_rows(plane: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor) -> None:
    """Copy rows [num_tokens, ...] into a plane [num_pages, page_size, ...]."""
    plane = plane if plane.dim() == 4 else plane[:, :, None]
    rows = rows if rows.dim() == 3 else rows[:, None]
    rows = rows if rows.stride(-1) == 1 else rows.contiguous()
    num_heads, dim = plane.shape[2:]
    store_rows[(len(slots),)](
        plane_of(plane),
        rows,
        rows.stride(0),
        rows.stride(1),
        slots,
        PAGE_SIZE=plane.shape[1],
        NUM_HEADS=num_heads,
        DIM=dim,
        BLOCK_HEADS=triton.next_power_of_2(num_heads),
        BLOCK_DIM=triton.next_power_of_2(dim),
    )


def launch_quantized_rows(
    kv: QuantizedKV, rows: tuple[torch.Tensor, ...], slots: torch.Tensor
) -> None:
    """Quantise rows, as plain KV has them, into every plane; one launch each."""
    exponents = kv.scales.view(torch.uint8)
    if kv.rope is not None:
        num_heads, dim = kv.planes[0].shape[2:]
        states, rope = rows[0].split([num_heads * dim, kv.rope.shape[2]], dim=-1)
        launch_rows(kv.rope, rope, slots)
        rows = (states.unflatten(-1, (num_heads, dim)),)
    for at, (plane, values) in enumerate(zip(kv.planes, rows, strict=True)):
        values = values if values.stride(-1) == 1 else values.contiguous()
        num_heads, dim = plane.shape[2:]
        first = at * NUM_SCALES // len(kv.planes)
        store_quantized_rows[(len(slots),)](
            plane_of(plane),
            plane_of(exponents[..., first:]),
            values,
            values.stride(0),
            values.stride(1),
            slots,
            PAGE_SIZE=plane.shape[1],
            NUM_HEADS=num_heads,
            DIM=dim,
            BLOCK_HEADS=triton.next_power_of_2(num_heads),
            NUM_SCALES=triton.next_power_of_2(-(-dim // SCALE_COLUMNS)),
            COLUMNS=SCALE_COLUMNS,
        )
