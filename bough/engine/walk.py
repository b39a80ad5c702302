"""From a step's logits to tokens: samples walk down their drafts as long as they draw them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from bough.engine.batch import Batch
from bough.engine.request import Sample
from bough.engine.sampler import sample_tokens, top_logprobs


class _Place(NamedTuple):
    """Where a sample takes its next token: behind its newest token, or behind a draft of it."""

    sample: Sample
    draft: int
    row: int


def walk_drafts(batch: Batch, logits: Tensor) -> dict[Sample, list[int]]:
    """Give each of the batch's samples its next token, and one more for each draft that it drew.

    A sample draws as it would without drafts, token by token from its own random stream: drafts
    that it does not draw are as if they had never been.

    Args:
        batch: the step.
        logits: [num_rows, vocab_size], those behind each ending's newest token, then its drafts'.

    Returns:
        for each sample the drafts that it drew, ascending; each of them has one more token behind
        it, unless the sample is finished.
    """
    drawn: dict[Sample, list[int]] = {sample: [] for sample in batch.samples}
    places = [
        _Place(sample, -1, row)
        for sample, row in zip(batch.samples, batch.sample_rows, strict=True)
    ]
    while places:
        _take_tokens(places, logits)
        places = [step for place in places if (step := _next_place(place)) is not None]
        for place in places:
            drawn[place.sample].append(place.draft)
    return drawn


def _next_place(place: _Place) -> _Place | None:
    """Go on to the draft that is the token just taken, if there is one."""
    sample = place.sample
    if sample.is_finished:
        return None
    draft = sample.draft.child(place.draft, sample.token_ids[-1])
    return None if draft is None else _Place(sample, draft, place.row + draft - place.draft)


def _take_tokens(places: list[_Place], logits: Tensor) -> None:
    """Draw a token at each place and hand it to its sample."""
    logits = logits[[place.row for place in places]]  # [num_places, vocab_size]
    token_ids = sample_tokens(logits, [place.sample.next_draw() for place in places])
    for place, token_id in zip(places, token_ids, strict=True):
        place.sample.push(token_id)
    num_top = [place.sample.request.params.logprobs for place in places]
    rows = [row for row, num in enumerate(num_top) if num is not None]
    if rows:
        chosen = [token_ids[row] for row in rows]
        reports = top_logprobs(logits[rows], chosen, [num_top[row] or 0 for row in rows])
        for row, report in zip(rows, reports, strict=True):
            places[row].sample.logprobs.append(report)
