from __future__ import annotations

from pathlib import Path

import pytest

from bough.bench.cases import Case
from bough.bench.counters import Traffic, count_traffic, find_ncu, sum_kernels, with_traffic
from bough.bench.kernel import Row, Score, bench_kernel
from bough.bench.ours import Bough
from bough.bench.table import traffic_table
from tests.bench.problems import RATES, setup_for

HEADER = '"ID","Kernel Name","dram__bytes_read.sum","dram__bytes_write.sum",'
LOG = [
    "==PROF== Connected to process 7",
    HEADER + '"lts__t_sectors_srcunit_tex.sum"',
    '"","","byte","byte","sector"',
    '"0","spin_kernel(long)","0","0","3"',
    '"1","attend_tiles","1,000","20","100"',
    '"2","merge_states","500","0","10"',
    '"3","spin_kernel(long)","0","0","3"',
    '"4","flash_fwd","9000","80","1,000"',
    "==PROF== Disconnected from process 7",
]


def test_kernels_are_added_up_step_by_step_and_markers_do_not_count() -> None:
    assert sum_kernels(LOG) == [Traffic(1520, 110 * 32), Traffic(9080, 32000)]


def test_without_ncu_counting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="--ncu must be left out where ncu is not on the PATH"):
        find_ncu()


def test_what_ncu_complains_of_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "ncu"
    fake.write_text("#!/bin/sh\necho '==ERROR== no permission' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ValueError, match="ncu must be able to count here, got ==ERROR== no perm"):
        count_traffic([Case.parse("1|4")], setup_for(), ["sdpa"])


def test_counted_bytes_stand_in_the_scores_and_in_a_table() -> None:
    case = Case.parse("1,2|8,4")
    row: Row = bench_kernel(case, setup_for(), RATES, repeats=1, contestants=(Bough(),))
    both = Row(**{**vars(row), "scores": (*row.scores, Score(name="fa3"))})
    counted = {(0, "bough"): Traffic(10_000_000, 20_000_000), (0, "fa3"): Traffic(5, 60_000_000)}
    (found,) = with_traffic([both], counted)
    assert found.scores[0].dram_bytes == 10_000_000
    assert found.score("fa3").l2_bytes == 60_000_000
    columns = traffic_table([found]).columns
    assert [next(iter(column.cells)) for column in columns][-4:][0::3] == ["20.0", "3.0x"]
