"""A plan's tables side by side in one buffer, written by one copy that nobody waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bough.plan.tables import Arrays

# Tables start at multiples of this many numbers: 16 bytes, as wide as a load can be.
_ALIGNMENT = 4
# Tables of 64-bit numbers.
_WIDE = ("segment_page_start", "query_hidden")


class TableBuffer:
    """Tables of given lengths at fixed addresses, zero where nothing was written.

    On a GPU each write goes through pinned memory of its own, so that a later one overwrites
    nothing that is still on its way.

    Args:
        lengths: entries of each table, in the order in which they lie.
        device: where the tables live, as torch writes it.
    """

    def __init__(self, lengths: Mapping[str, int], device: str) -> None:
        self._places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, length in lengths.items():
            num_words = length * _words(name)
            self._places[name] = (end, end + num_words)
            end += -(-num_words // _ALIGNMENT) * _ALIGNMENT
        self._buffer = torch.zeros(end, dtype=torch.int32, device=device)
        self._is_host = self._buffer.device.type == "cpu"
        self._host = self._buffer.numpy() if self._is_host else np.zeros(0, dtype=np.int32)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return each table as a view of the buffer."""
        return {
            name: _typed(self._buffer[begin:end], name)
            for name, (begin, end) in self._places.items()
        }

    def write(self, arrays: Arrays) -> None:
        """Overwrite neighbouring tables, zero behind what is written.

        Args:
            arrays: tables as they lie in the buffer, none between them left out.
        """
        if self._is_host:
            self._fill(self._host, 0, arrays)
            return
        names = list(arrays)
        low, high = self._places[names[0]][0], self._places[names[-1]][1]
        staged = pinned(high - low)
        self._fill(staged.numpy(), low, arrays)
        self._buffer[low:high].copy_(staged, non_blocking=True)

    def _fill(self, numbers: npt.NDArray[Any], origin: int, arrays: Arrays) -> None:
        """Write tables to memory that stands for the buffer from `origin` on."""
        for name, array in arrays.items():
            begin, end = self._places[name]
            table = numbers[begin - origin : end - origin]
            if name in _WIDE:
                table = table.view(np.int64)
            table[: len(array)] = array
            if len(array) < len(table):
                table[len(array) :] = 0


def pinned(length: int) -> torch.Tensor:
    """[length] numbers of int32 that a GPU can copy while the host goes on.

    The allocator hands their memory out again only once such copies are done.
    """
    return torch.empty(length, dtype=torch.int32, pin_memory=True)


def _words(name: str) -> int:
    return 2 if name in _WIDE else 1


def _typed(numbers: torch.Tensor, name: str) -> torch.Tensor:
    return numbers.view(torch.int64) if name in _WIDE else numbers
