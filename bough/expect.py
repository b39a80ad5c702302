"""How bad input is refused: one line that says what was expected and what was found."""

from __future__ import annotations

from typing import Any

import numpy as np


def expect(is_met: bool, name: str, expectation: str, value: object) -> None:
    """Raise ValueError(`<name> must be <expectation>, got <value>`) unless `is_met`."""
    if not is_met:
        raise ValueError(f"{name} must be {expectation}, got {value}")


def expect_all(is_met: Any, name: str, expectation: str, values: Any) -> None:
    """Do the same for arrays: name the first entry of `values` for which `is_met` is false."""
    if not np.asarray(is_met).all():
        at = int(np.argmin(is_met))
        expect(False, f"{name}[{at}]", expectation, values[at])
