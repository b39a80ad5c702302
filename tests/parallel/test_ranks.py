"""Ranks add up, hear rank 0 and each other, and never wait for one that is dead."""

from __future__ import annotations

import os

import pytest
import torch

from bough.parallel import Ranks, shard_of, start_ranks
from tests.processes import children_of

# What the other ranks run: they add their number + 1, then say who they are, as long as told to.
ECHO = """
import os, signal, torch
from bough.parallel import join_ranks
ranks = join_ranks("cpu")
while (word := ranks.receive()) is not None:
    if word == ("die", ranks.rank):
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.gather((ranks.rank, word))
    ranks.all_reduce(torch.full((3,), ranks.rank + 1.0))
ranks.close()
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_rank_alone_needs_nobody() -> None:
    ranks = Ranks()
    x = torch.tensor([1.0, 2.0])
    ranks.send("nothing")
    with ranks.step():
        assert ranks.all_reduce(x) is x
    assert x.tolist() == [1.0, 2.0]
    assert ranks.gather(7) == [7]
    ranks.close()
    ranks.abandon()


def test_ranks_add_up_until_one_dies_which_is_told_by_its_number() -> None:
    ranks = start_ranks(3, "cpu", ECHO)
    try:
        for word in ("first", ["second", 2], "x" * 16_000, bytes(50_000)):
            with ranks.step():
                ranks.send(word)
                assert ranks.gather((0, word)) == [(0, word), (1, word), (2, word)]
                assert ranks.all_reduce(torch.ones(3)).tolist() == [6.0, 6.0, 6.0]
        with pytest.raises(ValueError, match="tensor_parallel_size must be 1 inside a process g"):
            start_ranks(2, "cpu", ECHO)
        killed = pytest.raises(ChildProcessError, match=r"rank 2 of 3 must run .* by SIGKILL$")
        with killed, ranks.step():
            ranks.send(("die", 2))
            ranks.gather(0)
            ranks.all_reduce(torch.ones(3))
        with pytest.raises(ChildProcessError, match="ranks 1 to 2 must be running, got ended"):
            ranks.send("anyone")
    finally:
        ranks.close()
    assert not children_of(os.getpid())


def test_a_rank_that_never_joins_is_told_at_once() -> None:
    with pytest.raises(ChildProcessError, match=r"rank 1 of 2 .* got its end with exit code 7"):
        start_ranks(2, "cpu", "raise SystemExit(7)")
    assert not children_of(os.getpid())


def test_torchrun_must_have_started_as_many_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match="tensor_parallel_size must be WORLD_SIZE 4, got 2"):
        start_ranks(2, "cpu", ECHO)
    with pytest.raises(ValueError, match="RANK must be 0 for the rank that is given work, got 1"):
        start_ranks(4, "cpu", ECHO)


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="there are enough GPUs")
def test_each_rank_has_a_gpu_of_its_own() -> None:
    with pytest.raises(ValueError, match=r"tensor_parallel_size must be at most the \d GPUs here"):
        start_ranks(8, "cuda", ECHO)


@pytest.mark.parametrize(
    ("full", "local", "size", "starts"),
    [
        (8, 8, 2, [0, 0]),
        (8, 4, 2, [0, 4]),
        (8, 2, 4, [0, 2, 4, 6]),
        (8, 4, 4, [0, 0, 4, 4]),
        (64, 64, 3, [0, 0, 0]),
    ],
)
def test_ranks_hold_neighbouring_shards_and_copies_where_they_are_more(
    full: int, local: int, size: int, starts: list[int]
) -> None:
    shards = [shard_of(full, local, rank, size) for rank in range(size)]
    assert shards == [slice(start, start + local) for start in starts]
