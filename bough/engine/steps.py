"""One step as rank 0 tells it to the others: whole but for the pages, of which only changes go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from bough.cache.pool import SlotMove
from bough.forest import Forest
from bough.parallel import Ranks
from bough.plan.pages import changed_pages


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one step computes, the same on every rank.

    Args:
        forest: the batch.
        token_ids: [num_tokens] the queries' tokens.
        slots: [num_tokens] where the KV of each goes, -1 where it is stored already.
        moves: KV that is to be moved first.
    """

    forest: Forest
    token_ids: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    moves: Sequence[SlotMove] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Message:
    """A step, and the part of its page ids that the others do not have.

    Args:
        values: the forest's fields but for `page_indices`.
        pages: `page_indices` from `pages_begin` on, as far as they changed.
        num_pages: length of `page_indices`.
        token_ids: the step's.
        slots: the step's.
        moves: the step's.
    """

    values: dict[str, Any]
    pages: npt.NDArray[np.int32]
    pages_begin: int
    num_pages: int
    token_ids: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    moves: Sequence[SlotMove]


class StepSender:
    """Tells the other ranks what to compute; rank 0 has it.

    Args:
        ranks: all of them; with one there is nobody to tell.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._sent: Forest | None = None

    def send(self, step: Step) -> None:
        """Let the others run a step.

        Raises:
            ChildProcessError: another rank is gone.
        """
        if self._ranks.size == 1:
            return
        forest, sent = step.forest, self._sent
        low, high = (0, len(forest.page_indices)) if sent is None else changed_pages(sent, forest)
        values = {field.name: getattr(forest, field.name) for field in fields(forest)}
        indices = values.pop("page_indices")
        message = _Message(
            values=values,
            pages=indices[low:high],
            pages_begin=low,
            num_pages=len(indices),
            token_ids=step.token_ids,
            slots=step.slots,
            moves=step.moves,
        )
        self._ranks.send(message)
        self._sent = forest


class StepReceiver:
    """Hears what to compute; the other ranks have it.

    Page ids are kept from step to step where they lie, so that a plan sees what changed.

    Args:
        ranks: all of them.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._pages = np.zeros(0, dtype=np.int32)

    def receive(self) -> Step | None:
        """Wait for a step; None at the end.

        Raises:
            ChildProcessError: another rank is gone.
        """
        message: _Message | None = self._ranks.receive()
        if message is None:
            return None
        begin, num_pages = message.pages_begin, message.num_pages
        is_whole = len(message.pages) == num_pages
        if is_whole or num_pages > len(self._pages):
            pages = np.zeros(max(1024, 2 * num_pages), dtype=np.int32)
            pages[:begin] = self._pages[:begin]
            self._pages = pages
        self._pages[begin : begin + len(message.pages)] = message.pages
        forest = Forest(**message.values, page_indices=self._pages[:num_pages])
        return Step(
            forest=forest,
            token_ids=message.token_ids,
            slots=message.slots,
            moves=message.moves,
        )
