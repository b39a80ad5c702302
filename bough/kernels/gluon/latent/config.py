"""Which latents the Hopper kernels take, and how. Pure, so that tests and compile checks use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from bough.kernels.triton.config import MergeBlock
from bough.spec import AttentionSpec

BLOCK_KV = 64
# Shared memory of a multiprocessor, less barriers and what warps hand over when they part.
_SHARED_BYTES = 226 * 1024
_MOST_STAGES = 6
# What a merging program holds at a time, 32 numbers a thread.
_MOST_PARTIALS = 128
_MERGED_NUMBERS = 4096
# Partials that all queries together have programs for.
_MERGED_BY_ALL = 512


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Which kernel runs a spec, and its compile-time shape.

    Args:
        kernel: `narrow` up to 256 columns, 128 rows a program; `wide` for 512 columns in pages
            that blocks divide, `halves` for 512 columns in any pages, 64 rows a program.
        num_stages: blocks of KV in shared memory.
        registers: of a thread of each role, by the kernel's names for them.
    """

    kernel: Literal["narrow", "wide", "halves"]
    num_stages: int
    registers: dict[str, int]

    @property
    def block_rows(self) -> int:
        """Query rows of a program."""
        return 128 if self.kernel == "narrow" else 64


def refusal(spec: AttentionSpec, dtype: torch.dtype, capability: tuple[int, int]) -> str | None:
    """Say why the kernels do not take a spec, a dtype or a card; None where they do.

    Args:
        spec: the attention variant.
        dtype: of queries and stored rows.
        capability: compute capability of the GPU.
    """
    if capability[0] != 9:
        return f"needs compute capability 9, got {capability[0]}.{capability[1]}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"takes float16 and bfloat16, got {dtype}"
    if not spec.tied or spec.nope_dim != spec.v_dim:
        return "takes latents, whose keys hold the whole value"
    if (spec.v_dim, spec.rope_dim) not in ((128, 32), (128, 64), (256, 32), (256, 64), (512, 64)):
        return (
            "takes latents of 128 or 256 columns with 32 or 64 rotary ones, or of 512 with 64, "
            f"got {spec.v_dim} and {spec.rope_dim}"
        )
    if spec.window is not None or spec.softcap is not None:
        return "takes no window and no softcap"
    return None


def choose_shape(spec: AttentionSpec, has_boxes: bool) -> Shape:
    """Choose a kernel and its shape.

    Args:
        spec: a spec that is not refused.
        has_boxes: whether the copy engine can fetch blocks: they divide pages.
    """
    if spec.v_dim == 512:
        if has_boxes:
            return Shape(kernel="wide", num_stages=3, registers={"ADDER_REGISTERS": 160})
        registers = {"ADDER_REGISTERS": 208, "PRODUCER_REGISTERS": 72}
        return Shape(kernel="halves", num_stages=2, registers=registers)
    row = 2 * spec.qk_dim
    num_stages = min(_MOST_STAGES, (_SHARED_BYTES - 128 * row) // (BLOCK_KV * row))
    registers = {"CONSUMER_REGISTERS": 232, "PRODUCER_REGISTERS": 40}
    return Shape(kernel="narrow", num_stages=num_stages, registers=registers)


def merge_block(most_partials: int, num_queries: int, v_dim: int) -> MergeBlock:
    """Choose what a merging program reads at a time.

    Few partials are merged one after the other, for many heads at once. Many belong to few
    queries: they are read all at once, and their columns are dealt to programs of their own, or
    too few would read and each would wait too often. Where one query among many has most of them,
    all others leave the programs that it needs idle, so these read longer.

    Args:
        most_partials: partials of the query that has most.
        num_queries: queries that may have partials.
        v_dim: columns of an output.
    """
    if most_partials <= 4:
        return MergeBlock(partials=1, heads=8, columns=v_dim)
    few = _MERGED_NUMBERS // v_dim
    most = max(few, min(_MOST_PARTIALS, _MERGED_BY_ALL // num_queries))
    partials = 1 << (min(most_partials, most) - 1).bit_length()
    columns = min(v_dim, _MERGED_NUMBERS // partials)
    return MergeBlock(partials=partials, heads=1, columns=columns, few=min(few, partials))
