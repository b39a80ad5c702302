from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from bough.bench.rank_models import write_random_model
from bough.bench.ranks import bench_ranks, start_bench_ranks
from bough.bench.report import Report, rank_settings
from bough.bench.table import rank_table


def test_two_ranks_are_compared_with_one(tmp_path: Path) -> None:
    ranks = start_bench_ranks(2, "cpu")
    rows = []
    for variant in ("gla-2", "mla"):
        write_random_model(tmp_path / f"small-{variant}", variant, head_dim=8)
        rows.append(bench_ranks(tmp_path / f"small-{variant}", "cpu", "float32", ranks))
    ranks.close()
    gla, mla = rows
    assert gla.num_equal == gla.num_tokens == mla.num_equal == 8 * 48
    # Two latents of 16 columns, or one of 32, and a rotary key of 4.
    assert (gla.kv_bytes_alone, gla.kv_bytes) == (4 * 36, [4 * 20] * 2)
    assert (mla.kv_bytes_alone, mla.kv_bytes) == (4 * 36, [4 * 36] * 2)
    assert gla.published_kv_bytes is None
    assert gla.step_ms > 0 and gla.step_ms_alone > 0
    path = tmp_path / "ranks.json"
    settings = rank_settings("cpu", 2, 0.1)
    Report(benchmark="ranks", suite=None, settings=settings, rows=rows).write(path)
    facts = json.loads(path.read_text(encoding="utf-8"))
    assert (facts["ranks"], len(facts["rows"])) == (2, 2)
    console = Console(width=100, record=True)
    console.print(rank_table(rows))
    assert "384 of 384       144   144 144" in console.export_text()
