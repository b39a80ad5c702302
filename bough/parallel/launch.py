"""How ranks come together: by torchrun, or as processes that rank 0 starts on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from bough.expect import expect
from bough.parallel.processes import RankProcesses, joined_store, loopback_interface
from bough.parallel.ranks import Ranks

# How long a rank may lag behind in a step, a first compilation of kernels included.
STEP_TIMEOUT = timedelta(minutes=5)
# Ranks also wait for work, as long as nobody has any; the dead are noticed by other means.
IDLE_TIMEOUT = timedelta(days=30)


def launched_rank() -> int:
    """Which rank a launcher such as torchrun made of this process; 0 without one."""
    return int(os.environ.get("RANK", "0")) if launched_size() > 1 else 0


def launched_size() -> int:
    """How many ranks a launcher such as torchrun started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def start_ranks(size: int, device_type: str, entry: str) -> Ranks:
    """Become rank 0 of `size`; start the others, unless torchrun did.

    Args:
        size: ranks, one a GPU; on a CPU they share its cores.
        device_type: `cuda` or `cpu`.
        entry: Python code of the other ranks, which calls `join_ranks`.

    Raises:
        ValueError: there are fewer GPUs, torchrun started another number of ranks, or this process
            is of a process group or not rank 0.
        ChildProcessError: a rank ended before it joined.
    """
    if size == 1:
        return Ranks()
    expect(not dist.is_initialized(), "tensor_parallel_size", "1 inside a process group", size)
    if device_type == "cuda":
        count = torch.cuda.device_count()
        expect(size <= count, "tensor_parallel_size", f"at most the {count} GPUs here", size)
    if launched_size() > 1:
        expect(
            launched_size() == size, "tensor_parallel_size", f"WORLD_SIZE {launched_size()}", size
        )
        expect(launched_rank() == 0, "RANK", "0 for the rank that is given work", launched_rank())
        return join_ranks(device_type)
    num_threads = None
    if device_type == "cpu":
        num_threads = max(1, torch.get_num_threads() // size)
        torch.set_num_threads(num_threads)
    processes = RankProcesses(size, entry, num_threads)
    try:
        store = processes.await_joined()
        processes.is_needed = True
        with _on_loopback():
            data, control = _connect(0, size, device_type, store)
        processes.is_needed = False
    except BaseException:
        processes.end(is_orderly=False)
        raise
    if device_type == "cuda":
        processes.on_death = data.abort  # else a GPU waits for the dead rank's sum for ever
    return Ranks(0, size, data=data, control=control, processes=processes)


def join_ranks(device_type: str) -> Ranks:
    """Join the ranks that the environment tells of, as torchrun and `start_ranks` set it up.

    Args:
        device_type: `cuda` or `cpu`.
    """
    rank, size = launched_rank(), launched_size()
    data, control = _connect(rank, size, device_type, joined_store(rank, size))
    return Ranks(rank, size, data=data, control=control)


def _connect(
    rank: int, size: int, device_type: str, store: dist.Store | None
) -> tuple[dist.ProcessGroup, dist.ProcessGroup]:
    """Make the groups of data and of messages; without a store, by the environment's."""
    device = None
    if device_type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(device)
    dist.init_process_group(
        "gloo" if device is None else "nccl",
        store=store,
        rank=rank,
        world_size=size,
        timeout=STEP_TIMEOUT,
        device_id=device,
    )
    control = dist.new_group(backend="gloo", timeout=IDLE_TIMEOUT)
    assert dist.group.WORLD is not None
    return dist.group.WORLD, control


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let gloo connect over the loopback interface, whatever the machine's name resolves to."""
    name, interface = "GLOO_SOCKET_IFNAME", loopback_interface()
    if name in os.environ or interface is None:
        yield
        return
    os.environ[name] = interface
    try:
        yield
    finally:
        del os.environ[name]
