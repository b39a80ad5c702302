"""Each of two GPUs takes as much memory for a token as the paper's table says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from bough.bench.rank_models import PUBLISHED_KV_BYTES, write_random_model
from bough.bench.ranks import bench_ranks, start_bench_ranks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


def test_memory_that_a_token_takes_on_each_gpu_is_that_of_the_papers_table(tmp_path: Path) -> None:
    ranks = start_bench_ranks(2, "cuda")
    for variant, published in PUBLISHED_KV_BYTES.items():
        write_random_model(tmp_path / variant, variant)
        row = bench_ranks(tmp_path / variant, "cuda", "bfloat16", ranks)
        assert row.kv_bytes_alone == published[1]
        assert row.kv_bytes == [published[2]] * 2
    began = time.monotonic()
    ranks.close()
    assert time.monotonic() - began < 5
