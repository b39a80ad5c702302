"""The cost model: what a tile, a partial and a merge take. Every choice of the planner asks it.

A tile computes the attention of some query rows over some KV tokens on one worker. With h stored
heads in the tile, r query rows a head (queries x group_size, padded to the device's row quantum)
and t tokens:

    bytes(t) = t x stored bytes of h heads
    scores(r, t) = r x t x h
    flops(r, t) = 2 x scores(r, t) x (qk_dim + v_dim)
    products(r, t) = flops(r, t) / matmul rate + scores(r, t) / score rate
    reading(t) = max(s x bytes(t) / (tiles that read them x worker bandwidth),
                     bytes(t) / worker's bandwidth from the cache, where several tiles read them)
    C(r, t) = tile_seconds + max(reading(t), products(r, t))

or the sum of the two where a device reads and computes in turn. Tiles that hold other queries of
the same node read its tokens side by side: from memory once, and each from the cache. So do the
heads of a tied spec the rotary key that they share.
The worker rates are the device's, divided by its workers: C is in worker-seconds, and a schedule
whose workers are evenly loaded takes sum(C) / num_workers. At s = 1 each worker has an even share
of the memory's bandwidth. Beside workers that compute it has more: `reading_factor` finds the
least s at which all memory is read in time, down to what one worker can read alone. Where one
query's rows fill several workers, these count as one, and all but the first read the tokens from
the cache. A query that is cut into several tiles leaves a partial in fp32 for each of them, written
once and read once:

    P(n) = n x (partial_seconds + 2 x 4 x num_q_heads x (v_dim + 1) / worker bandwidth)

The form follows CoDec (arXiv 2505.17694, section 5), which fits C(n_q, n_kv) to measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from bough.device import PAIRED_DIMS, PAIRED_TILING, Device, Tiling
from bough.plan.token_cost import TokenCost
from bough.spec import AttentionSpec
from bough.tree_order import Index

Seconds = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer]

# Time of reading what another request has just read, of that of reading it from memory: GLA-2 on an
# H100 takes 0.80 to 0.85, under 8 to 256 requests and nodes of 2048 to 120000 tokens.
_READ_AGAIN = 0.82
# Tiles of the least height that rows in fp8 are cut into sooner than they take a taller one.
_LOW_TILES = 2


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Costs of one spec on one device, in worker-seconds over all stored heads.

    Args:
        spec: the attention variant.
        device: rates and fixed costs.
        itemsize: bytes of a stored number; 1 for fp8 with its scales.
    """

    spec: AttentionSpec
    device: Device
    itemsize: int

    @property
    def num_head_splits(self) -> int:
        """Tiles that share the stored heads of one piece of work."""
        return self.spec.num_kv_heads if self.device.is_split_by_head else 1

    @cached_property
    def tiling(self) -> Tiling:
        """The tiles of the spec, of heights that workers hold; latents have kernels of one."""
        spec, device = self.spec, self.device
        tiling = device.latent_tiling if spec.tied else device.tiling
        if device.paired_tiling is not None and self._is_paired:
            tiling = device.paired_tiling
        lowest, *taller = tiling.heights
        fitting = (lowest, *(n for n in taller if n * spec.v_dim <= device.most_sums))
        return tiling._replace(heights=fitting[-1:] if spec.is_latent else fitting)

    @property
    def _is_paired(self) -> bool:
        """Whether kernels of paired consumers take such keys and values."""
        spec = self.spec
        is_taken = (spec.nope_dim, spec.rope_dim, spec.v_dim) in PAIRED_DIMS
        return is_taken and self.itemsize <= 2 and spec.group_size <= PAIRED_TILING.heights[-1]

    @property
    def least_heads(self) -> int:
        """Head splits that an item of a tile below the greatest height covers at least."""
        least = self.tiling.least_heads
        return least if self.num_head_splits % least == 0 else 1

    @property
    def tile_heights(self) -> tuple[int, ...]:
        """Heights at which tiles of the spec run, ascending."""
        return self.tiling.heights

    @property
    def workers_per_item(self) -> int:
        """Workers that an item takes side by side: one, where a query's rows fit a tile."""
        return -(-self.spec.group_size // self.tile_heights[-1])

    @cached_property
    def num_workers(self) -> int:
        """Items that run side by side."""
        return max(1, self.device.num_workers // self.workers_per_item)

    @property
    def max_tile_queries(self) -> int:
        """Most queries of one tile."""
        return max(1, self.tile_heights[-1] // self.spec.group_size)

    def tile_queries(self, num_queries: Counts) -> Index:
        """Most queries of a tile, for tasks of some counts of queries.

        In fp8 two tiles of the least height are quicker than a taller one: they turn numbers in
        registers, and the second reads from the cache.
        """
        most = np.full(num_queries.shape, self.max_tile_queries)
        lowest = self.tile_heights[0]
        if self.itemsize == 1 and self._is_paired:
            fits = num_queries * self.spec.group_size <= _LOW_TILES * lowest
            most[fits] = min(self.max_tile_queries, max(1, lowest // self.spec.group_size))
        return most

    @cached_property
    def fixed(self) -> float:
        """Fixed cost of one tile on every stored head."""
        return self.device.tile_seconds * self.num_head_splits

    @cached_property
    def least_reading_factor(self) -> float:
        """What a worker that reads alone takes of what it takes at an even share of bandwidth."""
        device = self.device
        return min(1.0, device.bandwidth / (device.num_workers * device.worker_bandwidth))

    @cached_property
    def _bytes_per_token(self) -> tuple[int, int]:
        """Stored bytes, and those that come from the cache once more: rotary keys of tied specs.

        Each head split takes the rotary key that all share on its own.
        """
        itemsize = max(self.itemsize, self.device.min_itemsize)
        again = (self.num_head_splits - 1) * self.spec.rope_bytes(itemsize)
        return self.spec.kv_bytes(1, itemsize), again

    @cached_property
    def _per_token(self) -> float:
        return self._bytes_per_token[0] * self.num_workers / self.device.bandwidth

    @cached_property
    def _per_pair(self) -> float:
        products = self.spec.flops(1) / self.device.matmul_rate
        softmax = self.spec.num_q_heads / self.device.score_rate
        return (products + softmax) * self.num_workers

    @cached_property
    def _from_cache(self) -> float:
        moved = sum(self._bytes_per_token) * self.num_workers / self.device.cache_bandwidth
        return moved * self.workers_per_item

    @cached_property
    def again_factor(self) -> float:
        """What a token takes that several requests read on their own, of one that none else reads.

        Requests read side by side, and the cache has what another has just read. Untied specs read
        so often apart what they may share that this never tells.
        """
        if not self.spec.is_latent:
            return 1.0
        alone = self.per_token(np.array([1]), np.array([1]))
        return float((alone.seconds(_READ_AGAIN) / alone.seconds())[0])

    def tile_class(self, num_queries: Counts) -> Index:
        """Place in `tile_heights` of the height at which each count of queries runs."""
        heights = np.array(self.tile_heights)
        rows = num_queries * self.spec.group_size
        return np.minimum(np.searchsorted(heights, rows), len(heights) - 1)

    def per_token(self, num_queries: Counts, num_readers: Counts) -> TokenCost:
        """Cost of one more KV token for classes of tiles, fixed cost apart.

        Args:
            num_queries: [num_classes] queries of a tile.
            num_readers: [num_classes] tiles that read the same tokens, this one counted.
        """
        quantum = self.device.row_quantum
        rows = num_queries * self.spec.group_size
        padded = -(-rows // quantum) * quantum / self.spec.group_size
        has_others = num_readers * self.workers_per_item > 1
        has_others |= self._bytes_per_token[1] > 0
        return TokenCost(
            reading=self._per_token / num_readers,
            cached=np.where(has_others, self._from_cache, 0.0),
            products=padded * self._per_pair,
            is_overlapped=self.device.is_overlapped,
        )

    def rate(self, num_queries: Counts, num_readers: Counts | int = 1) -> Seconds:
        """Cost of one more KV token for each count of queries, at an even share of the bandwidth.

        Args:
            num_queries: queries of a tile.
            num_readers: tiles that read the same tokens, this one counted.
        """
        return self.per_token(num_queries, np.asarray(num_readers)).seconds()

    def line(self, num_queries: Counts) -> tuple[Seconds, Seconds]:
        """Cost of work before it is divided: full tiles of queries, then one with the rest.

        Returns:
            fixed cost, and cost per KV token, of each count of queries.
        """
        size = 1 << int(num_queries.max(initial=0)).bit_length()
        fixed, per_token = _lines(self, size)
        return fixed[num_queries], per_token[num_queries]

    def tiles(self, num_queries: Counts, num_tokens: Counts) -> Seconds:
        """Cost of work before it is divided."""
        fixed, per_token = self.line(num_queries)
        return fixed + per_token * num_tokens

    def partials(self, num_partials: Counts | int) -> Seconds:
        """Cost of writing partials of whole queries and merging them."""
        size = 8 * self.spec.num_q_heads * (self.spec.v_dim + 1)
        moved = size * self.num_workers / self.device.bandwidth
        return np.asarray(num_partials * (self.device.partial_seconds + moved))

    @property
    def merge(self) -> float:
        """Fixed cost of the merging pass, which every worker waits for."""
        return self.device.merge_seconds * self.num_workers


@lru_cache(maxsize=32)
def cost_model(spec: AttentionSpec, device: Device, itemsize: int) -> CostModel:
    """One model for all plans of a spec on a device, which keeps what it has worked out."""
    return CostModel(spec=spec, device=device, itemsize=itemsize)


@lru_cache(maxsize=32)
def _lines(cost: CostModel, size: int) -> tuple[Seconds, Seconds]:
    """What `CostModel.line` returns for each count below a size: every plan asks for the same."""
    most = cost.tile_queries(np.arange(size))
    full, rest = np.divmod(np.arange(size), most)
    has_rest = rest > 0
    readers = np.maximum(1, full + has_rest)
    of_full = cost.rate(most, readers)
    per_token = full * of_full + has_rest * cost.rate(rest, readers)
    return (full + has_rest) * cost.fixed, per_token
