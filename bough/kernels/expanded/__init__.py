"""A shared prefix of latents as each head's own keys and values: dense, beside a plan."""

from bough.kernels.expanded.expansion import Expansion
from bough.kernels.expanded.prefix import join_prefix

__all__ = ["Expansion", "join_prefix"]
