"""What one more KV token costs classes of tiles, and how fast they read it beside each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]


class TokenCost(NamedTuple):
    """Worker-seconds of one more KV token, on every stored head.

    Attributes:
        reading: [num_classes] of reading it from memory at an even share of its bandwidth.
        cached: [num_classes] of reading it from the cache, 0 where no other worker reads it.
        products: [num_classes] of computing.
        is_overlapped: whether a tile reads its next tokens while it computes.
    """

    reading: Seconds
    cached: Seconds
    products: Seconds
    is_overlapped: bool

    def seconds(self, factor: float = 1.0) -> Seconds:
        """[num_classes] of all of it.

        Args:
            factor: of the time that reading memory takes at an even share of its bandwidth.
        """
        reading = np.maximum(factor * self.reading, self.cached)
        if self.is_overlapped:
            return np.maximum(reading, self.products)
        return reading + self.products

    def reading_factor(self, tokens: npt.NDArray[np.number], least: float) -> float:
        """Return the least factor of reading at which the memory's bandwidth suffices for all.

        Tiles that compute leave their share of the bandwidth to tiles that read. Work of a class
        takes `max(factor x reading, rest)`, the rest being products and the cache, and all of it
        `sum(reading)` at least. The sum of the maxima is the greatest sum over all choices of the
        classes that wait for memory; by rising `rest / reading` these are the first k for some k.
        So each k has a factor, and the least of them suffices.

        Args:
            tokens: [num_classes] KV tokens that all tiles of a class visit.
            least: what a worker that reads alone takes, as a share of what it takes at an even
                share of the bandwidth; at most 1.

        Returns:
            1 where all work waits for memory or a device reads and computes in turn.
        """
        rest = np.maximum(self.products, self.cached)
        if least >= 1 or not self.is_overlapped or (rest <= self.reading).all():
            return 1.0
        if np.maximum(least * self.reading, rest) @ tokens >= self.reading @ tokens:
            return least
        order = (rest / self.reading).argsort()
        waiting = (self.reading * tokens)[order].cumsum()
        others = np.zeros_like(waiting)
        others[:-1] = (rest * tokens)[order][:0:-1].cumsum()[::-1]
        factors = (waiting[-1] - others) / np.maximum(waiting, 1e-30)
        return float(np.clip(factors.min(), least, 1.0))
