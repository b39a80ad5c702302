"""Which latents the Hopper kernels take, and how. Pure, so that tests and compile checks use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from bough.kernels.triton.config import MergeBlock
from bough.spec import NUM_SCALES, AttentionSpec

BLOCK_KV = 64
# Shared memory of a multiprocessor, less barriers and what warps hand over when they part.
_SHARED_BYTES = 226 * 1024
_MOST_STAGES = 6
# Rows of `few`, the width of its products; and what its warps reduce and tell each other through.
_FEW_ROWS = (16, 32)
_MOST_PAIRS = 4
_SCRATCH_BYTES = 8 * 1024
# What a merging program holds at a time, 32 numbers a thread.
_MOST_PARTIALS = 128
_MERGED_NUMBERS = 4096
# Partials that all queries together have programs for.
_MERGED_BY_ALL = 512


class Registers(NamedTuple):
    """Of a thread in a program's second and third warpgroup; what is left is the first one's."""

    second: int
    third: int


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Which kernel runs a spec, and how.

    Args:
        name: `narrow` up to 256 columns, `wide` for 512; in fp8 `quantized` for many rows of up to
            256 columns, `few` for all else.
        block_rows: query rows of a program.
        num_stages: blocks of KV in shared memory that consumers read.
        registers: of its warpgroups.
        num_staged: blocks of fp8 that each producer of `quantized` holds beside these.
    """

    name: Literal["narrow", "wide", "few", "quantized"]
    block_rows: int
    num_stages: int
    registers: Registers
    num_staged: int = 0


class LatentShape(NamedTuple):
    """What a kernel is compiled for: the attention, how it is stored, what a program works on.

    HAS_BOXES says whether the copy engine can fetch blocks, because they divide pages; IS_ALIGNED
    whether it fetches all of them, so that blocks begin where it can.
    """

    NUM_KV_HEADS: int
    GROUP_SIZE: int
    V_DIM: int
    ROPE_DIM: int
    PAGE_SIZE: int
    HAS_BOXES: bool
    IS_ALIGNED: bool
    HAS_SINKS: bool
    BLOCK_ROWS: int
    BLOCK_KV: int
    NUM_SLICES: int
    NUM_STAGES: int


def refusal(spec: AttentionSpec, dtype: torch.dtype, capability: tuple[int, int]) -> str | None:
    """Say why the kernels do not take a spec, a dtype or a card; None where they do.

    Args:
        spec: the attention variant.
        dtype: of queries, and of stored rows but for fp8.
        capability: compute capability of the GPU.
    """
    if capability[0] != 9:
        return f"needs compute capability 9, got {capability[0]}.{capability[1]}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"takes float16 and bfloat16, got {dtype}"
    if not spec.is_latent:
        return "takes latents, whose keys hold the whole value"
    if (spec.v_dim, spec.rope_dim) not in ((128, 32), (128, 64), (256, 32), (256, 64), (512, 64)):
        return (
            "takes latents of 128 or 256 columns with 32 or 64 rotary ones, or of 512 with 64, "
            f"got {spec.v_dim} and {spec.rope_dim}"
        )
    if spec.window is not None or spec.softcap is not None:
        return "takes no window and no softcap"
    return None


def choose_kernel(spec: AttentionSpec) -> Kernel:
    """Choose a kernel and how it runs.

    Args:
        spec: a spec that is not refused.
    """
    if spec.v_dim == 512:
        return Kernel(name="wide", block_rows=64, num_stages=3, registers=Registers(160, 160))
    row = 2 * spec.qk_dim
    num_stages = min(_MOST_STAGES, (_SHARED_BYTES - 128 * row) // (BLOCK_KV * row))
    return Kernel(
        name="narrow", block_rows=128, num_stages=num_stages, registers=Registers(232, 40)
    )


def choose_fp8_kernel(spec: AttentionSpec, most_rows: int) -> Kernel:
    """Choose a kernel of latents in fp8, and how it runs.

    Blocks of 512 columns written out as 16 bits would not fit, so `few` takes all rows of these, in
    slices. Up to 64 rows of less leave a warpgroup to load, and the memory of its queries to one
    more block.

    Args:
        spec: a spec that is not refused.
        most_rows: query rows of the tallest tile.
    """
    row = 2 * spec.qk_dim
    staged_row = spec.v_dim + NUM_SCALES + 2 * spec.rope_dim
    if most_rows <= _FEW_ROWS[-1] or spec.v_dim > 256:
        block_rows = next((height for height in _FEW_ROWS if height >= most_rows), _FEW_ROWS[-1])
        free = _SHARED_BYTES - _SCRATCH_BYTES - block_rows * (row + 4 * BLOCK_KV)
        num_pairs = min(_MOST_PAIRS, free // (2 * BLOCK_KV * staged_row))
        return Kernel(
            name="few",
            block_rows=block_rows,
            num_stages=2 * num_pairs,
            registers=Registers(224, 56),
        )
    num_consumers = 1 if most_rows <= 64 else 2
    free = _SHARED_BYTES - num_consumers * 64 * row - 2 * BLOCK_KV * staged_row
    return Kernel(
        name="quantized",
        block_rows=64 * num_consumers,
        num_stages=min(4, free // (BLOCK_KV * row)),
        registers=Registers(136, 136) if num_consumers == 1 else Registers(232, 40),
        num_staged=num_consumers,
    )


def latent_shape(
    spec: AttentionSpec, kernel: Kernel, *, page_size: int, is_contiguous: bool, most_rows: int
) -> LatentShape:
    """Collect what the kernel of a spec is compiled for.

    Args:
        spec: a spec that is not refused.
        kernel: what was chosen for it.
        page_size: slots per page.
        is_contiguous: whether pages follow each other in memory as slots do in a page.
        most_rows: query rows of the tallest tile.
    """
    has_boxes = is_contiguous and page_size % BLOCK_KV == 0
    return LatentShape(
        NUM_KV_HEADS=spec.num_kv_heads,
        GROUP_SIZE=spec.group_size,
        V_DIM=spec.v_dim,
        ROPE_DIM=spec.rope_dim,
        PAGE_SIZE=page_size,
        # Producers of `quantized` fence their blocks themselves, so consumers need not either.
        HAS_BOXES=has_boxes or kernel.name == "quantized",
        IS_ALIGNED=has_boxes and kernel.name == "wide",
        HAS_SINKS=spec.sinks,
        BLOCK_ROWS=kernel.block_rows,
        BLOCK_KV=BLOCK_KV,
        NUM_SLICES=-(-most_rows // kernel.block_rows),
        NUM_STAGES=kernel.num_stages,
    )


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
