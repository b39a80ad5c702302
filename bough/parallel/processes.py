"""The other ranks as processes of this machine: started, watched and ended by rank 0.

A rank that dies must never leave the run hanging. Collectives of gloo fail at once when a peer is
gone, those of NCCL wait for it; so a thread looks after the processes, says which one ended and
how, and as a last resort ends this process too.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

# Where the other ranks find rank 0, as host:port.
STORE_VARIABLE = "BOUGH_STORE"
# Exit code of a rank that ended because another one was gone.
LOST_OTHERS = 3

_HOME = str(Path(__file__).parents[2])  # where this package is imported from
_LOOPBACK = "127.0.0.1"
_POLL_SECONDS = 0.1
_FATE_SECONDS = 5.0  # in which a process is seen to be dead whose connection is closed
_GRACE_SECONDS = 10.0  # in which this process must find its own way out of a step
_EXIT_SECONDS = 10.0  # in which ranks end by themselves when told to


class RankProcesses:
    """Ranks 1 and up, each a Python process that runs the same code.

    Args:
        size: ranks, this one included.
        entry: what they run.
        num_threads: of each process's products on the CPU; None leaves it to torch.

    Attributes:
        is_needed: whether this process may be waiting for the others at this moment.
        on_death: what else to do when a rank is dead, so that nobody waits for it.
    """

    def __init__(self, size: int, entry: str, num_threads: int | None = None) -> None:
        self.is_needed = False
        self.on_death: Callable[[], None] = _do_nothing
        self._size = size
        self._fate: str | None = None
        self._has_fate = threading.Event()
        self._is_ending = threading.Event()
        self._store = dist.TCPStore(_LOOPBACK, 0, size, is_master=True, wait_for_workers=False)
        address = f"{_LOOPBACK}:{self._store.port}"
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", entry],
                env=_environment(rank, size, address, num_threads),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is rank 0's; it ends the others
            )
            for rank in range(1, size)
        ]
        threading.Thread(target=self._watch, name="bough ranks", daemon=True).start()

    @property
    def fate(self) -> str | None:
        """What became of the first rank that ended before its time; None while all run."""
        return self._fate

    def await_fate(self) -> str | None:
        """Wait a little for a death to be noticed whose effects were noticed already."""
        self._has_fate.wait(_FATE_SECONDS)
        return self._fate

    def await_joined(self) -> dist.Store:
        """Wait until all ranks are at `joined_store`; return the store.

        Raises:
            ChildProcessError: one ended before.
        """
        keys = [_key(rank) for rank in range(1, self._size)]
        while not self._store.check(keys):
            if self._has_fate.wait(_POLL_SECONDS):
                raise ChildProcessError(self._fate)
        return self._store

    def end(self, *, is_orderly: bool) -> None:
        """End the processes: wait for them where they were told to end, then kill them."""
        self._is_ending.set()
        deadline = time.monotonic() + (_EXIT_SECONDS if is_orderly else 0.0)
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _watch(self) -> None:
        while not self._is_ending.wait(_POLL_SECONDS):
            codes = {rank: process.poll() for rank, process in enumerate(self._processes, 1)}
            ended = [(rank, code) for rank, code in codes.items() if code is not None]
            if ended:
                self._report(*first_to_end(ended))
                return

    def _report(self, rank: int, code: int) -> None:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        self._fate = f"rank {rank} of {self._size} must run to the end, got its end {how}"
        self._has_fate.set()
        # Not waited for: what it is to end may hold it up.
        threading.Thread(target=self.on_death, name="bough on death", daemon=True).start()
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            if not self.is_needed:
                return
            time.sleep(_POLL_SECONDS)
        print(f"bough: {self._fate}", file=sys.stderr, flush=True)
        self.end(is_orderly=False)
        os._exit(1)


def first_to_end(ended: list[tuple[int, int]]) -> tuple[int, int]:
    """Tell which of some ranks ended by itself, of those that are found ended at once.

    Args:
        ended: rank and exit code of each, as `subprocess` gives it.

    Returns:
        One of them: sooner one that did not lose another rank, and soonest one that did not abort
        either, as a thread of gloo may where its peer is gone.
    """
    consequences = (-signal.SIGABRT, LOST_OTHERS)
    likely = {code: place for place, code in enumerate(consequences, 1)}
    return min(ended, key=lambda item: likely.get(item[1], 0))


def joined_store(rank: int, size: int) -> dist.Store | None:
    """Tell rank 0 that this rank is there.

    Returns:
        Rank 0's store; None where another launcher than `RankProcesses` started this process.
    """
    address = os.environ.get(STORE_VARIABLE)
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    store = dist.TCPStore(host, int(port), size, is_master=False, timeout=timedelta(minutes=1))
    store.set(_key(rank), "")
    return store


def loopback_interface() -> str | None:
    """Name the interface that reaches this machine alone; None where it has an unusual name."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), None)


def _environment(rank: int, size: int, address: str, num_threads: int | None) -> dict[str, str]:
    variables = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        STORE_VARIABLE: address,
        "PYTHONPATH": os.pathsep.join(filter(None, (_HOME, os.environ.get("PYTHONPATH")))),
    }
    if num_threads is not None:
        variables["OMP_NUM_THREADS"] = str(num_threads)
    interface = loopback_interface()
    if interface is not None:
        variables.setdefault("GLOO_SOCKET_IFNAME", interface)
    return variables


def _key(rank: int) -> str:
    return f"joined/{rank}"


def _do_nothing() -> None:
    pass
