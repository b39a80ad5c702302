from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bough.bench.cases import Case
from bough.bench.suites import SUITES, read_cases
from bough.spec import AttentionSpec


def test_the_cpu_suite_holds_the_forests_that_figures_are_promised_for() -> None:
    assert {"1,16|8192,128", "16|2048", "16|2048 shuffled"} <= set(SUITES["cpu"])


def test_a_case_is_read_back_from_its_name() -> None:
    case = Case.parse("2,4|8,3 shuffled", query_len=2)
    assert case == Case(workload="2,4|8,3", is_shuffled=True, query_len=2)
    assert Case.parse(case.name, query_len=2) == case


def test_the_words_behind_a_forest_say_how_it_is_stored() -> None:
    case = Case.parse("1, 4|64,32 shuffled spec=mha:8:16 page=1", query_len=3)
    assert case == Case(
        workload="1, 4|64,32", is_shuffled=True, query_len=3, page_size=1, spec="mha:8:16"
    )
    assert Case.parse("1|9 queries=2", query_len=3).query_len == 2
    assert case.forest(16).page_size == 1


@pytest.mark.parametrize("text", ["1|9 page=0", "1|9 page=1 wide", "1|9 queries=x", "1|9 page"])
def test_words_that_say_nothing_known_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="case must be a forest"):
        Case.parse(text)


def test_shuffled_pages_are_the_same_pages_in_another_order() -> None:
    plain, shuffled = (Case.parse(f"1,4|64,32{end}").forest(4) for end in ("", " shuffled"))
    assert np.array_equal(plain.page_indices, np.arange(48))
    assert not np.array_equal(shuffled.page_indices, plain.page_indices)
    assert np.array_equal(np.sort(shuffled.page_indices), plain.page_indices)


def test_cases_of_a_suite_and_by_hand_are_taken_once_each() -> None:
    names = [
        case.name for case in read_cases("cpu", ["16|2048", "1|7"], query_len=1, is_shuffled=False)
    ]
    assert names == [*SUITES["cpu"], "1|7"]


def test_every_case_can_be_measured_with_shuffled_pages_too() -> None:
    cases = read_cases(None, ["1|7", "1|9 shuffled"], query_len=1, is_shuffled=True)
    assert [case.name for case in cases] == ["1|7", "1|7 shuffled", "1|9", "1|9 shuffled"]


@pytest.mark.parametrize("suite", [name for name in SUITES if name != "cpu"])
def test_every_named_suite_can_be_built(suite: str) -> None:
    cases = read_cases(suite, [], query_len=1, is_shuffled=False)
    assert {Case.parse(text) for text in SUITES[suite]} == set(cases)
    assert all(case.forest(16).num_requests >= 1 for case in cases)


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(ValueError, match=r"suite must be one of cpu, .*, got 'gpu'"):
        read_cases("gpu", [], query_len=1, is_shuffled=False)


def test_latents_are_measured_beside_the_same_forest_on_single_slots() -> None:
    cases = set(read_cases("latent", [], query_len=1, is_shuffled=False))
    single = [case for case in cases if case.page_size == 1]
    assert {(case.spec, case.query_len) for case in single} == {
        (spec, count) for spec in ("gla:128:2", "mla:128") for count in (1, 2)
    }
    assert {replace(case, page_size=64) for case in single} <= cases


def test_a_lopsided_batch_of_latents_holds_as_many_tokens_as_the_even_one() -> None:
    even, lopsided = (
        Case.parse(text).forest(64) for text in ("16|5056", "15|1024+1|65536 page=64")
    )
    assert even.num_requests == lopsided.num_requests
    assert even.num_unique_tokens == lopsided.num_unique_tokens
    assert all(
        any(case.startswith(text) for case in SUITES["latent"])
        for text in ("16|5056 page=64", "15|1024+1|65536 page=64")
    )


@pytest.mark.parametrize("suite", ["latent", "latent-ranks", "latent-trees"])
def test_a_suite_of_latents_names_specs_and_pages_itself(suite: str) -> None:
    cases = [Case.parse(text) for text in SUITES[suite]]
    assert all(case.spec is not None and AttentionSpec.parse(case.spec).tied for case in cases)
    assert all(case.page_size is not None for case in cases)
