"""The rates and fixed costs of a machine, for the planner. Nothing is launched here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from bough.expect import expect
from bough.rates import cached_rates, shipped_rates


class Tiling(NamedTuple):
    """The tiles of some kernels.

    Attributes:
        heights: query rows of tiles, ascending; a tile runs at the least height that holds its
            rows, and a node is read once per tile of the greatest.
        least_heads: stored heads that a tile below the greatest height covers at least, where they
            divide into so many.
        joined_seconds: longest time of an item of the least height that covers more.
    """

    heights: tuple[int, ...]
    least_heads: int = 1
    joined_seconds: float = 0.0


# Of kernels whose programs have two consumers, each of which takes heads of its own.
PAIRED_TILING = Tiling((16, 64, 128), least_heads=2, joined_seconds=20e-6)
# Columns of keys without and with rotary part, and of values, that such kernels take.
PAIRED_DIMS = ((64, 0, 64), (128, 0, 128), (64, 64, 128))


@dataclass(frozen=True, kw_only=True)
class Device:
    """Rates and fixed costs of one CPU or GPU, for the cost model of `bough.plan`.

    Args:
        name: what people call it.
        torch_device: where its tensors live, as torch writes it (`cpu`, `cuda:0`).
        num_workers: tiles that run side by side (streaming multiprocessors of a GPU).
        bandwidth: bytes per second from memory, all workers together.
        worker_bandwidth: bytes per second from memory that one worker reads where others leave it
            the bandwidth.
        cache_bandwidth: bytes per second from the cache that all workers share; of tiles that
            read the same tokens side by side, all but one read them there.
        matmul_rate: FLOP per second of dense products, all workers together.
        score_rate: scores per second through the softmax, all workers together.
        tile_seconds: fixed cost of one tile.
        partial_seconds: fixed cost of one more partial for one query, beside its bytes.
        merge_seconds: fixed cost of the merging pass, once per step.
        is_overlapped: whether a tile reads its next tokens while it computes.
        min_itemsize: bytes at which a stored number counts at least: rows are converted before
            they are used.
        row_quantum: query rows are computed in multiples of this.
        tiling: the tiles of untied specs.
        latent_tiling: those of tied specs, which are taller: many heads share a latent.
        paired_tiling: those of PAIRED_DIMS in at most 16 bits, where plans are for a kernel of
            paired consumers.
        most_sums: a tile's rows x columns of the value that a worker can hold, which lowers the
            greatest height for wide latents.
        kv_quantum: KV tokens are cut in multiples of this.
        is_split_by_head: whether a tile covers one stored head or all of them.
    """

    name: str
    torch_device: str
    num_workers: int
    bandwidth: float
    worker_bandwidth: float
    cache_bandwidth: float
    matmul_rate: float
    score_rate: float
    tile_seconds: float
    partial_seconds: float
    merge_seconds: float
    is_overlapped: bool
    min_itemsize: int
    row_quantum: int
    tiling: Tiling
    latent_tiling: Tiling
    paired_tiling: Tiling | None
    most_sums: int
    kv_quantum: int
    is_split_by_head: bool

    @classmethod
    def cpu(cls) -> Device:
        """Describe this machine's processor: one worker, whose threads share every product."""
        return CPU

    @classmethod
    def current(cls) -> Device:
        """Describe the GPU where there is one, else the CPU."""
        return cls.named("cuda") if torch.cuda.is_available() else cls.cpu()

    @classmethod
    def named(cls, name: str) -> Device:
        """Look a device up by its short name: `cpu`, `h100`, `h200`, or `cuda` for the GPU here.

        The GPU here has the rates that `bough calibrate` measured on it, else those that ship for
        its kind. Of another kind, it counts as an H100 with multiprocessors of its own number.

        Raises:
            ValueError: no device has that name, or there is no GPU for `cuda`.
        """
        gpus = shipped_rates()
        names = ", ".join(("cpu", "cuda", *gpus))
        expect(name in ("cpu", "cuda", *gpus), "device", f"one of {names}", repr(name))
        if name == "cpu":
            return CPU
        if name in gpus:
            return cls(name=name, **_HOPPER, **gpus[name])
        expect(torch.cuda.is_available(), "device", "cpu where there is no GPU", repr(name))
        gpu = torch.cuda.get_device_name()
        kind = next((kind for kind in gpus if kind in gpu.lower()), "h100")
        num_workers = torch.cuda.get_device_properties().multi_processor_count
        measured = {**(cached_rates(gpu) or {}), "num_workers": num_workers}
        return replace(cls.named(kind), **measured)


# Two cores of a server, as `bough bench kernel` sees them in fp32.
CPU = Device(
    name="cpu",
    torch_device="cpu",
    num_workers=1,
    bandwidth=6e9,
    worker_bandwidth=6e9,
    cache_bandwidth=6e9,
    matmul_rate=90e9,
    score_rate=0.5e9,
    tile_seconds=5e-6,
    partial_seconds=1e-6,
    merge_seconds=150e-6,
    is_overlapped=False,
    min_itemsize=4,
    row_quantum=1,
    tiling=Tiling((4096,)),
    latent_tiling=Tiling((4096,)),
    paired_tiling=None,
    most_sums=1 << 30,
    kv_quantum=1,
    is_split_by_head=False,
)
# What Hopper's GPUs have in common: the tiles that kernels have there. Rates are in `rates.json`.
_HOPPER: dict[str, Any] = {
    "torch_device": "cuda",
    "is_overlapped": True,
    "min_itemsize": 1,
    "row_quantum": 16,
    "tiling": Tiling((16, 64), joined_seconds=4e-6),
    "latent_tiling": Tiling((16, 64, 128)),
    "paired_tiling": PAIRED_TILING,
    "most_sums": 128 * 256,
    "kv_quantum": 64,
    "is_split_by_head": True,
}
