import pytest

from bough.train.schedule import FINAL_SHARE, learning_rate, steps_within


def test_the_rate_rises_to_its_peak_and_falls_to_its_final_share() -> None:
    rates = [learning_rate(i, peak=2.0, warmup_steps=10, num_steps=100) for i in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == max(rates) == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(2.0 * FINAL_SHARE)


def test_the_steps_fill_the_time_that_evaluations_leave() -> None:
    assert steps_within(100.0, step_seconds=0.5, evaluation_seconds=20.0) == 160
    assert steps_within(-1.0, step_seconds=0.5, evaluation_seconds=20.0) == 1
