"""`bough bench kernel`: one decode step of one layer, every contestant on the same forest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from bough.bench.cases import Case
from bough.bench.check import TOLERANCE, Oracle, Oracles
from bough.bench.clocks import clocks_for
from bough.bench.contestant import Contestant, Step
from bough.bench.contestants import choose
from bough.bench.ours import Bough
from bough.bench.plans import time_plan
from bough.bench.problem import Problem, Setup, make_problem
from bough.bench.roofline import Rates
from bough.bench.timing import Timing, WallClock, time_in_turns


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one contestant did in one case; the figures are None where it was refused.

    Args:
        name: the contestant.
        refusal: why it did not take part, or how wrong it was; None where it counts.
        error: largest relative error of a query head against the oracle on the KV that it reads.
        plain_error: the same on KV that was not quantised; None for those that read no other.
        us: microseconds of a step, median; on a GPU with a warm L2.
        us_low: of the fastest repeat.
        us_high: of the slowest repeat.
        cold_us: median with an empty L2; None on a CPU.
        first_us: of the very first call, what it sets up for later layers included.
        gb_per_s: unique KV, Q and O bytes over the median.
        tflop_per_s: FLOPs over the median.
        percent_of_roofline: the roofline's time over the median.
        times_ours: its median over ours.
        dram_bytes: read from and written to memory in a step, as ncu counts them; None where it
            was not asked to.
        l2_bytes: that all multiprocessors asked of the L2 in a step, likewise.
    """

    name: str
    refusal: str | None = None
    error: float | None = None
    plain_error: float | None = None
    us: float | None = None
    us_low: float | None = None
    us_high: float | None = None
    cold_us: float | None = None
    first_us: float | None = None
    gb_per_s: float | None = None
    tflop_per_s: float | None = None
    percent_of_roofline: float | None = None
    times_ours: float | None = None
    dram_bytes: int | None = None
    l2_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case.

    Args:
        case: the case's name, from which it can be measured again.
        workload: `nodes per level | tokens per node`, or where in a trace it was taken.
        spec: the case's own attention variant; None for the run's.
        page_size: slots per page.
        pages: `in order` as an empty pool allocates them, or `shuffled`.
        query_len: queries of each request.
        num_requests: requests.
        unique_tokens: KV tokens in the forest.
        path_tokens: KV tokens that request by request attention reads.
        kv_bytes: of the unique tokens.
        qo_bytes: of queries and outputs.
        flops: of both products.
        roofline_us: least time of a step at this run's measured rates.
        limit: what sets it, `memory` or `compute`.
        plan_us: median of making the plan from scratch, once for all layers.
        predicted_us: what the planner expects a step to take.
        checked_queries: queries whose outputs were compared with the oracle.
        scores: the contestants, ours first.
    """

    case: str
    workload: str
    spec: str | None
    page_size: int
    pages: str
    query_len: int
    num_requests: int
    unique_tokens: int
    path_tokens: int
    kv_bytes: int
    qo_bytes: int
    flops: int
    roofline_us: float
    limit: str
    plan_us: float
    predicted_us: float
    checked_queries: int
    scores: tuple[Score, ...]

    def score(self, name: str) -> Score:
        """Find a contestant's score; every contestant has one, refused or not."""
        return next(score for score in self.scores if score.name == name)


def timed_names(rows: Sequence[Row]) -> list[str]:
    """Return ours, and the contestants that have a figure in some row."""
    ours, *others = [score.name for score in rows[0].scores]
    return [ours, *(name for name in others if any(row.score(name).us is not None for row in rows))]


def bench_kernel(
    case: Case,
    setup: Setup,
    rates: Rates,
    *,
    repeats: int,
    contestants: Sequence[Contestant] | None = None,
) -> Row:
    """Check every contestant on a case, then time in turn those that are right.

    Args:
        case: the forest.
        setup: spec, device, dtype and page size.
        rates: this run's roofline.
        repeats: timed calls of each contestant.
        contestants: who takes part, ours first; all of the device when None.

    Raises:
        ValueError: the case cannot be read.
        NotImplementedError: no backend of ours serves the setup.
    """
    device = setup.device.torch_device
    contestants = contestants or choose(device)
    clocks = clocks_for(device)
    problem = make_problem(case, setup)
    oracles = Oracles(problem)
    entries = [_enter(contestant, problem, oracles) for contestant in contestants]
    runs = {score.name: step.run for score, step in entries if step is not None}
    timings = time_in_turns(runs, clocks.main, repeats=repeats)
    cold = time_in_turns(runs, clocks.cold, repeats=repeats) if clocks.cold else {}
    ours = timings.get(contestants[0].name)
    scores = tuple(
        replace(
            _with_figures(score, timings[score.name], ours, problem, rates),
            cold_us=cold[score.name].median * 1e6 if cold else None,
        )
        if score.name in timings
        else score
        for score, _ in entries
    )
    return _row(problem, rates, oracles.plain, scores)


def _enter(contestant: Contestant, problem: Problem, oracles: Oracles) -> tuple[Score, Step | None]:
    """Set a contestant up and check it; no step where it may not be timed."""
    score = Score(name=contestant.name, refusal=contestant.refusal(problem))
    if score.refusal is not None:
        return score, None
    try:
        step = contestant.prepare(problem)
        out, first = _run_once(step, problem)
    except RuntimeError as failure:
        if isinstance(contestant, Bough):
            raise
        reason, _, _ = str(failure).partition("\n")
        return replace(score, refusal=f"failed: {reason}"), None
    error = plain_error = oracles.plain.error(out)
    if step.is_fp8:
        error = oracles.quantized.error(out)
        score = replace(score, plain_error=plain_error)
    score = replace(score, error=error, first_us=first * 1e6)
    tolerance = TOLERANCE[problem.setup.dtype]
    if not error <= tolerance:
        return replace(score, refusal=f"wrong: error {error:.1e}, not {tolerance:.0e}"), None
    return score, step


def _run_once(step: Step, problem: Problem) -> tuple[torch.Tensor, float]:
    """Return a step's output and the seconds until it was there."""
    results: list[torch.Tensor] = []

    def run() -> None:
        results.append(step.output(step.run()))
        if problem.q.device.type == "cuda":
            torch.cuda.synchronize(problem.q.device)

    seconds = WallClock().seconds(run)
    return results[0], seconds


def _with_figures(
    score: Score, timing: Timing, ours: Timing | None, problem: Problem, rates: Rates
) -> Score:
    seconds = timing.median
    return replace(
        score,
        us=seconds * 1e6,
        us_low=timing.low * 1e6,
        us_high=timing.high * 1e6,
        gb_per_s=(problem.kv_bytes + problem.qo_bytes) / seconds / 1e9,
        tflop_per_s=problem.flops / seconds / 1e12,
        percent_of_roofline=100 * rates.seconds(problem) / seconds,
        times_ours=None if ours is None else seconds / ours.median,
    )


def _row(problem: Problem, rates: Rates, oracle: Oracle, scores: tuple[Score, ...]) -> Row:
    case, forest = problem.case, problem.forest
    plan, timing = time_plan(forest, problem.setup, WallClock())
    return Row(
        case=case.name,
        workload=case.workload,
        spec=case.spec,
        page_size=problem.setup.page_size,
        pages="shuffled" if case.is_shuffled else "in order",
        query_len=case.query_len,
        num_requests=forest.num_requests,
        unique_tokens=forest.num_unique_tokens,
        path_tokens=forest.num_path_tokens,
        kv_bytes=problem.kv_bytes,
        qo_bytes=problem.qo_bytes,
        flops=problem.flops,
        roofline_us=rates.seconds(problem) * 1e6,
        limit=rates.limit(problem),
        plan_us=timing.median * 1e6,
        predicted_us=plan.schedule.seconds * 1e6,
        checked_queries=len(oracle.queries),
        scores=scores,
    )
