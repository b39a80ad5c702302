"""Ranks: the processes that share one model, and what they say to each other. No layers here.

Rank 0 is the program itself. It alone reads prompts, schedules and samples; before a step it tells
the other ranks what the step computes, and they compute their share of it. So nothing can diverge:
no other rank has prompts, seeds or a tree of its own, and logits are looked at on rank 0 only. What
an interrupt leaves half done (a step that some ranks run and others do not) is never gone on with:
the other ranks are ended with it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from bough.parallel.processes import RankProcesses

# A step's message mostly fits one broadcast, its length included; a longer one takes two.
_BLOCK_BYTES = 1 << 14
_LENGTH_BYTES = 8


class Ranks:
    """This process among those that share one model; by default it is the only one.

    Args:
        rank: 0 to `size - 1`; rank 0 leads.
        size: processes.
        data: the group of all-reduces, NCCL on GPUs and gloo on CPUs; None for one rank.
        control: the group of messages, always gloo.
        processes: the other ranks where this one started them.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        *,
        data: dist.ProcessGroup | None = None,
        control: dist.ProcessGroup | None = None,
        processes: RankProcesses | None = None,
    ) -> None:
        self.rank = rank
        self.size = size
        self._data = data
        self._control = control
        self._processes = processes
        self._is_open = size > 1

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        """Sum `x` over the ranks, in place.

        On GPUs it is queued on the current stream like a kernel, and may be captured in a graph.

        Args:
            x: contiguous, of the same shape on every rank.

        Returns:
            x.

        Raises:
            ChildProcessError: another rank is gone.
        """
        if self.size > 1:
            try:
                dist.all_reduce(x, group=self._data)
            except RuntimeError as error:
                raise self._lost(error) from error
        return x

    def send(self, message: object) -> None:
        """Tell the other ranks; rank 0 does.

        Raises:
            ChildProcessError: another rank is gone.
        """
        if self.size == 1:
            return
        data = pickle.dumps(message)
        framed = len(data).to_bytes(_LENGTH_BYTES, "little") + data
        self._broadcast(bytearray(framed[:_BLOCK_BYTES].ljust(_BLOCK_BYTES, b"\0")))
        if len(framed) > _BLOCK_BYTES:
            self._broadcast(bytearray(framed[_BLOCK_BYTES:]))

    def receive(self) -> Any:
        """Wait for what rank 0 sends, for as long as it takes.

        Raises:
            ChildProcessError: another rank is gone.
        """
        block = bytearray(_BLOCK_BYTES)
        self._broadcast(block)
        end = _LENGTH_BYTES + int.from_bytes(block[:_LENGTH_BYTES], "little")
        data = block[_LENGTH_BYTES:end]
        if end > _BLOCK_BYTES:
            rest = bytearray(end - _BLOCK_BYTES)
            self._broadcast(rest)
            data += rest
        return pickle.loads(data)

    def gather(self, value: object) -> list[Any]:
        """Collect a value of each rank, in their order, on every rank.

        Raises:
            ChildProcessError: another rank is gone.
        """
        values: list[Any] = [value]
        if self.size > 1:
            values = [None] * self.size
            try:
                dist.all_gather_object(values, value, group=self._open_control())
            except RuntimeError as error:
                raise self._lost(error) from error
        return values

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold the ranks together while rank 0 runs a step and reads back what came of it.

        Raises:
            ChildProcessError: another rank is gone. However a step fails, the ranks are apart
                then, and all others are ended.
        """
        if self.size == 1:
            yield
            return
        try:
            self._set_needed(True)
            yield
            self._check_fate()
        except BaseException as error:
            if isinstance(error, RuntimeError) and self._processes is not None:
                self._processes.await_fate()  # a GPU may notice a death before the system does
            self.abandon()
            if isinstance(error, Exception):
                self._check_fate(error)  # what came of a death is not the news
            raise
        finally:
            self._set_needed(False)

    def close(self) -> None:
        """End the other ranks, which wait for work, or leave them; a second time does nothing."""
        if not self._is_open:
            return
        if self._processes is not None and self._processes.fate is not None:
            self.abandon()
            return
        if self.rank == 0:
            try:
                self.send(None)
            except ChildProcessError:  # that a rank is gone is no matter at the end
                self.abandon()
                return
        self._end(is_orderly=True)

    def abandon(self) -> None:
        """End the other ranks at once, whatever they are at; a second time does nothing."""
        if self._is_open:
            self._end(is_orderly=False)

    def _set_needed(self, is_needed: bool) -> None:
        if self._processes is not None:
            self._processes.is_needed = is_needed

    def _check_fate(self, cause: Exception | None = None) -> None:
        fate = None if self._processes is None else self._processes.fate
        if fate is not None:
            raise ChildProcessError(fate) from cause

    def _broadcast(self, block: bytearray) -> None:
        """Send a block from rank 0, or fill it on another rank."""
        view = torch.frombuffer(block, dtype=torch.uint8)
        try:
            dist.broadcast(view, src=0, group=self._open_control())
        except RuntimeError as error:
            raise self._lost(error) from error

    def _open_control(self) -> dist.ProcessGroup:
        if not self._is_open:
            raise ChildProcessError(f"ranks 1 to {self.size - 1} must be running, got ended ones")
        assert self._control is not None
        return self._control

    def _lost(self, error: RuntimeError) -> ChildProcessError:
        """Say which rank is gone, where that can be known; else what the others noticed."""
        fate = self._processes.await_fate() if self._processes is not None else None
        reason = str(error).splitlines()[0]
        return ChildProcessError(fate or f"all {self.size} ranks must answer, got {reason}")

    def _end(self, *, is_orderly: bool) -> None:
        self._is_open = False
        if is_orderly:
            dist.destroy_process_group()  # all ranks at once: NCCL's leave together
        elif dist.get_backend(self._data) == "nccl":
            assert self._data is not None
            self._data.abort()  # a sum that is under way may have nobody left to wait for
        if self._processes is not None:
            self._processes.end(is_orderly=is_orderly)
        if not is_orderly:
            dist.destroy_process_group()


def shard_of(full: int, local: int, rank: int, size: int) -> slice:
    """Say which entries of an axis a rank holds, of what length it has of it.

    An axis of `full` entries of which each rank has `local` is in `full / local` shards. Where
    ranks are more than shards, neighbours hold the same one (MLA's single latent, or fewer stored
    heads than ranks), as `AttentionSpec.shard` counts them.
    """
    num_shards = full // local
    assert num_shards * local == full and size % num_shards == 0
    start = rank * num_shards // size * local
    return slice(start, start + local)
