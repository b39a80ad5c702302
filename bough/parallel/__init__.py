"""Tensor parallelism: several processes that hold a share of one model each."""

from bough.parallel.launch import join_ranks, launched_rank, start_ranks
from bough.parallel.processes import LOST_OTHERS
from bough.parallel.ranks import Ranks, shard_of

__all__ = ["LOST_OTHERS", "Ranks", "join_ranks", "launched_rank", "shard_of", "start_ranks"]
