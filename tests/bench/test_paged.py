from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bough.bench import fa3, flashinfer
from bough.bench.cases import Case
from bough.bench.contestant import Contestant
from bough.bench.fa3 import FlashAttention3
from bough.bench.flashinfer import FlashInferCascade, FlashInferDecode
from bough.bench.paged import cascade_levels, refuse_paged, request_tables
from bough.bench.problem import path_slots
from tests.bench.problems import problem_of

PEERS = [FlashAttention3(), FlashInferDecode(), FlashInferCascade()]


@pytest.mark.parametrize("text", ["1,2,4|8,4,3", "3|9", "2,4|8,5 shuffled"])
@pytest.mark.parametrize("query_len", [1, 2])
def test_a_page_table_names_every_token_of_a_path(text: str, query_len: int) -> None:
    forest = Case.parse(text, query_len).forest(4)
    pages, lengths = request_tables(forest)
    for request, last in enumerate(forest.query_indptr[1:] - 1):
        stop = int(lengths[request])
        assert stop == forest.query_position[last] + 1
        token = torch.arange(stop)
        slots = pages[request, token // 4] * 4 + token % 4
        assert slots.tolist() == path_slots(forest, int(forest.query_node[last]), stop).tolist()


def test_inner_nodes_that_end_inside_a_page_have_no_page_table() -> None:
    with pytest.raises(ValueError, match="forest must have inner nodes of whole pages"):
        request_tables(Case.parse("1,2|7,4").forest(4))


def test_a_cascade_reads_each_node_once_for_its_queries() -> None:
    levels = cascade_levels(Case.parse("1,2,4|8,4,3").forest(4))
    assert levels is not None
    assert [level.query_indptr.tolist() for level in levels] == [[0, 4], [0, 2, 4], [0, 1, 2, 3, 4]]
    assert [level.page_indptr.tolist() for level in levels] == [[0, 2], [0, 1, 2], [0, 1, 2, 3, 4]]
    pages = [page for level in levels for page in level.page_indices.tolist()]
    assert pages == list(range(8))
    assert [level.last_page_len.tolist() for level in levels] == [[4], [4, 4], [3, 3, 3, 3]]


def test_trees_of_uneven_depth_and_queries_out_of_order_are_no_cascade() -> None:
    forest = Case.parse("1,2|8,4").forest(4)
    nodes, positions = np.array([0, 2], np.int32), np.array([7, 11], np.int32)
    assert cascade_levels(replace(forest, query_node=nodes, query_position=positions)) is None
    assert cascade_levels(replace(forest, query_node=forest.query_node[::-1])) is None


def test_what_page_tables_cannot_say_is_refused() -> None:
    half = torch.bfloat16
    assert refuse_paged(problem_of("1,2|8,4", dtype=half)) is None
    assert "float32" in (refuse_paged(problem_of("1,2|8,4")) or "")
    assert "untied" in (refuse_paged(problem_of("1,2|8,4", "mla:4:24:8:16", dtype=half)) or "")
    assert "inside a page" in (refuse_paged(problem_of("1,2|7,4", dtype=half)) or "")


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_that_is_not_installed_says_so(
    peer: Contestant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fa3, "load_operators", lambda *modules: None)
    monkeypatch.setattr(flashinfer, "find_spec", lambda name: None)
    refusal = peer.refusal(problem_of("1,2|8,4", dtype=torch.bfloat16))
    assert refusal is not None and refusal.endswith("cannot be imported")


def test_flashinfer_takes_one_query_a_request_and_its_cascade_what_is_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flashinfer, "find_spec", lambda name: name)
    two = problem_of("1,2|8,4", query_len=2, dtype=torch.bfloat16)
    assert FlashInferDecode().refusal(two) == "takes one query a request"
    alone = problem_of("2|8", dtype=torch.bfloat16)
    assert FlashInferDecode().refusal(alone) is None
    assert FlashInferCascade().refusal(alone) == "nothing is shared"
