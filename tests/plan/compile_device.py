"""Compile the device planner's kernels for Hopper without a GPU and print what ptxas says, as JSON.

Run as a script: Triton's interpreter, which other tests ask for, must be off in its process.
"""

from __future__ import annotations

import json
from typing import Any

from bough.plan.device.arguments import Nodes, PageTable, Tables
from bough.plan.device.division import divide_nodes
from bough.plan.device.nodes import find_nodes
from bough.plan.device.rows import find_shared, hash_prefixes, order_rows
from bough.plan.device.tables import place_nodes, write_merges, write_queries, write_tiles
from tests.kernels.compile_sm90 import assemble, compile_kernel

ROWS = 1024
PAGES = {"PAGE_SIZE": 16, "MAX_PAGES": 4096}
NODES = Nodes(*("*fp32" if name == "tile_seconds" else "*i32" for name in Nodes._fields))
TABLES = Tables(*("*i64" if name == "segment_page_start" else "*i32" for name in Tables._fields))
TABLE = PageTable("*i32", "i32")


def sources() -> list[tuple[Any, dict[str, Any]]]:
    """Every kernel with its arguments, by name."""
    rows = {"table": TABLE, "seq_lens": "*i32"}
    ordered = {"seq_lens": "*i32", "order": "*i32"}
    nodes = {"nodes": NODES, "order": "*i32", "tables": TABLES}
    return [
        (hash_prefixes, rows | {"hashes": "*i64", "num_rows": "i32"} | PAGES | {"BLOCK": 64}),
        (
            order_rows,
            rows
            | {"hashes": "*i64", "order": "*i32", "num_rows": "i32"}
            | PAGES
            | {"NUM_HALVINGS": 9, "BLOCK": 128},
        ),
        (
            find_shared,
            rows
            | {"order": "*i32", "shared": "*i32", "num_rows": "i32"}
            | PAGES
            | {"BLOCK": 1024},
        ),
        (
            find_nodes,
            ordered
            | {"shared": "*i32", "rates": "*fp32", "nodes": NODES, "num_rows": "i32"}
            | {"partial_seconds": "fp32", "fixed_seconds": "fp32"}
            | PAGES
            | {"MAX_QUERIES": 16, "ROWS": ROWS},
        ),
        (
            divide_nodes,
            {"nodes": NODES, "rates": "*fp32", "num_rows": "i32", "fixed_seconds": "fp32"}
            | {"workers": "fp32", "most_tiles": "i32", "most_partials": "i32"}
            | {"MAX_QUERIES": 16, "KV_QUANTUM": 64, "ROWS": ROWS, "NUM_HALVINGS": 16},
        ),
        (
            place_nodes,
            {"nodes": NODES, "tables": TABLES, "num_rows": "i32"}
            | {"NUM_ITEMS": 8, "ROWS": ROWS, "BLOCK": 2},
        ),
        (
            write_tiles,
            nodes
            | {"stride_row": "i32", "num_rows": "i32"}
            | {"PAGE_SIZE": 16, "ROWS": ROWS, "BLOCK": 64},
        ),
        (
            write_queries,
            {"nodes": NODES} | ordered | {"tables": TABLES, "num_rows": "i32"} | PAGES
            | {"ROWS": ROWS},
        ),
        (write_merges, nodes | {"num_rows": "i32", "ROWS": ROWS}),
    ]  # fmt: skip


def main() -> None:
    """Compile all kernels."""
    found = {
        kernel.fn.__name__: assemble(
            compile_kernel(kernel, arguments, {"num_warps": 8 if kernel is divide_nodes else 4})
        )
        for kernel, arguments in sources()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
