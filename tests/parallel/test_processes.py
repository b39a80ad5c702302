"""Which rank is said to have ended the others."""

from __future__ import annotations

import signal

from bough.parallel.processes import LOST_OTHERS, first_to_end


def test_a_killed_rank_is_named_before_those_that_lost_it() -> None:
    killed, aborted, lost = (3, -signal.SIGKILL), (1, -signal.SIGABRT), (2, LOST_OTHERS)
    assert first_to_end([aborted, lost, killed]) == killed
    assert first_to_end([lost, aborted]) == aborted
    assert first_to_end([lost]) == lost


def test_of_ranks_that_ended_by_themselves_the_lowest_is_named() -> None:
    assert first_to_end([(1, 7), (2, -signal.SIGKILL)]) == (1, 7)
