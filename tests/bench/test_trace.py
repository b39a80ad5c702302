from __future__ import annotations

import json
from pathlib import Path

import pytest

from bough.bench.problem import path_slots
from bough.bench.trace import Running, forest_of_prompts, read_trace, running_at, trace_cases

EXCERPT = Path(__file__).parents[2] / "benchmarks" / "traces" / "conversation-700.jsonl"


def write_trace(path: Path, requests: list[tuple[int, int, list[int]]]) -> Path:
    lines = [
        {"timestamp": 0, "input_length": length, "output_length": output, "hash_ids": blocks}
        for length, output, blocks in requests
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_only_blocks_that_a_prompt_fills_are_kept(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "trace.jsonl", [(1100, 3, [7, 8, 9]), (512, 0, [7])])
    full, short = read_trace(path)
    assert full.blocks == (7, 8)
    assert short == (512, 1, (7,))


@pytest.mark.parametrize("line", ["[]", "{}", "{", '{"input_length": 9, "output_length": 1}'])
def test_a_line_that_is_no_request_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"trace.jsonl line 1 must be a JSON object"):
        read_trace(path)


def test_a_prompt_with_too_few_blocks_is_refused(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "trace.jsonl", [(1024, 1, [3])])
    with pytest.raises(ValueError, match="line 1 must be of at least 2 hash_ids, got 1"):
        read_trace(path)


def test_the_next_request_starts_as_soon_as_one_ends(tmp_path: Path) -> None:
    # Two at a time: 0 runs in steps 0 to 3, 1 in 0 to 1, 2 in 2 to 6, 3 from 4 on.
    outputs = [4, 2, 5, 9]
    path = write_trace(tmp_path / "trace.jsonl", [(100 + 7 * n, n, []) for n in outputs])
    requests = read_trace(path)
    assert running_at(requests, 2, 0.5) == [Running((), 128 + 3), Running((), 135 + 1)]
    assert running_at(requests, 2, 1.0) == [Running((), 135 + 3), Running((), 163 + 1)]


def test_more_requests_than_a_trace_holds_are_refused(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "trace.jsonl", [(9, 2, [])])
    with pytest.raises(ValueError, match="concurrency must be from 1 to 1 requests, got 2"):
        trace_cases(path, [2])


def test_equal_first_blocks_are_one_node_and_each_request_has_a_leaf() -> None:
    running = [
        Running((1, 2, 3), 10),
        Running((1, 2, 4), 20),
        Running((1, 2), 30),
        Running((5,), 40),
        Running((1, 2, 3), 50),
    ]
    forest = forest_of_prompts(running, 16)
    lengths = {
        (request, int(forest.node_len[node])): int(forest.node_parent[node])
        for request, node in enumerate(forest.query_node.tolist())
    }
    assert [length for _, length in lengths] == [10, 512 + 20, 30, 512 + 40, 50]
    assert forest.num_unique_tokens == 2 * 512 + 512 + 10 + 532 + 30 + 552 + 50
    for request, query_node in enumerate(forest.query_node.tolist()):
        num_tokens = 512 * len(running[request].blocks) + running[request].num_own
        assert len(path_slots(forest, query_node, num_tokens)) == num_tokens
        assert forest.query_position[request] == num_tokens - 1


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_no_two_nodes_hold_the_same_page(is_shuffled: bool) -> None:
    running = [Running((1, 2), 17), Running((1, 3), 1), Running((), 5)]
    forest = forest_of_prompts(running, 16, is_shuffled=is_shuffled)
    assert sorted(forest.page_indices.tolist()) == list(range(len(forest.page_indices)))


def test_the_excerpt_that_is_shipped_shares_little() -> None:
    cases = trace_cases(EXCERPT, [16, 64])
    assert [case.name for case in cases][:2] == [
        "conversation-700, 16 at 25%",
        "conversation-700, 16 at 50%",
    ]
    for case in cases[3:]:
        forest = case.forest(16)
        assert forest.num_requests == 64
        assert 1.02 < forest.num_path_tokens / forest.num_unique_tokens < 1.07
