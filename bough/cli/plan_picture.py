"""A forest and its plan as a drawing: who reads what above, which worker runs it when below."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bough.cli.plan_nodes import HUES, lowest_nodes
from bough.plan import Plan

# As many as rarely divide the tiles of a row, so that neighbours above and below differ too.
_SHADES = (0.0, 0.24, 0.12, 0.34, 0.06)
_INK = "#2b2b2b"
_GREY = "#8a8a8a"
# A stretch of positions narrower than this share of the axis calls for another scale.
_LEAST_WIDTH = 0.04

Points = npt.NDArray[np.float64]


def draw_plan(plan: Plan, title: str, path: Path) -> None:
    """Draw a plan; every (query, position) lies in the one tile that computes it.

    Args:
        plan: the plan.
        title: printed above.
        path: the picture to write; its suffix says which format.
    """
    figure = Figure(figsize=(11, 7.6), layout="constrained", facecolor="white")
    above, below = figure.subplots(2, 1, height_ratios=(1.15, 1))
    colours = _tile_colours(plan)
    _draw_forest(above, plan, colours)
    _draw_workers(below, plan, colours)
    above.set_title(title, loc="left", fontsize=12, color=_INK, fontweight="bold", pad=10)
    read, apart = plan.schedule.num_tokens_read, plan.forest.num_path_tokens
    saved = f"{read:,} KV tokens read; request by request {apart:,} ({apart / max(1, read):.1f}x)"
    above.set_title(saved, loc="right", fontsize=9, color=_GREY, pad=10)
    figure.savefig(path, dpi=150)


def _draw_forest(axes: Axes, plan: Plan, colours: Points) -> None:
    """Queries from top to bottom, positions from left to right."""
    forest, schedule = plan.forest, plan.schedule
    order, _, _ = forest.subtree
    edges = np.unique(np.append(forest.node_start, forest.node_start + forest.node_len))
    scale = _Scale(edges)
    row = np.empty(forest.num_queries, dtype=np.int64)
    row[order] = np.arange(len(order))
    boxes, fills = [], []
    for tile in range(schedule.num_tiles):
        first = schedule.tile_query_begin[tile]
        queries = schedule.query_indices[first : first + schedule.tile_num_queries[tile]]
        runs = _runs(np.sort(row[queries]))
        for segment in range(*schedule.tile_segment_indptr[tile : tile + 2].tolist()):
            origin = forest.node_start[schedule.segment_node[segment]]
            left, right = scale(
                origin + schedule.segment_begin[segment], origin + schedule.segment_stop[segment]
            )
            boxes += [_box(left, right, top, bottom) for top, bottom in runs]
            fills += [colours[tile]] * len(runs)
    axes.add_collection(PolyCollection(boxes, facecolors=fills, edgecolors="none"))
    _outline_nodes(axes, plan, scale)
    axes.set_xlim(*scale(edges[0], edges[-1]))
    axes.set_ylim(max(1, len(order)), 0)
    axes.set_ylabel("queries", color=_INK)
    axes.set_xlabel(f"position{scale.remark}; a box is a node, a colour is a tile", color=_INK)
    axes.set_xticks(scale.ticks, [f"{edge:,}" for edge in scale.tick_edges], fontsize=8)
    axes.set_yticks([])
    _bare(axes)


def _outline_nodes(axes: Axes, plan: Plan, scale: _Scale) -> None:
    """Outline the nodes, as thin as their boxes are low, and write on those that have room."""
    forest = plan.forest
    order, begin, end = forest.subtree
    width = np.diff(scale(scale.edges[0], scale.edges[-1]))[0]
    boxes, lines = [], []
    for node in range(forest.num_nodes):
        length, seen = int(forest.node_len[node]), int(end[node] - begin[node])
        left, right = scale(forest.node_start[node], forest.node_start[node] + length)
        boxes.append(_box(left, right, float(begin[node]), float(end[node])))
        share = seen / max(1, len(order))
        lines.append(min(1.2, 60 * share))
        if share < 0.055 or right - left < 0.07 * width:
            continue
        queries = f"\n{seen:,} {'query' if seen == 1 else 'queries'}"
        axes.text(
            (left + right) / 2,
            (begin[node] + end[node]) / 2,
            f"{length:,} tokens{queries}" if share > 0.12 else f"{length:,}",
            ha="center",
            va="center",
            color="white",
            fontweight="bold",
            fontsize=9,
        )
    axes.add_collection(
        PolyCollection(boxes, facecolors="none", edgecolors="white", linewidths=lines)
    )


def _draw_workers(axes: Axes, plan: Plan, colours: Points) -> None:
    """Time from left to right, a line a worker; then the merge."""
    schedule = plan.schedule
    tile = schedule.worker_items // schedule.num_head_splits
    took = schedule.worker_seconds * 1e6
    counts = np.diff(schedule.worker_indptr)
    worker = np.repeat(np.arange(len(counts)), counts)
    ended = np.cumsum(took)
    stop = ended - np.append(0.0, ended)[schedule.worker_indptr[:-1]][worker]
    boxes = [_box(*at) for at in zip(stop - took, stop, worker + 0.0, worker + 1.0, strict=True)]
    line = min(0.4, 40 / max(1, len(counts)), 400 / max(1, len(boxes)))
    axes.add_collection(
        PolyCollection(boxes, facecolors=colours[tile], edgecolors="white", linewidths=line)
    )
    makespan, bound = schedule.makespan * 1e6, schedule.lower_bound * 1e6
    expected = schedule.seconds * 1e6
    if schedule.num_partials:
        axes.axvspan(makespan, expected, color="#e8e8e8", lw=0)
    axes.axvline(bound, color=_INK, lw=1.2, ls=(0, (4, 3)))
    axes.text(
        bound,
        1.01,
        f"lower bound {bound:,.1f} us ",
        ha="right",
        fontsize=8,
        color=_INK,
        transform=axes.get_xaxis_transform(),
    )
    axes.set_xlim(0, expected * 1.005)
    axes.set_ylim(len(counts), 0)
    axes.set_ylabel(f"{len(counts)} worker{'s' * (len(counts) > 1)}", color=_INK)
    merging = f"; grey: merging {schedule.num_partials:,} partials" * bool(schedule.num_partials)
    axes.set_xlabel(f"microseconds; expected end {expected:,.1f}{merging}", color=_INK)
    axes.set_yticks([])
    _bare(axes)


class _Scale:
    """Where positions lie on the axis: in proportion, or by the square roots of their stretches.

    Args:
        edges: ascending positions at which nodes start or end.
    """

    def __init__(self, edges: npt.NDArray[np.integer]) -> None:
        width = np.diff(edges).astype(np.float64)
        is_wide = len(width) == 0 or width.min() >= _LEAST_WIDTH * width.sum()
        self.remark = "" if is_wide else " (widths by the square root of tokens)"
        self.edges = edges
        self._at = np.append(0.0, np.cumsum(width if is_wide else np.sqrt(width)))
        spacing = self._at[-1] * _LEAST_WIDTH
        kept = [0]
        for index in range(1, len(edges)):
            if self._at[index] - self._at[kept[-1]] >= spacing:
                kept.append(index)
        self.tick_edges = edges[kept].tolist()
        self.ticks = self._at[kept]

    def __call__(self, *positions: int) -> Points:
        return np.interp(positions, self.edges, self._at)


def _tile_colours(plan: Plan) -> Points:
    """[num_tiles, 3] the hue of the lowest node's depth; shades tell neighbours apart."""
    depth = plan.forest.node_depth[lowest_nodes(plan)]
    hue = np.array([to_rgb(hue) for hue in HUES])[depth % len(HUES)]
    shade = np.array(_SHADES)[np.arange(len(depth)) % len(_SHADES)][:, None]
    return hue + (1 - hue) * shade


def _runs(rows: npt.NDArray[np.int64]) -> list[tuple[float, float]]:
    """Cut ascending rows into (first, one past the last) of consecutive ones."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    return [(float(run[0]), float(run[-1] + 1)) for run in np.split(rows, cuts) if len(run)]


def _box(left: float, right: float, top: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _bare(axes: Axes) -> None:
    axes.tick_params(length=0, colors=_GREY)
    for spine in axes.spines.values():
        spine.set_visible(False)
