from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from bough.bench.fit import fit_positive


def test_numbers_are_found_from_far_away() -> None:
    def error(numbers: Sequence[float]) -> float:
        return math.log(numbers[0] / 3e12) ** 2 + math.log(numbers[1] / 2e-6) ** 2

    assert fit_positive([1e11, 1e-4], error) == pytest.approx((3e12, 2e-6), rel=0.02)


def test_numbers_that_depend_on_each_other_are_found_together() -> None:
    lines = [(tokens, 5e-6 + 2e-9 * tokens) for tokens in (10, 100, 1000, 10000, 100000)]

    def error(numbers: Sequence[float]) -> float:
        fixed, rate = numbers
        return sum(math.log((fixed + rate * tokens) / seconds) ** 2 for tokens, seconds in lines)

    assert fit_positive([1e-6, 1e-8], error) == pytest.approx((5e-6, 2e-9), rel=0.03)


def test_a_number_that_does_not_matter_stays() -> None:
    found = fit_positive([7.0, 1.0], lambda numbers: (numbers[1] - 4.0) ** 2)
    assert found[0] == 7.0
    assert found[1] == pytest.approx(4.0, rel=0.02)
