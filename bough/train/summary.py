"""What the quality suite's runs say together: means over seeds, their spread, a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

# Pairs of a variant and the one whose quality it is to hold.
COMPARED = {"gta-4": "gqa-4", "gla-2": "mla"}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One variant's runs.

    Args:
        variant: its config file.
        num_runs: seeds.
        num_params: of the model, tied embeddings once.
        kv_bytes: a token's, in all layers, bf16.
        train_loss: mean over the tokens before the last evaluation, nats a token; those tokens are
            the same in all runs.
        loss: mean validation loss, nats a token.
        perplexity: mean of the runs' perplexities.
        perplexity_spread: their sample standard deviation; None for a single run.
        tokens_per_second: of training; the median run's.
    """

    variant: str
    num_runs: int
    num_params: int
    kv_bytes: int
    train_loss: float
    loss: float
    perplexity: float
    perplexity_spread: float | None
    tokens_per_second: int


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, Summary]:
    """Gather runs by variant, those with the larger cache first."""
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        by_variant.setdefault(run["variant"], []).append(run)
    summaries = [_summary(name, group) for name, group in by_variant.items()]
    summaries.sort(key=lambda summary: -summary.kv_bytes)
    return {summary.variant: summary for summary in summaries}


def _summary(variant: str, runs: Sequence[Mapping[str, Any]]) -> Summary:
    losses = [run["validation_loss"] for run in runs]
    perplexities = [math.exp(loss) for loss in losses]
    return Summary(
        variant=variant,
        num_runs=len(runs),
        num_params=runs[0]["num_params"],
        kv_bytes=runs[0]["kv_bytes"],
        train_loss=mean(run["log"][-1]["train_loss"] for run in runs),
        loss=mean(losses),
        perplexity=mean(perplexities),
        perplexity_spread=stdev(perplexities) if len(runs) > 1 else None,
        tokens_per_second=round(median(run["tokens_per_second"] for run in runs)),
    )


def gaps(summaries: Mapping[str, Summary]) -> dict[str, float]:
    """How much higher a variant's perplexity is than that of the one it is to hold, as a share."""
    return {
        f"{name} against {other}": summaries[name].perplexity / summaries[other].perplexity - 1
        for name, other in COMPARED.items()
        if name in summaries and other in summaries
    }


def plot_losses(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a run's training and validation losses over the tokens seen.

    Args:
        log: its records.
        path: the picture to write; its suffix says which format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    tokens = [record["tokens"] / 1e6 for record in log]
    for name, colour in (("train", "#c9a26b"), ("validation", "#1b6f4a")):
        losses = [record[f"{name}_loss"] for record in log]
        axes.plot(tokens, losses, color=colour, label=name)
    _finish(axes, "million tokens seen", "loss, nats a token")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=160)


def plot_quality(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw every run's perplexity over its cache's bytes a token, and the variants' means.

    Args:
        runs: the suite's.
        path: the picture to write; its suffix says which format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        perplexity = math.exp(run["validation_loss"])
        axes.scatter(run["kv_bytes"], perplexity, s=14, color="#c9a26b", zorder=2)
    for summary in summarize(runs).values():
        at = (summary.kv_bytes, summary.perplexity)
        axes.scatter(*at, s=150, marker="_", color="#1b6f4a", zorder=3)
        axes.annotate(summary.variant, at, xytext=(9, -3), textcoords="offset points", fontsize=9)
    axes.set_xscale("log", base=2)
    _finish(axes, "KV bytes a token, all layers, bf16", "validation perplexity")
    figure.savefig(path, dpi=160)


def _finish(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#e6e6e6", zorder=0)
    axes.tick_params(length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
