"""Which part of a model one of several ranks holds: of its config, and of each of its tensors.

Query heads and stored heads, and the columns inside the feed-forwards, are split. All else is on
every rank: norms, routers, embedding and logits. The vocabulary is not split because only rank 0
needs logits, so that no sum or gather of `[num_rows, vocab_size]` is on a step's way, and they are
the very product that one rank computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from bough.expect import expect
from bough.models.config import ModelConfig
from bough.parallel import Ranks, shard_of

# Projections onto a token's whole cached row: each rank has its latents, and all the rotary key.
_ROW_PROJECTIONS = ("kv_a_proj_with_mqa",)


def share_config(config: ModelConfig, num_ranks: int) -> ModelConfig:
    """Describe what each of `num_ranks` ranks holds, as a smaller model.

    Raises:
        ValueError: heads or columns cannot be divided over the ranks.
    """
    size, moe = config.intermediate_size, config.moe
    expect(size % num_ranks == 0, "tp", f"a divisor of intermediate_size {size}", num_ranks)
    if moe is not None:
        size = moe.expert_size
        expect(size % num_ranks == 0, "tp", f"a divisor of expert_size {size}", num_ranks)
        moe = replace(moe, expert_size=size // num_ranks)
    return replace(
        config,
        spec=config.spec.shard(num_ranks),
        intermediate_size=config.intermediate_size // num_ranks,
        moe=moe,
    )


def pieces_of(
    name: str, whole: Sequence[int], local: Sequence[int], rope_dim: int, ranks: Ranks
) -> list[tuple[slice, ...]]:
    """Say which parts of a checkpoint's tensor a rank reads, to be joined along the first axis.

    Args:
        name: of the tensor.
        whole: its shape in the checkpoint.
        local: its shape on this rank.
        rope_dim: columns of the rotary key.
        ranks: this rank among the others.

    Returns:
        Slices of every axis, one tuple a piece.
    """
    num_shared = rope_dim if name.split(".")[-2] in _ROW_PROJECTIONS else 0
    ends = (whole[0] - num_shared, local[0] - num_shared)
    first = shard_of(*ends, ranks.rank, ranks.size)
    others = tuple(
        shard_of(full, own, ranks.rank, ranks.size)
        for full, own in zip(whole[1:], local[1:], strict=True)
    )
    pieces = [(first, *others)]
    if num_shared:
        pieces.append((slice(ends[0], whole[0]), *others))
    return pieces


def is_left_to_first(
    name: str,
    whole: Mapping[str, torch.Tensor],
    local: Mapping[str, torch.Tensor],
    ranks: Ranks,
) -> bool:
    """Whether a tensor is a bias that rank 0 adds for all: products of split columns are summed."""
    weight = name.removesuffix("bias") + "weight"
    if ranks.rank == 0 or not name.endswith("bias") or weight not in whole:
        return False
    return whole[weight].shape[1:] != local[weight].shape[1:]
