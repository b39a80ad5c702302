"""A forest and its plan in the terminal: a tree of nodes, then the workers' load."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from bough.cli.plan_nodes import HUES, NodeFacts, children_of, node_facts
from bough.plan import Plan

# Leaves of one kind that are drawn before the rest is counted; of inner nodes, one.
_LEAVES_SHOWN = 2
# Kinds among the children of one node that are drawn before the rest is counted.
_KINDS_SHOWN = 4
_BAR_WIDTH = 16
_CHART_HEIGHT = 6
_CHART_WIDTH = 66
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def plan_tree(plan: Plan, title: str) -> Tree:
    """Return the forest as a tree, alike siblings counted instead of drawn."""
    facts, children = node_facts(plan), children_of(plan)
    tree = Tree(Text(title, style="bold"), guide_style="bright_black")
    _grow(tree, children[-1], children, facts)
    return tree


def load_chart(plan: Plan) -> RenderableType:
    """Return a column for every worker, or for a few neighbours, as high as its load."""
    load = worker_loads(plan) * 1e6
    workers = len(load)
    per_column = -(-workers // _CHART_WIDTH)
    padded = np.append(load, np.zeros(-workers % per_column)).reshape(-1, per_column)
    column = padded.max(axis=1)
    top = max(float(column.max()), 1e-9)
    eighths = np.ceil(column / top * 8 * _CHART_HEIGHT).astype(int)
    lines = []
    for row in reversed(range(_CHART_HEIGHT)):
        cells = "".join(_EIGHTHS[min(8, max(0, height - 8 * row))] for height in eighths)
        label = f"{top * (row + 1) / _CHART_HEIGHT:8.1f} us "
        lines.append(Text.assemble((label, "bright_black"), (cells, HUES[0])))
    each = f"each column {per_column} workers, the busiest of them" if per_column > 1 else ""
    idle = 1 - float(load.mean()) / top
    below = f"{workers} worker{'s' * (workers > 1)} of {plan.cost.device.name}"
    below += f", {idle:.0%} idle on average{'; ' * bool(each)}{each}"
    return Group(*lines, Text(" " * 12 + below, style="bright_black"))


def worker_loads(plan: Plan) -> np.ndarray:
    """[num_workers] expected seconds of each worker's tiles."""
    schedule = plan.schedule
    return np.bincount(schedule.assignment.worker, schedule.item_seconds, schedule.num_workers)


def _grow(
    tree: Tree, siblings: list[int], children: dict[int, list[int]], facts: NodeFacts
) -> None:
    ordered = sorted(siblings, key=lambda node: facts.kind[node])
    kinds = [list(alike) for _, alike in groupby(ordered, key=lambda node: facts.kind[node])]
    kinds.sort(key=lambda alike: alike[0])
    for alike in kinds[:_KINDS_SHOWN]:
        shown = 1 if alike[0] in children else _LEAVES_SHOWN
        for node in alike[:shown]:
            branch = tree.add(_label(node, facts))
            _grow(branch, children.get(node, []), children, facts)
        if len(alike) > shown:
            tree.add(Text(f"... {len(alike) - shown:,} more like this", style="bright_black"))
    rest = [node for alike in kinds[_KINDS_SHOWN:] for node in alike]
    if rest:
        tokens = facts.num_tokens[rest]
        text = f"... {len(rest):,} more of {tokens.min():,} to {tokens.max():,} tokens"
        tree.add(Text(text, style="bright_black"))


def _label(node: int, facts: NodeFacts) -> Text:
    tokens, longest = int(facts.num_tokens[node]), int(facts.num_tokens.max(initial=1))
    is_folded = bool(facts.is_folded[node])
    hue = HUES[facts.depth[node] % len(HUES)]
    width = max(1, round(_BAR_WIDTH * tokens / longest)) if tokens else 0
    parts = [
        ("░" * width if is_folded else "█" * width, hue),
        (f" {tokens:,} tokens", "bold"),
        (f"  {_count(int(facts.num_queries[node]), 'query', 'queries')}", ""),
        (f"  {_tiles(node, facts)}", "bright_black"),
    ]
    return Text.assemble(*parts)


def _tiles(node: int, facts: NodeFacts) -> str:
    if facts.num_read[node] == 0:
        return "not read"
    times = facts.num_read[node] / facts.num_tokens[node]
    read = "read once" if times == 1 else f"read {times:.3g}x"
    if facts.is_folded[node]:
        return f"folded into its children  {read}"
    least, most = int(facts.least_tokens[node]), int(facts.most_tokens[node])
    size = f"{most:,}" if least == most else f"{least:,}..{most:,}"
    return f"{_count(int(facts.num_tiles[node]), 'tile', 'tiles')} of {size}  {read}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
