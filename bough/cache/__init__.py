"""Paged storage of keys and values, and the tree that knows which tokens lie in which page."""

from bough.cache.node import Match, QuerySpan, RadixNode
from bough.cache.pool import KVPool, PoolExhausted
from bough.cache.radix import RadixTree

__all__ = ["KVPool", "Match", "PoolExhausted", "QuerySpan", "RadixNode", "RadixTree"]
