"""Least squares by pattern search over positive numbers. Knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Factors by which a number is tried larger and smaller, coarse ones first.
_STEPS = (2.0, 1.4, 1.2, 1.1, 1.05, 1.02, 1.01)
_MOST_SWEEPS = 12


def fit_positive(
    start: Sequence[float], error: Callable[[Sequence[float]], float]
) -> tuple[float, ...]:
    """Change one number at a time by a factor for as long as that lowers the error.

    Args:
        start: positive numbers to begin with.
        error: what is to be small.

    Returns:
        The numbers at which no step of one percent lowers the error, or the best found by then.
    """
    best = list(start)
    lowest = error(best)
    for step in _STEPS:
        for _ in range(_MOST_SWEEPS):
            before = lowest
            for at in range(len(best)):
                for factor in (step, 1 / step):
                    lowest = _walk(best, at, factor, lowest, error)
            if lowest >= before * (1 - 1e-4):
                break
    return tuple(best)


def _walk(
    best: list[float],
    at: int,
    factor: float,
    lowest: float,
    error: Callable[[Sequence[float]], float],
) -> float:
    """Multiply one number while the error falls; returns the lowest error."""
    while True:
        former = best[at]
        best[at] = former * factor
        tried = error(best)
        if not tried < lowest * (1 - 1e-6):
            best[at] = former
            return lowest
        lowest = tried
