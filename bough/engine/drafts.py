"""Guesses at what a sample will say next, from what its own text said before. No model here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Lengths of the newest run of tokens that is looked up, the surest first.
_RUNS = (4, 3, 2)
# Earlier places of a run that are looked at, the latest first.
_MOST_PLACES = 8


@dataclass(eq=False, kw_only=True)
class Draft:
    """A tree of guesses behind a sample's newest token, each child of it another token.

    Args:
        token_ids: [num_drafts] the guesses, each behind the one that it continues.
        parents: [num_drafts] which one that is, -1 for the newest token.
    """

    token_ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def child(self, parent: int, token_id: int) -> int | None:
        """Return the draft that continues another, or -1, by a token; None where there is none."""
        return self._children.get((parent, token_id))

    def add(self, token_ids: Sequence[int], most: int) -> None:
        """Add what may follow the newest token, as far as there is room for `most` drafts."""
        at = -1
        for token_id in token_ids:
            found = self.child(at, token_id)
            if found is None:
                if len(self.token_ids) == most:
                    return
                found = self._children[at, token_id] = len(self.token_ids)
                self.token_ids.append(token_id)
                self.parents.append(at)
            at = found


class PromptLookup:
    """Drafts that repeat a sample's own text: what followed its newest tokens earlier on.

    Several earlier places give several continuations, which make one tree (prompt lookup, as in
    arXiv 2304.04487, with more than one candidate).
    """

    def __init__(self) -> None:
        self._tokens = np.zeros(1024, dtype=np.int32)
        self._num_tokens = 0

    def follow(self, prompt: Sequence[int], generated: Sequence[int]) -> None:
        """Take over the tokens that are new since the last call."""
        if self._num_tokens < len(prompt):
            self._extend(prompt[self._num_tokens :])
        self._extend(generated[self._num_tokens - len(prompt) :])

    def draft(self, most: int) -> Draft:
        """Guess at most `most` tokens; half as far first, so that several places have a say."""
        draft = Draft()
        for reach in (most // 2, most):
            for place in self._places():
                draft.add(self._tokens[place : min(place + reach, self._num_tokens)].tolist(), most)
                if len(draft.token_ids) == most:
                    return draft
        return draft

    def _places(self) -> Iterator[int]:
        """Where the text goes on behind earlier copies of its newest run."""
        tokens: npt.NDArray[np.int32] = self._tokens[: self._num_tokens]
        for run in _RUNS:
            num_starts = len(tokens) - run
            if num_starts < 1:
                continue
            is_equal = np.ones(num_starts, dtype=np.bool_)
            for at in range(run):
                is_equal &= tokens[at : at + num_starts] == tokens[num_starts + at]
            yield from (is_equal.nonzero()[0][: -_MOST_PLACES - 1 : -1] + run).tolist()

    def _extend(self, token_ids: Sequence[int]) -> None:
        end = self._num_tokens + len(token_ids)
        if end > len(self._tokens):
            self._tokens = np.concatenate((self._tokens, np.zeros(end, dtype=np.int32)))
        self._tokens[self._num_tokens : end] = token_ids
        self._num_tokens = end
