"""What a run says as a whole: means over its cases, the worst of them, page sizes compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from bough.bench.kernel import Row, Score

# Ours with sharing off is no peer, but a figure that sharing must not make worse.
APART = "apart"
# FlashAttention-3 on whatever it reads: keys and values, latents.
FA3 = ("fa3", "fa3-latent")


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The case in which ours compares worst.

    Args:
        times: our time over the other.
        case: where.
        other: who was faster there, or by least slower.
    """

    times: float
    case: str
    other: str


@dataclass(frozen=True, kw_only=True)
class PageRatio:
    """One forest at two page sizes.

    Args:
        case: the one with the smaller pages.
        times: its time over that at `page_size`.
        page_size: slots of the larger page.
    """

    case: str
    times: float
    page_size: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Figures over all cases of a run in which both sides have one.

    Args:
        mean: for each contestant, the geometric mean of its time over ours.
        mean_best: the same of the best correct peer of each case.
        worst_best: where ours compares worst with the best correct peer.
        worst_alone: where ours compares worst with the better of FlashAttention-3 and our own
            plan with sharing off; None where both were not measured.
        pages: forests that were measured at several page sizes.
        plan_error: the largest of |predicted - measured| / measured, over all cases.
        fewer_bytes: how many times fewer bytes than FlashAttention-3 ours moves at `memory` and
            at the `L2`, geometric means, where they were counted.
    """

    mean: dict[str, float]
    mean_best: float | None
    worst_best: Worst | None
    worst_alone: Worst | None
    pages: tuple[PageRatio, ...]
    plan_error: Worst | None
    fewer_bytes: dict[str, float]


def summarise(rows: Sequence[Row]) -> Summary:
    """Collect the figures of a run, ours first in every row."""
    names = [score.name for score in rows[0].scores[1:]]
    mean = {}
    for name in names:
        ratios = [ratio for row in rows if (ratio := row.score(name).times_ours) is not None]
        if ratios:
            mean[name] = geometric_mean(ratios)
    peers = [name for name in names if name != APART]
    best = [found for row in rows if (found := _fastest(row, peers))]
    alone = [found for row in rows if (found := _fastest(row, (APART, *FA3)))]
    has_both = APART in names and not {*FA3}.isdisjoint(names)
    return Summary(
        mean=mean,
        mean_best=geometric_mean(1 / found.times for found in best) if best else None,
        worst_best=max(best, key=lambda found: found.times, default=None),
        worst_alone=max(alone, key=lambda found: found.times) if alone and has_both else None,
        pages=tuple(_page_ratios(rows)),
        plan_error=_plan_error(rows),
        fewer_bytes=_fewer_bytes(rows),
    )


def summary_lines(summary: Summary) -> list[str]:
    """Return the summary for people, a line a figure."""
    lines = [f"{name}: {mean:.2f}x our time, geometric mean" for name, mean in summary.mean.items()]
    if summary.mean_best is not None and summary.worst_best is not None:
        worst = summary.worst_best
        lines.append(
            f"best peer of each case: {summary.mean_best:.2f}x our time; worst for us is "
            f"{worst.case}, {worst.times:.2f}x the time of {worst.other}"
        )
    if summary.worst_alone is not None:
        worst = summary.worst_alone
        lines.append(
            f"against the better of {FA3[0]} and {APART}: never over {worst.times:.3f}x their time "
            f"({worst.case}, {worst.other})"
        )
    lines += [
        f"{pages.case}: {pages.times:.3f}x the time at page size {pages.page_size}"
        for pages in summary.pages
    ]
    if summary.plan_error is not None:
        worst = summary.plan_error
        lines.append(f"predicted times: off by at most {worst.times:.0%} ({worst.case})")
    lines += [
        f"{level}: {times:.1f}x fewer bytes than {FA3[0]}, geometric mean"
        for level, times in summary.fewer_bytes.items()
    ]
    return lines


def _fastest(row: Row, names: Iterable[str]) -> Worst | None:
    """Compare ours with the fastest of some contestants; None where none has a figure."""
    ours = row.scores[0].us
    times = {name: us for name in names if (us := _us(row, name)) is not None}
    if not times or ours is None:
        return None
    other = min(times, key=lambda name: times[name])
    return Worst(times=ours / times[other], case=row.case, other=other)


def _us(row: Row, name: str) -> float | None:
    return next((score.us for score in row.scores if score.name == name), None)


def _page_ratios(rows: Sequence[Row]) -> Iterable[PageRatio]:
    """Compare every row with the one of largest pages that differs from it in nothing else."""
    alike: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = (row.workload, row.spec, row.pages, row.query_len)
        alike.setdefault(key, []).append(row)
    for sizes in alike.values():
        *smaller, largest = sorted(sizes, key=lambda row: row.page_size)
        for row in smaller:
            ours, theirs = row.scores[0].us, largest.scores[0].us
            if ours is not None and theirs is not None:
                yield PageRatio(case=row.case, times=ours / theirs, page_size=largest.page_size)


def _plan_error(rows: Sequence[Row]) -> Worst | None:
    errors = [
        Worst(times=abs(row.predicted_us - us) / us, case=row.case, other="plan")
        for row in rows
        if (us := row.scores[0].us) is not None
    ]
    return max(errors, key=lambda error: error.times, default=None)


def fa3_counted(row: Row) -> Score | None:
    """Find FlashAttention-3's score, on whatever it reads, where its bytes were counted."""
    others = (score for score in row.scores[1:] if score.name in FA3)
    return next((score for score in others if score.l2_bytes is not None), None)


def _fewer_bytes(rows: Sequence[Row]) -> dict[str, float]:
    levels: dict[str, list[float]] = {"memory": [], "L2": []}
    for row in rows:
        ours, theirs = row.scores[0], fa3_counted(row)
        if theirs is not None and ours.dram_bytes and theirs.dram_bytes:
            levels["memory"].append(theirs.dram_bytes / ours.dram_bytes)
        if theirs is not None and ours.l2_bytes and theirs.l2_bytes:
            levels["L2"].append(theirs.l2_bytes / ours.l2_bytes)
    return {level: geometric_mean(ratios) for level, ratios in levels.items() if ratios}
