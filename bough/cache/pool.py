"""Paged storage for the keys and values of all layers. Which token lies where is not known here."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from bough.expect import expect
from bough.fp8 import FP8
from bough.kv import KV, QuantizedKV, new_plane, tensors_of
from bough.spec import AttentionSpec

SlotMove = tuple[int, int]  # from one slot, `page * page_size + place`, to another


class PoolExhausted(RuntimeError):
    """Fewer pages are free, or can be made free, than were asked for."""


class KVPool:
    """Planes of `num_pages` pages for every layer, and a reference count for each page.

    A page spans all layers: page p of one layer and page p of another hold the same tokens. The
    planes are never initialised and never cleared, so a slot that nobody stored to may hold
    anything, NaN included.

    On a CPU the planes of untied specs lie head by head in memory,
    `[num_kv_heads, num_pages, page_size, dim]`, and are handed out as a permuted view: a run of
    consecutive pages is one contiguous matrix `[run * page_size, dim]` for each head. On other
    devices they lie as their shape says.

    Args:
        spec: what one layer stores.
        num_layers: layers.
        num_pages: pages of each layer.
        page_size: slots per page; a slot holds one token.
        dtype: floating type of the planes; `torch.float8_e4m3fn` for a `QuantizedKV` a layer.
        device: where the planes live, as torch writes it.

    Raises:
        ValueError: a size is below 1, the dtype is not a floating type, or fp8 has no room for
            the scales of the spec's rows.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        *,
        num_layers: int,
        num_pages: int,
        page_size: int = 16,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        sizes = {"num_layers": num_layers, "num_pages": num_pages, "page_size": page_size}
        for name, size in sizes.items():
            expect(size >= 1, name, "at least 1", size)
        is_met = dtype.is_floating_point and (dtype.itemsize > 1 or dtype == FP8)
        expect(is_met, "dtype", f"{FP8} or a wider floating type", dtype)
        self.spec = spec
        self.num_layers = num_layers
        self.num_pages = num_pages
        self.page_size = page_size
        self.dtype = dtype
        self._layers = [self._new_layer(torch.device(device)) for _ in range(num_layers)]
        self._num_refs = [0] * num_pages
        self._num_free = num_pages
        # Free pages as runs of consecutive ids, in order of their starts.
        self._run_starts = [0]
        self._run_lens = [num_pages]

    @property
    def num_free(self) -> int:
        """Pages that nobody holds."""
        return self._num_free

    @property
    def num_bytes(self) -> int:
        """Bytes of the storage of all layers' planes."""
        planes = [plane for kv in self._layers for plane in tensors_of(kv)]
        return sum(plane.untyped_storage().nbytes() for plane in planes)

    def layer(self, index: int) -> KV:
        """Hand out one layer's planes; they are the storage itself, not a copy.

        Returns:
            Untied specs: (k, v), `[num_pages, page_size, num_kv_heads, nope_dim]` and
            `[num_pages, page_size, num_kv_heads, v_dim]`. Tied specs: one tensor
            `[num_pages, page_size, num_kv_heads * v_dim + rope_dim]`. In fp8, a `QuantizedKV`.
        """
        return self._layers[index]

    def allocate(self, num_pages: int) -> list[int]:
        """Take pages that nobody holds; each is held once afterwards.

        The ids are consecutive where a free run is long enough; otherwise the longest free runs
        are taken, so that the pages form few runs. Their contents are whatever they were.

        Raises:
            PoolExhausted: fewer pages are free; nothing is taken.
        """
        expect(num_pages >= 0, "num_pages", "at least 0", num_pages)
        if num_pages > self._num_free:
            raise PoolExhausted(
                f"num_pages must be at most the {self._num_free} free pages, got {num_pages}"
            )
        pages: list[int] = []
        for run in self._choose_runs(num_pages) if num_pages else ():
            start, length = self._run_starts[run], self._run_lens[run]
            count = min(num_pages - len(pages), length)
            pages.extend(range(start, start + count))
            if count < length:
                self._run_starts[run], self._run_lens[run] = start + count, length - count
            else:
                del self._run_starts[run], self._run_lens[run]
        for page in pages:
            self._num_refs[page] = 1
        self._num_free -= num_pages
        return pages

    def retain(self, pages: Iterable[int]) -> None:
        """Hold each of `pages` once more.

        Raises:
            ValueError: nobody holds a page; nothing is changed.
        """
        wanted = list(pages)
        for page in wanted:
            self._expect_held(page, 1)
        for page in wanted:
            self._num_refs[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Hold each of `pages` once less; those that nobody holds any more are free.

        Raises:
            ValueError: a page is held less often than it is to be released; nothing is changed.
        """
        counts = Counter(pages)
        for page, count in counts.items():
            self._expect_held(page, count)
        freed: list[int] = []
        for page, count in counts.items():
            self._num_refs[page] -= count
            if self._num_refs[page] == 0:
                freed.append(page)
        self._num_free += len(freed)
        for start, count in _runs(sorted(freed)):
            self._add_run(start, count)

    def move(self, moves: Sequence[SlotMove]) -> None:
        """Copy the KV of tokens in all layers, all of it read before any is written.

        Args:
            moves: (source, target) slots, `page * page_size + place in page`.
        """
        if not moves:
            return
        tensors = [tensor for kv in self._layers for tensor in tensors_of(kv)]
        slots = torch.tensor(moves, device=tensors[0].device).T
        (page, target_page), (slot, target_slot) = slots // self.page_size, slots % self.page_size
        for tensor in tensors:
            # Types of one byte are copied as bytes: not all of them can be gathered.
            rows = tensor.view(torch.uint8) if tensor.itemsize == 1 else tensor
            rows[target_page, target_slot] = rows[page, slot]

    def _new_layer(self, device: torch.device) -> KV:
        spec, grid = self.spec, (self.num_pages, self.page_size)
        if self.dtype == FP8:
            return QuantizedKV.empty(spec, *grid, device)
        if spec.tied:
            return torch.empty(*grid, spec.elements_per_token, dtype=self.dtype, device=device)
        dims = (spec.nope_dim, spec.v_dim)
        key, value = (new_plane(spec.num_kv_heads, grid, dim, self.dtype, device) for dim in dims)
        return key, value

    def _choose_runs(self, num_pages: int) -> list[int]:
        """Return the first run that is long enough, else the longest ones that are together.

        Several runs come in falling order of index, so that each may be deleted as it is used up.
        """
        for run, length in enumerate(self._run_lens):
            if length >= num_pages:
                return [run]
        chosen: list[int] = []
        for run in sorted(range(len(self._run_lens)), key=lambda run: -self._run_lens[run]):
            chosen.append(run)
            num_pages -= self._run_lens[run]
            if num_pages <= 0:
                break
        return sorted(chosen, reverse=True)

    def _add_run(self, start: int, count: int) -> None:
        """Put `count` free pages back, joined with the runs they touch."""
        at = bisect_left(self._run_starts, start)
        if at < len(self._run_starts) and start + count == self._run_starts[at]:
            count += self._run_lens.pop(at)
            del self._run_starts[at]
        if at and self._run_starts[at - 1] + self._run_lens[at - 1] == start:
            self._run_lens[at - 1] += count
        else:
            self._run_starts.insert(at, start)
            self._run_lens.insert(at, count)

    def _expect_held(self, page: int, count: int) -> None:
        is_page = 0 <= page < self.num_pages
        expect(is_page, "page", f"from 0 to {self.num_pages - 1}", page)
        is_held = self._num_refs[page] >= count
        expect(is_held, f"page {page}", f"held at least {count} times", self._num_refs[page])


def _runs(pages: list[int]) -> list[tuple[int, int]]:
    """Cut sorted page ids into (start, length) of consecutive ids."""
    runs: list[tuple[int, int]] = []
    for page in pages:
        if runs and sum(runs[-1]) == page:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs
