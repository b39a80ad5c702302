from __future__ import annotations

import numpy as np
import pytest
import torch

from bough.bench.cases import Case
from bough.bench.check import TOLERANCE, consult_oracle
from bough.bench.flex import FlexAttention, block_kinds, block_mask, pack_forest
from tests.bench.problems import problem_of

FORESTS = [("1,2,4|9,5,3", 1), ("1,5|128,128", 128), ("1,2,4|200,130,50", 20), ("3|256", 2)]


@pytest.mark.parametrize(("text", "query_len"), FORESTS)
def test_blocks_are_seen_in_part_or_as_a_whole_as_their_pairs_are(
    text: str, query_len: int
) -> None:
    packed = pack_forest(Case.parse(text, query_len).forest(4))
    partial, full = block_kinds(packed)
    sees = block_mask(packed, torch.device("cpu")).mask_mod
    query, token = torch.arange(len(packed.order))[:, None], torch.arange(len(packed.slots))
    pairs = sees(torch.tensor(0), torch.tensor(0), query, token).numpy()
    for row, begin in enumerate(range(0, len(pairs), 128)):
        for column, first in enumerate(range(0, pairs.shape[1], 128)):
            block = pairs[begin : begin + 128, first : first + 128]
            if full[row, column]:
                assert block.all() and block.shape[1] == 128
            else:
                assert partial[row, column] == block.any()
    assert not (partial & full).any()


@pytest.mark.parametrize(("text", "query_len"), FORESTS[:2])
@pytest.mark.parametrize("spec", ["gqa:4:2:16", "mla:4:24:8:16"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_packed_forest_gives_what_the_oracle_does(text: str, query_len: int, spec: str) -> None:
    problem = problem_of(text, spec, query_len=query_len)
    step = FlexAttention().prepare(problem)
    error = consult_oracle(problem).error(step.output(step.run()))
    assert error <= TOLERANCE[torch.float32]


def test_queries_out_of_the_order_of_their_nodes_come_back_in_their_own() -> None:
    forest = Case.parse("1,2,4|8,4,3").forest(4)
    packed = pack_forest(forest)
    assert np.array_equal(np.sort(packed.order), np.arange(4))
    assert packed.token_begin.tolist()[:8] == [0] * 8
    assert packed.token_end.tolist()[:8] == [4] * 8


def test_it_is_measured_on_gpus_only() -> None:
    assert FlexAttention().refusal(problem_of("1|4")) == "measured compiled, on GPUs only"
