"""What only two GPUs can show of ranks: sums inside CUDA graphs."""

from __future__ import annotations

import pytest
import torch

from bough.parallel import Ranks, join_ranks, start_ranks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


def replayed_sums(ranks: Ranks) -> list[float]:
    """Capture a sum over the ranks in a CUDA graph, and replay it on changing terms."""
    term = torch.full((1024,), ranks.rank + 1.0, device="cuda")
    ranks.all_reduce(term.clone())
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        total = ranks.all_reduce(term * 2.0)
    found = []
    for _ in range(3):
        graph.replay()
        found.append(float(total[7]))
        term += 1.0
    return found


FOLLOW = "from tests.parallel.test_ranks_gpu import follow; follow()"


def follow() -> None:
    """Be the other rank of `replayed_sums`."""
    ranks = join_ranks("cuda")
    replayed_sums(ranks)
    ranks.receive()
    ranks.close()


def test_a_captured_sum_is_that_of_each_replays_terms() -> None:
    ranks = start_ranks(2, "cuda", FOLLOW)
    assert replayed_sums(ranks) == [6.0, 10.0, 14.0]
    ranks.close()
