"""Figures as a picture: bars per workload, the roofline as a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from bough.bench.kernel import Row, timed_names
from bough.bench.report import Report

# Ours first; colours that hold in greyscale and for the colour-blind.
_COLOURS = ("#1b6f4a", "#c9a26b", "#7f8fa6", "#b56576", "#54478c", "#2a9d8f", "#9a8c98")
_GROUP_WIDTH = 0.8
# So that a figure can be read where the roofline passes it.
_BEHIND_FIGURES = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
# Cases side by side; more go into bands below each other.
_MOST_CASES = 10


def plot_kernel(report: Report, path: Path) -> None:
    """Draw unique bytes per second of every contestant, and what the machine could do.

    The roofline is the machine's copy bandwidth, lower where products bind.

    Args:
        report: the run.
        path: the picture to write; its suffix says which format.
    """
    rows = [row for row in report.rows if isinstance(row, Row)]
    names = timed_names(rows)
    num_bands = -(-len(rows) // _MOST_CASES)
    per_band = -(-len(rows) // num_bands)
    size = (max(6.5, 1.1 * per_band + 2.5), 0.9 + 3.5 * num_bands)
    figure = Figure(figsize=size, layout="constrained")
    bands = figure.subplots(num_bands, 1, squeeze=False)[:, 0]
    highest = max(_roof(row) for row in rows)
    highest = max([highest, *(score.gb_per_s or 0 for row in rows for score in row.scores)])
    for index, axes in enumerate(bands):
        band = rows[index * per_band : (index + 1) * per_band]
        _draw_band(axes, band, names, per_band)
        axes.set_ylim(0, 1.25 * highest)
    bands[0].legend(frameon=False, ncols=len(names) + 1, loc="upper left", fontsize=8)
    bands[0].set_title(_title(report, rows), loc="left", fontsize=9, color="#444444")
    figure.savefig(path, dpi=160)


def _draw_band(axes: Axes, rows: list[Row], names: list[str], num_places: int) -> None:
    """Draw cases side by side, with room for `num_places` of them."""
    at = np.arange(len(rows))
    width = _GROUP_WIDTH / len(names)
    for index, name in enumerate(names):
        heights = [row.score(name).gb_per_s or 0.0 for row in rows]
        offset = (index - (len(names) - 1) / 2) * width
        colour = _COLOURS[index % len(_COLOURS)]
        bars = axes.bar(at + offset, heights, width * 0.94, color=colour, label=name, zorder=2)
        labels = ["" if not height else _short(height) for height in heights]
        rotation = 90 if len(names) > 3 else 0
        written = axes.bar_label(
            bars, labels, padding=2, fontsize=7, color="#444444", rotation=rotation, zorder=4
        )
        for label in filter(Annotation.get_text, written):
            label.set_bbox(_BEHIND_FIGURES)
    edges = np.append(at - 0.5, len(rows) - 0.5)
    roof = [_roof(row) for row in rows]
    axes.stairs(roof, edges, baseline=None, color="#222222", lw=1.4, label="roofline", zorder=3)
    labels = [row.case.replace("|", "\n").replace(" ", "\n") for row in rows]
    axes.set_xticks(at, labels, fontsize=8)
    axes.set_xlim(-0.5, num_places - 0.5)
    axes.set_ylabel("unique KV, Q and O, GB/s")
    axes.grid(axis="y", color="#e6e6e6", zorder=0)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _roof(row: Row) -> float:
    return (row.kv_bytes + row.qo_bytes) / row.roofline_us / 1e3


def _title(report: Report, rows: list[Row]) -> str:
    """Say what all cases have in common; a case that differs says so below its bars."""
    settings = report.settings
    spec = settings["spec"]
    words = ["decode attention, one layer"]
    if any(row.spec is None for row in rows):
        words.append(f"{spec['num_q_heads']} query heads, {spec['num_kv_heads']} stored")
    sizes = {row.page_size for row in rows}
    words += [f"page size {size}" for size in sizes if len(sizes) == 1]
    return ", ".join([*words, settings["dtype"], settings["device"]])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"
