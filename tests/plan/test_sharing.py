"""Sharing is never predicted to be slower than reading every request apart."""

from __future__ import annotations

import pytest

from bough.bench.cases import Case
from bough.bench.ours import forest_apart
from bough.device import Device
from bough.plan import make_plan
from bough.spec import AttentionSpec

H100 = Device.named("h100")
FORESTS = (
    "1,2|8192,256", "1,4|4096,64", "1,16|120000,2048", "1,64|120000,2048", "1,256|8192,256",
    "32,256|2048,512", "1,128|4096,512", "1,128|256,32", "1,64|64,64", "1,2|1024,8192",
    "8,16|512,4096", "1,4,16|512,64,64",
)  # fmt: skip


@pytest.mark.parametrize(
    "text", ["gqa:32:8:128", "gta:32:8:128", "gla:128:2", "mla:128", "gla:16:1", "mla:16"]
)
def test_no_schedule_takes_longer_than_that_of_requests_apart(text: str) -> None:
    spec = AttentionSpec.parse(text)
    for workload in FORESTS:
        forest = Case.parse(workload).forest(64)
        seconds, apart = (
            make_plan(each, spec, H100).schedule.seconds for each in (forest, forest_apart(forest))
        )
        assert seconds <= apart, workload


def test_what_arithmetic_bounds_is_not_shared_for_its_own_sake() -> None:
    """One request of 128 heads fills a tile, so that a second one in it would save nothing."""
    forest = Case.parse("1,64|120000,2048").forest(64)
    read = {
        text: make_plan(forest, AttentionSpec.parse(text), H100).num_tokens_read
        for text in ("mla:128", "gla:128:2", "mla:16")
    }
    assert read["mla:128"] == forest.num_path_tokens
    assert forest.num_unique_tokens < read["gla:128:2"] < forest.num_path_tokens
    assert forest.num_unique_tokens < read["mla:16"] < read["gla:128:2"]
