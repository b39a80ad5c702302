"""What the host knows of a plan on the device: the sizes of its buffers, and no more."""

from __future__ import annotations

from dataclasses import dataclass, fields

from bough.expect import expect
from bough.plan.cost import CostModel


@dataclass(frozen=True, kw_only=True)
class DeviceCapacity:
    """Sizes of a device plan's buffers, which never change.

    Args:
        num_requests: rows of the page table, padding included.
        max_pages: columns of the page table.
        num_tiles: tiles, each standing for all head splits; one a request at least.
        num_partials: partials.
    """

    num_requests: int
    max_pages: int
    num_tiles: int
    num_partials: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            expect(value >= 0, field.name, "at least 0", value)
        is_enough = self.num_tiles >= self.num_requests
        expect(is_enough, "num_tiles", "one a request at least", self.num_tiles)

    @classmethod
    def of_batch(cls, num_requests: int, max_pages: int, cost: CostModel) -> DeviceCapacity:
        """Choose sizes that seldom limit the division of work.

        Args:
            num_requests: rows of the page table.
            max_pages: columns of the page table.
            cost: what the plan is made for.
        """
        num_pieces = -(-4 * cost.num_workers // cost.num_head_splits)
        return cls(
            num_requests=num_requests,
            max_pages=max_pages,
            num_tiles=3 * num_requests + num_pieces,
            num_partials=4 * num_requests + num_pieces * min(num_requests, cost.max_tile_queries),
        )


@dataclass(frozen=True, kw_only=True)
class DeviceForest:
    """What is known on the host of a batch that lives on the device.

    Args:
        page_size: slots per page.
        num_queries: one a request.
        max_page: -1: page ids are known on the device alone, and checked nowhere.
    """

    page_size: int
    num_queries: int
    max_page: int = -1
