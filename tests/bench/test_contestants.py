from __future__ import annotations

import pytest
import torch

from bough.bench.check import TOLERANCE, consult_oracle
from bough.bench.contestant import Contestant
from bough.bench.contestants import choose
from bough.bench.ours import Bough, BoughApart, forest_apart
from bough.bench.sdpa import TorchSdpa
from tests.bench.problems import problem_of


@pytest.mark.parametrize("contestant", [Bough(), TorchSdpa()], ids=lambda peer: peer.name)
@pytest.mark.parametrize("query_len", [1, 3])
@pytest.mark.parametrize("spec", ["gqa:4:2:16", "gta:4:2:16", "mla:4:24:8:16", "gla:4:2:24:8:16"])
@pytest.mark.parametrize("text", ["1,2,4|9,5,3", "3|7 shuffled"])
def test_a_contestant_computes_what_the_oracle_does(
    contestant: Contestant, query_len: int, spec: str, text: str
) -> None:
    problem = problem_of(text, spec, query_len=query_len)
    assert contestant.refusal(problem) is None
    step = contestant.prepare(problem)
    error = consult_oracle(problem).error(step.output(step.run()))
    assert error <= TOLERANCE[torch.float32]


def test_sdpa_refuses_what_its_contiguous_kv_would_not_fit() -> None:
    problem = problem_of("1,1024|60000,1", "mqa:1:8", dtype=torch.float16)
    assert TorchSdpa().refusal(problem) is None
    wide = problem_of("1,1024|60000,1", "gqa:4:4:32", dtype=torch.float16)
    assert TorchSdpa().refusal(wide) == "contiguous KV would take 29 GiB"


@pytest.mark.parametrize("query_len", [1, 2])
def test_with_sharing_off_the_same_pages_are_read_by_each_request(query_len: int) -> None:
    problem = problem_of("1,2,4|8,4,3", query_len=query_len)
    forest = forest_apart(problem.forest)
    assert (forest.num_nodes, forest.num_unique_tokens) == (4, problem.forest.num_path_tokens)
    step = BoughApart().prepare(problem)
    error = consult_oracle(problem).error(step.output(step.run()))
    assert error <= TOLERANCE[torch.float32]


def test_a_path_that_is_no_run_of_whole_pages_cannot_be_read_apart() -> None:
    problem = problem_of("1,2|7,4")
    assert "inside a page" in (BoughApart().refusal(problem) or "")
    with pytest.raises(ValueError, match="forest must have inner nodes of whole pages"):
        forest_apart(problem.forest)


def test_contestants_are_chosen_by_name_with_ours_first() -> None:
    assert [contestant.name for contestant in choose("cuda", ["flex", "fa3"])] == [
        "bough",
        "fa3",
        "flex",
    ]
    assert [contestant.name for contestant in choose("cpu")] == ["bough", "apart", "sdpa"]
    with pytest.raises(
        ValueError, match="against must be of draft-nodes, plain, apart, sdpa, got 'fa3'"
    ):
        choose("cpu", ["fa3"])
