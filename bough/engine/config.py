"""How an engine is set up, and how much memory it takes for KV."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

import torch

from bough.device import Device
from bough.drafts import MOST_DRAFTS
from bough.expect import expect
from bough.fp8 import FP8
from bough.models.config import DTYPES, ModelConfig

# Shares of the free memory that KV may take; the rest is for a step's activations.
CPU_SHARE = 0.5
GPU_SHARE = 0.85


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Settings of an engine; None leaves the choice to it.

    Args:
        device: where it runs: `cpu`, `cuda`, another name that `Device.named` knows, or a `Device`;
            `Device.current()` when None.
        tensor_parallel_size: ranks that share the model, each with a device of its own, or all on
            the CPU; other settings of sizes are each rank's.
        dtype: of weights and KV, by torch's name or as torch's own; the checkpoint's when None.
        kv_dtype: `fp8` for KV of one byte a number, with scales; as the weights when None.
        page_size: slots per page of KV.
        num_pages: pages of KV, instead of `kv_bytes`.
        kv_bytes: memory for KV in bytes; what is free, at most what `max_num_seqs` full
            contexts take, when None.
        max_num_seqs: most samples that run at once.
        max_num_batched_tokens: most tokens that one step computes; prompts are cut to fit.
        max_model_len: most tokens of prompt and output together; the model's context when None.
        num_draft_tokens: most tokens that each sample guesses a step, at most 64, from what its
            text said before; a step checks them all and gives a token for each that is right.
        seed: start of the random streams of requests without a seed; a fresh one when None.

    Raises:
        ValueError: a setting is out of range.
    """

    device: Device | str | None = None
    tensor_parallel_size: int = 1
    dtype: torch.dtype | str | None = None
    kv_dtype: str | None = None
    page_size: int = 16
    num_pages: int | None = None
    kv_bytes: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int | None = None
    num_draft_tokens: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        optional = {"num_pages", "kv_bytes", "max_model_len", "seed"}
        for field in fields(self):
            if field.name in ("device", "dtype", "kv_dtype"):
                continue
            value = getattr(self, field.name)
            least = 0 if field.name in ("seed", "num_draft_tokens") else 1
            is_met = type(value) is int and value >= least
            is_met |= value is None and field.name in optional
            expect(is_met, field.name, f"a whole number of at least {least}", repr(value))
        count = self.num_draft_tokens
        expect(count <= MOST_DRAFTS, "num_draft_tokens", f"at most {MOST_DRAFTS}", count)
        is_either = self.num_pages is None or self.kv_bytes is None
        expect(is_either, "kv_bytes", "None where num_pages is given", self.kv_bytes)
        is_device = self.device is None or isinstance(self.device, Device | str)
        expect(is_device, "device", "a name or a Device", repr(self.device))
        is_dtype = self.dtype is None or self.dtype in (*DTYPES, *DTYPES.values())
        expect(is_dtype, "dtype", f"one of {', '.join(DTYPES)}", repr(self.dtype))
        expect(self.kv_dtype in (None, "fp8"), "kv_dtype", "fp8 or None", repr(self.kv_dtype))

    @property
    def chosen_device(self) -> Device:
        """The machine to run on."""
        if self.device is None:
            return Device.current()
        device = Device.named(self.device) if isinstance(self.device, str) else self.device
        is_there = device.torch_device == "cpu" or torch.cuda.is_available()
        expect(is_there, "device", "cpu where there is no GPU", repr(device.name))
        return device

    @property
    def device_type(self) -> str:
        """`cuda` or `cpu`."""
        return torch.device(self.chosen_device.torch_device).type

    @property
    def chosen_dtype(self) -> torch.dtype | None:
        """The dtype as torch's own; None for the checkpoint's."""
        return DTYPES[self.dtype] if isinstance(self.dtype, str) else self.dtype

    def model_len(self, model: ModelConfig) -> int:
        """Most tokens of prompt and output together."""
        most = model.context_len
        length = most if self.max_model_len is None else self.max_model_len
        expect(length <= most, "max_model_len", f"at most the model's context {most}", length)
        return length

    def pool_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of KV beside weights of `dtype`."""
        return dtype if self.kv_dtype is None else FP8

    def pool_pages(self, model: ModelConfig, dtype: torch.dtype) -> int:
        """Pages of KV that the engine takes, by what one rank stores of a model of `dtype`."""
        itemsize = self.pool_dtype(dtype).itemsize
        page_bytes = model.num_layers * model.spec.kv_bytes(self.page_size, itemsize)
        device = torch.device(self.chosen_device.torch_device)
        num_sharing = self.tensor_parallel_size if self.device_type == "cpu" else 1
        most = total_bytes(device) // num_sharing // page_bytes
        if self.num_pages is not None:
            expect(self.num_pages <= most, "num_pages", f"at most {most}", self.num_pages)
            return self.num_pages
        if self.kv_bytes is not None:
            num_pages = self.kv_bytes // page_bytes
            expect(num_pages >= 1, "kv_bytes", f"at least a page, {page_bytes}", self.kv_bytes)
            expect(num_pages <= most, "kv_bytes", f"at most {most * page_bytes}", self.kv_bytes)
            return num_pages
        num_wanted = self.max_num_seqs * -(-self.model_len(model) // self.page_size)
        num_pages = min(num_wanted, free_kv_bytes(device) // num_sharing // page_bytes)
        expect(num_pages >= 1, "page_size", "small enough for free memory", self.page_size)
        return num_pages


def total_bytes(device: torch.device) -> int:
    """Bytes of a device's memory, free or not."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def free_kv_bytes(device: torch.device) -> int:
    """Bytes of a device's free memory that may hold KV, once the weights are loaded."""
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    num_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(CPU_SHARE * num_bytes)
