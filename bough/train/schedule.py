"""How long a run is and how its learning rate goes: pure functions."""

from __future__ import annotations

import math

# The rate ends at this share of its peak.
FINAL_SHARE = 0.01


def learning_rate(step: int, *, peak: float, warmup_steps: int, num_steps: int) -> float:
    """Rise linearly to `peak` over the warm-up, then fall along a cosine.

    Args:
        step: from 0.
        peak: the highest rate.
        warmup_steps: steps of the rise.
        num_steps: steps in all; unused before the warm-up ends.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))


def steps_within(seconds: float, *, step_seconds: float, evaluation_seconds: float) -> int:
    """Return how many steps fit into `seconds`, the evaluations paid first; at least 1.

    Args:
        seconds: time left.
        step_seconds: one step.
        evaluation_seconds: all evaluations together.
    """
    return max(1, int((seconds - evaluation_seconds) / step_seconds))
