"""Forests as they stand in the midst of a real trace of requests, at a given concurrency.

A trace is a file of JSON lines, one request each, in the order of their arrival:
`{"input_length", "output_length", "hash_ids"}`, with one id for each block of 512 prompt tokens;
equal ids behind equal ids are equal text (Mooncake, arXiv 2407.00079).
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bough.bench.cases import SHUFFLE_SEED, Case
from bough.expect import expect
from bough.forest import Forest
from bough.workloads import forest_from_lengths

_BLOCK_TOKENS = 512
# Where in a trace forests are taken, as shares of the steps until its last request starts.
_MOMENTS = (0.25, 0.5, 0.75)


class TraceRequest(NamedTuple):
    """A request of a trace.

    Attributes:
        input_len: prompt tokens.
        output_len: tokens that it generates, one a step.
        blocks: ids of the blocks that its prompt fills.
    """

    input_len: int
    output_len: int
    blocks: tuple[int, ...]


class Running(NamedTuple):
    """A request in the midst of its generation.

    Attributes:
        blocks: ids of the blocks that its prompt fills.
        num_own: tokens behind these blocks, the newest of them its query.
    """

    blocks: tuple[int, ...]
    num_own: int


@dataclass(frozen=True, kw_only=True)
class TraceCase(Case):
    """The requests that decode at one step of a trace; each has one query.

    Args:
        workload: trace, concurrency and moment, for people.
        running: the requests.
    """

    running: tuple[Running, ...]

    def forest(self, page_size: int) -> Forest:
        """Build the forest; blocks that several prompts begin with are shared, in order."""
        return forest_of_prompts(self.running, page_size, is_shuffled=self.is_shuffled)


def read_trace(path: Path) -> list[TraceRequest]:
    """Read a trace.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is no request of a trace.
    """
    requests = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            facts = json.loads(line)
            input_len, output_len = int(facts["input_length"]), int(facts["output_length"])
            blocks = tuple(int(block) for block in facts["hash_ids"])
        except (KeyError, TypeError, ValueError) as error:
            what = "a JSON object with input_length, output_length and hash_ids"
            raise ValueError(f"{path.name} line {number} must be {what}, got {line!r}") from error
        num_filled = input_len // _BLOCK_TOKENS
        what = f"of at least {num_filled} hash_ids"
        expect(len(blocks) >= num_filled, f"{path.name} line {number}", what, len(blocks))
        requests.append(TraceRequest(input_len, max(1, output_len), blocks[:num_filled]))
    return requests


def trace_cases(path: Path, concurrencies: Iterable[int]) -> list[TraceCase]:
    """Take forests out of a trace: at a quarter, a half and three quarters of it.

    Args:
        path: the trace.
        concurrencies: requests that decode together.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no trace, or holds fewer requests than would run together.
    """
    requests = read_trace(path)
    cases = []
    for concurrency in concurrencies:
        for moment in _MOMENTS:
            name = f"{path.stem}, {concurrency} at {moment:.0%}"
            running = running_at(requests, concurrency, moment)
            cases.append(TraceCase(workload=name, running=tuple(running)))
    return cases


def running_at(requests: Sequence[TraceRequest], concurrency: int, moment: float) -> list[Running]:
    """Replay a trace with as many requests as may run together, the next as soon as one ends.

    Args:
        requests: in the order of their arrival; arrival times do not count.
        concurrency: requests that run together, each a token a step.
        moment: share of the steps until the last request starts.

    Returns:
        The requests that run at that step, with what they have generated.

    Raises:
        ValueError: there are fewer requests than run together.
    """
    is_possible = 1 <= concurrency <= len(requests)
    expect(is_possible, "concurrency", f"from 1 to {len(requests)} requests", concurrency)
    ends = [0] * concurrency
    spans = []
    for request in requests:
        begin = heapq.heappop(ends)
        spans.append((begin, begin + request.output_len))
        heapq.heappush(ends, begin + request.output_len)
    step = int(moment * spans[-1][0])
    return [
        Running(request.blocks, request.input_len % _BLOCK_TOKENS + step - begin + 1)
        for request, (begin, end) in zip(requests, spans, strict=True)
        if begin <= step < end
    ]


def forest_of_prompts(
    running: Sequence[Running], page_size: int, *, is_shuffled: bool = False
) -> Forest:
    """Build the forest of requests whose prompts begin with equal blocks.

    Args:
        running: the requests.
        page_size: slots per page; every node starts in a page of its own.
        is_shuffled: whether the pages are scattered.
    """
    parent: list[int] = []
    length: list[int] = []
    leaf = [0] * len(running)

    def add(above: int, num_tokens: int) -> int:
        parent.append(above)
        length.append(num_tokens)
        return len(parent) - 1

    # Requests whose first blocks agree, how many blocks stand above, and in which node.
    groups = [(list(range(len(running))), 0, -1)]
    while groups:
        members, depth, above = groups.pop()
        if len(members) == 1:
            (alone,) = members
            own_blocks = len(running[alone].blocks) - depth
            leaf[alone] = add(above, own_blocks * _BLOCK_TOKENS + running[alone].num_own)
            continue
        shared = _common_blocks([running[at].blocks for at in members], depth)
        node = add(above, (shared - depth) * _BLOCK_TOKENS) if shared > depth else above
        branches: dict[int, list[int]] = {}
        for at in members:
            blocks = running[at].blocks
            if len(blocks) == shared:
                groups.append(([at], shared, node))
            else:
                branches.setdefault(blocks[shared], []).append(at)
        groups += [(below, shared, node) for below in branches.values()]
    seed = SHUFFLE_SEED if is_shuffled else None
    return forest_from_lengths(parent, length, leaf, page_size, shuffle_seed=seed)


def _common_blocks(paths: Sequence[tuple[int, ...]], depth: int) -> int:
    """Count the leading blocks that all paths share, `depth` of which they are known to."""
    while all(len(path) > depth and path[depth] == paths[0][depth] for path in paths):
        depth += 1
    return depth
