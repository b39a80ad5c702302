"""A plan's tables side by side in one buffer, written by one copy that nobody waits for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from bough.plan.tables import Arrays

# Tables start at multiples of this many numbers: 16 bytes, as wide as a load can be.
_ALIGNMENT = 4
# Tables of 64-bit numbers.
_WIDE = ("segment_page_start",)


class TableBuffer:
    """Tables of given lengths at fixed addresses, zero where nothing was written.

    On a GPU each write goes through pinned memory of its own, so that a later one overwrites
    nothing that is still on its way.

    Args:
        lengths: entries of each table, in the order in which they lie.
        device: where the tables live, as torch writes it.
    """

    def __init__(self, lengths: Mapping[str, int], device: str) -> None:
        self._lengths = dict(lengths)
        self._begin: dict[str, int] = {}
        end = 0
        for name, length in lengths.items():
            self._begin[name] = end
            end += -(-length * _words(name) // _ALIGNMENT) * _ALIGNMENT
        self._buffer = torch.zeros(end, dtype=torch.int32, device=device)
        self._is_host = self._buffer.device.type == "cpu"

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return each table as a view of the buffer."""
        return {
            name: _typed(self._buffer[begin : begin + self._lengths[name] * _words(name)], name)
            for name, begin in self._begin.items()
        }

    def write(self, arrays: Arrays) -> None:
        """Overwrite neighbouring tables, zero behind what is written.

        Args:
            arrays: tables that stand one after the other in the buffer, none between them left
                out.
        """
        begins = [self._begin[name] for name in arrays]
        low = min(begins)
        high = max(self._begin[name] + self._lengths[name] * _words(name) for name in arrays)
        target = self._buffer[low:high]
        source = target.zero_() if self._is_host else pinned(high - low)
        numbers = source.numpy()
        for (name, array), begin in zip(arrays.items(), begins, strict=True):
            at = begin - low
            stop = at + len(array) * _words(name)
            (numbers[at:stop].view(np.int64) if name in _WIDE else numbers[at:stop])[:] = array
        if source is not target:
            target.copy_(source, non_blocking=True)


def pinned(length: int) -> torch.Tensor:
    """[length] zeros of int32 that a GPU can copy while the host goes on.

    The allocator hands their memory out again only once such copies are done.
    """
    return torch.zeros(length, dtype=torch.int32, pin_memory=True)


def _words(name: str) -> int:
    return 2 if name in _WIDE else 1


def _typed(numbers: torch.Tensor, name: str) -> torch.Tensor:
    return numbers.view(torch.int64) if name in _WIDE else numbers
