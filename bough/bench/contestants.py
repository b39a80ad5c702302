"""Who takes part on which device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bough.bench.contestant import Contestant
from bough.bench.fa3 import FlashAttention3
from bough.bench.flashinfer import FlashInferCascade, FlashInferDecode
from bough.bench.flex import FlexAttention
from bough.bench.latents import FlashAttention3Latent, FlashMla
from bough.bench.ours import Bough, BoughApart, BoughNodes, BoughPlain
from bough.bench.sdpa import TorchSdpa
from bough.expect import expect

_BY_DEVICE: dict[str, tuple[Contestant, ...]] = {
    "cpu": (Bough(), BoughApart(), TorchSdpa()),
    "cuda": (
        Bough(),
        BoughApart(),
        FlashAttention3(),
        FlashAttention3Latent(),
        FlashMla(),
        FlashInferDecode(),
        FlashInferCascade(),
        FlexAttention(),
        TorchSdpa(),
    ),
}


# Whom only those meet who name them.
_ON_REQUEST: tuple[Contestant, ...] = (BoughNodes(), BoughPlain())


def choose(device: str, names: Sequence[str] | None = None) -> tuple[Contestant, ...]:
    """Return the contestants of a device, ours first.

    Args:
        device: as torch writes it.
        names: whom to compare with ours; everybody when None.

    Raises:
        ValueError: nobody has one of the names there.
    """
    ours, *others = _BY_DEVICE[torch.device(device).type]
    if names is None:
        return ours, *others
    known = {contestant.name: contestant for contestant in (*_ON_REQUEST, *others)}
    for name in names:
        expect(name in known, "against", f"of {', '.join(known)}", repr(name))
    return ours, *(known[name] for name in known if name in names)
