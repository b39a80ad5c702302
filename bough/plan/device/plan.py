"""A plan that follows a page table on the device, for engines that have it nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import triton

from bough.device import Device
from bough.expect import expect
from bough.plan.buffer import TableBuffer
from bough.plan.cost import cost_model
from bough.plan.device.arguments import Nodes, PageTable, Tables
from bough.plan.device.capacity import DeviceCapacity, DeviceForest
from bough.plan.device.division import divide_nodes
from bough.plan.device.nodes import find_nodes
from bough.plan.device.rows import STEP, find_shared, hash_prefixes, order_rows
from bough.plan.device.tables import place_nodes, write_merges, write_queries, write_tiles
from bough.plan.tables import PlanCapacity, PlanTables
from bough.spec import AttentionSpec

# Halvings of an interval of seconds: to a thousandth, from bounds a millionfold apart.
_NUM_HALVINGS = 16
# Nodes that a program compares with all others at a time, and warps that hold all nodes.
_PLACED = 2
_WARPS = 8


class DevicePlan:
    """Serves `attend` as a `Plan` does, from a page table that the host never sees.

    Each update orders the rows, finds the runs of pages that they share, and divides and lists the
    work, in nine launches whose grids follow from the capacity alone: it waits for nothing, and a
    CUDA graph can hold it together with the attention that it serves. Rows have one query each.

    It makes simpler choices than `make_plan`: whether a node is folded depends on that node alone,
    one bound on the seconds of a tile is tried, and every tile reads at an even share of the
    bandwidth, also beside tiles that compute.

    Args:
        spec: the attention variant.
        device: the machine.
        page_size: slots per page.
        capacity: sizes of all buffers; `DeviceCapacity.of_batch` where they are a batch's alone.
        itemsize: bytes of a stored number.

    Raises:
        NotImplementedError: the spec has a window.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        device: Device,
        page_size: int,
        capacity: DeviceCapacity,
        *,
        itemsize: int = 2,
    ) -> None:
        if spec.window is not None:
            raise NotImplementedError(
                f"DevicePlan takes no window, got {spec.window}; what works: make_plan"
            )
        self.cost = cost_model(spec, device, itemsize)
        self.capacity = capacity
        self.memo: dict[str, Any] = {}
        self.forest = DeviceForest(page_size=page_size, num_queries=capacity.num_requests)
        self._tables = self._new_tables()
        written = (getattr(self._tables, name) for name in Tables._fields)
        self._written = Tables(*written)
        self._nodes = self._new_nodes()
        self._shared = self._numbers(capacity.num_requests + 1)
        num_hashes = capacity.max_pages // STEP.value * capacity.num_requests
        self._hashes = self._numbers(2 * max(1, num_hashes)).view(torch.int64)
        counts = np.arange(self.cost.max_tile_queries + 1)
        rates = self.cost.rate(counts) / self.cost.num_head_splits
        self._rates = torch.tensor(rates, dtype=torch.float32, device=device.torch_device)

    @property
    def tables(self) -> PlanTables:
        """What the last update wrote."""
        return self._tables

    @property
    def num_launched_items(self) -> int:
        """Programs of a launch over all items that the capacity holds."""
        return len(self._tables.items)

    @property
    def heights(self) -> frozenset[int]:
        """Heights at which tiles of a launch may run."""
        return frozenset(self.cost.tile_heights)

    @property
    def tall_tokens(self) -> int:
        """KV tokens that a tile of the greatest height visits at least."""
        return 0

    @property
    def most_tile_queries(self) -> int:
        """Queries of the tallest tile that a launch may run."""
        return self.cost.max_tile_queries

    @property
    def num_partial_rows(self) -> int:
        """Partials that a launch may write."""
        return self.capacity.num_partials

    @property
    def has_merge(self) -> bool:
        """Whether some query may have partials or see nothing."""
        return True

    @property
    def most_partials(self) -> int:
        """Partials that one query may have."""
        return self.capacity.num_partials

    def update(self, page_table: torch.Tensor, seq_lens: torch.Tensor) -> None:
        """Serve what a page table and its lengths say now, without a look at it from the host.

        The tables then point into the page table: it must stay as it is until they are used.

        Args:
            page_table: [num_requests, max_pages] int32 on the device, its last axis contiguous;
                columns past a request's length are never used.
            seq_lens: [num_requests] int32 there, KV tokens with the new one included; 0 is padding.
                What is longer than the page table counts as long as that.

        Raises:
            ValueError: a shape, dtype or device is another than the capacity's.
        """
        self._check(page_table, seq_lens)
        table = PageTable(page_table, page_table.stride(0))
        num_cells = table.stride_row * (len(page_table) - 1) + self.capacity.max_pages
        pages = page_table.as_strided((num_cells,), (1,))
        self._tables = replace(self._tables, pages=pages)
        self.memo.clear()
        if self.capacity.num_requests == 0:
            return
        self._order(table, seq_lens)
        self._divide(seq_lens)
        self._write(table, seq_lens)

    def _order(self, table: PageTable, seq_lens: torch.Tensor) -> None:
        """Sort the rows and count what neighbours share."""
        num_rows, max_pages = self.capacity.num_requests, self.capacity.max_pages
        sizes = {"PAGE_SIZE": self.forest.page_size, "MAX_PAGES": max_pages}
        num_hashes = max_pages // STEP.value
        hash_prefixes[(num_rows,)](table, seq_lens, self._hashes, num_rows, **sizes, BLOCK=64)
        order_rows[(num_rows,)](
            table,
            seq_lens,
            self._hashes,
            self._tables.query_indices,
            num_rows,
            **sizes,
            NUM_HALVINGS=num_hashes.bit_length(),
            BLOCK=min(128, self._rows),
        )
        find_shared[(num_rows + 1,)](
            table,
            seq_lens,
            self._tables.query_indices,
            self._shared,
            num_rows,
            **sizes,
            BLOCK=min(1024, triton.next_power_of_2(max(1, max_pages))),
        )

    def _divide(self, seq_lens: torch.Tensor) -> None:
        """Find the nodes and divide them into tiles."""
        cost, num_rows = self.cost, self.capacity.num_requests
        find_nodes[(num_rows,)](
            seq_lens,
            self._tables.query_indices,
            self._shared,
            self._rates,
            self._nodes,
            num_rows,
            float(cost.partials(np.asarray(1))) / cost.num_head_splits,
            cost.device.tile_seconds,
            PAGE_SIZE=self.forest.page_size,
            MAX_PAGES=self.capacity.max_pages,
            MAX_QUERIES=cost.max_tile_queries,
            ROWS=self._rows,
        )
        divide_nodes[(1,)](
            self._nodes,
            self._rates,
            num_rows,
            cost.device.tile_seconds,
            cost.num_workers / cost.num_head_splits,
            self.capacity.num_tiles,
            self.capacity.num_partials,
            MAX_QUERIES=cost.max_tile_queries,
            KV_QUANTUM=cost.device.kv_quantum,
            ROWS=self._rows,
            NUM_HALVINGS=_NUM_HALVINGS,
            num_warps=_WARPS,
        )

    def _write(self, table: PageTable, seq_lens: torch.Tensor) -> None:
        """Write the tables."""
        cost, num_rows, rows = self.cost, self.capacity.num_requests, self._rows
        order, page_size = self._tables.query_indices, self.forest.page_size
        place_nodes[(2 * rows // _PLACED,)](
            self._nodes,
            self._written,
            num_rows,
            NUM_ITEMS=cost.num_head_splits // cost.least_heads,
            ROWS=rows,
            BLOCK=_PLACED,
        )
        write_tiles[(2 * rows,)](
            self._nodes, order, self._written, table.stride_row, num_rows,
            PAGE_SIZE=page_size, ROWS=rows, BLOCK=64,
        )  # fmt: skip
        write_queries[(num_rows,)](
            self._nodes, seq_lens, order, self._written, num_rows,
            PAGE_SIZE=page_size, MAX_PAGES=self.capacity.max_pages, ROWS=rows,
        )  # fmt: skip
        write_merges[(num_rows,)](self._nodes, order, self._written, num_rows, ROWS=rows)

    def _check(self, page_table: torch.Tensor, seq_lens: torch.Tensor) -> None:
        capacity = self.capacity
        shapes = {
            "page_table": (page_table, (capacity.num_requests, capacity.max_pages)),
            "seq_lens": (seq_lens, (capacity.num_requests,)),
        }
        device = self._shared.device
        for name, (tensor, shape) in shapes.items():
            expect(tensor.shape == shape, name, str(list(shape)), list(tensor.shape))
            expect(tensor.dtype == torch.int32, name, "int32", tensor.dtype)
            expect(tensor.device == device, name, f"on {device}", tensor.device)
            is_packed = tensor.numel() == 0 or tensor.stride(-1) == 1
            expect(is_packed, name, "contiguous in its last axis", tensor.stride())

    @property
    def _rows(self) -> int:
        """Requests, up to a power of two."""
        return triton.next_power_of_2(max(1, self.capacity.num_requests))

    def _new_tables(self) -> PlanTables:
        """Allocate tables; tiles stand in the order in which they run, and have a segment each."""
        capacity, device = self.capacity, self.cost.device
        lengths = PlanCapacity(
            num_tiles=capacity.num_tiles,
            num_segments=capacity.num_tiles,
            num_queries=capacity.num_requests,
            num_query_rows=capacity.num_requests,
            num_partials=capacity.num_partials,
            num_pages=0,
        ).lengths(self.cost.num_head_splits)
        tensors = TableBuffer(lengths, device.torch_device).tensors()
        num_heads = self.cost.least_heads
        for name, step in (("items", num_heads), ("tile_segment_indptr", 1)):
            tensors[name].copy_(torch.arange(len(tensors[name])) * step)
        tensors["tile_num_heads"].fill_(num_heads)
        return PlanTables(**tensors, pages=self._numbers(0))

    def _new_nodes(self) -> Nodes:
        arrays = self._numbers(len(Nodes._fields) * 2 * self._rows).view(-1, 2 * self._rows)
        nodes = Nodes(*arrays)
        return nodes._replace(tile_seconds=nodes.tile_seconds.view(torch.float32))

    def _numbers(self, length: int) -> torch.Tensor:
        return torch.zeros(length, dtype=torch.int32, device=self.cost.device.torch_device)
