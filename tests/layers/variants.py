"""The six variants as small attention modules, and a run of one through a paged cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bough.cache.pool import KVPool
from bough.device import Device
from bough.forest import Forest
from bough.layers.context import StepContext
from bough.layers.grouped import GroupedAttention
from bough.layers.latent import LatentAttention, LatentShape
from bough.layers.rope import Rotary
from bough.layers.tied import TiedAttention
from bough.plan import make_plan
from bough.spec import AttentionSpec

HIDDEN = 48
HEADS, HEAD_DIM, ROPE_DIM = 4, 8, 6
SHAPE = LatentShape(key_dim=HEAD_DIM, value_dim=HEAD_DIM)
LOW_RANK = LatentShape(key_dim=HEAD_DIM, value_dim=10, query_rank=20, is_interleaved=True)


def _grouped(num_kv_heads: int) -> GroupedAttention:
    return GroupedAttention(HIDDEN, AttentionSpec.gqa(HEADS, num_kv_heads, HEAD_DIM))


def _latent(num_latents: int, latent_dim: int, shape: LatentShape = SHAPE) -> LatentAttention:
    spec = AttentionSpec.gla(HEADS, num_latents, latent_dim, ROPE_DIM, HEAD_DIM)
    return LatentAttention(HIDDEN, spec, shape, has_bias=shape is LOW_RANK)


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "mha": lambda: _grouped(4),
    "mqa": lambda: _grouped(1),
    "gqa-2": lambda: _grouped(2),
    "gta-2": lambda: TiedAttention(HIDDEN, AttentionSpec.gta(HEADS, 2, HEAD_DIM)),
    "mla": lambda: _latent(1, 4 * HEAD_DIM),
    "mla-low-rank": lambda: _latent(1, 4 * HEAD_DIM, LOW_RANK),
    "gla-2": lambda: _latent(2, 2 * HEAD_DIM),
    "gla-4-low-rank": lambda: _latent(4, 2 * HEAD_DIM, LOW_RANK),
}


def make_layer(variant: str, seed: int = 0) -> nn.Module:
    """Build a variant with random parameters, norms included."""
    layer = VARIANTS[variant]()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name
            parameter.copy_(1 + 0.3 * noise if is_norm else noise / parameter.shape[-1] ** 0.5)
    return layer


def make_rotary(layer: nn.Module) -> Rotary:
    """Angles for a layer's rotary columns."""
    spec = layer.spec
    return Rotary(spec.rope_dim or spec.nope_dim, 10000.0, None)


@torch.no_grad()
def run_cached(layer: nn.Module, x: torch.Tensor, pool: KVPool, cut: int) -> torch.Tensor:
    """Run one sequence in two steps through pages that hold NaN before.

    Args:
        layer: of `make_layer`.
        x: [seq_len, HIDDEN].
        pool: of one layer, large enough.
        cut: tokens of the first step; every later token is a step of its own.

    Returns:
        [seq_len, HIDDEN].
    """
    kv, size = pool.layer(0), pool.page_size
    for plane in kv if isinstance(kv, tuple) else (kv,):
        plane.fill_(torch.nan)
    pages = torch.arange(pool.num_pages, dtype=torch.int32).flip(0)  # not in order
    rotary, out = make_rotary(layer), []
    for start, stop in [(0, cut), *((at, at + 1) for at in range(cut, len(x)))]:
        positions = torch.arange(start, stop)
        lens = torch.tensor([stop], dtype=torch.int32)
        forest = Forest.from_page_table(pages[None], lens, size, [stop - start])
        context = StepContext(
            plan=make_plan(forest, layer.spec, Device.cpu()),
            positions=positions,
            slots=pages[positions // size].long() * size + positions % size,
        )
        out.append(layer(x[start:stop], rotary(positions), context, kv))
    return torch.cat(out)
