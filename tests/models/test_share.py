"""The shares of all ranks make up the model, and each stores what the variant's table says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bough.cache.pool import KVPool
from bough.models.config import load_config
from bough.models.load import load_model
from bough.models.share import share_config
from bough.parallel import Ranks
from bough.spec import AttentionSpec
from tests.checkpoints import make_checkpoint
from tests.models.stepping import prompt_logits
from tests.models.test_decoder import random_tokens, relative_error


class ThreadRanks(Ranks):
    """A rank that is a thread: sums are passed in memory, in the order of the ranks.

    Args:
        rank: which one it is.
        barrier: of all ranks.
        terms: a place for each rank's term.
    """

    def __init__(self, rank: int, barrier: threading.Barrier, terms: list[Any]) -> None:
        super().__init__(rank, barrier.parties)
        self._barrier = barrier
        self._terms = terms

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        self._terms[self.rank] = x.clone()
        self._barrier.wait()
        x.copy_(torch.stack(self._terms).sum(dim=0))
        self._barrier.wait()
        return x


def on_threads(size: int, run: Callable[[Ranks], Any]) -> list[Any]:
    """Run the same on `size` ranks; their results in order."""
    barrier, terms = threading.Barrier(size), [None] * size
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: run(ThreadRanks(rank, barrier, terms)), range(size)))


CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "gqa-2 on 4": ("llama", {"attention_bias": True, "mlp_bias": True}, 4),
    "mha on 4": ("qwen2", {"num_key_value_heads": 4}, 4),
    "gqa-3 on 3": ("qwen3", {}, 3),
    "gta-2 on 4": ("bough_gta", {}, 4),
    "gla-4 on 2": ("bough_gla", {"num_latent_heads": 4}, 2),
    "gla-2 on 4": ("bough_gla", {"num_latent_heads": 2, "q_lora_rank": 24}, 4),
    "mla with experts on 4": ("deepseek_v3", {"attention_bias": True}, 4),
    "mla with biased experts on 2": ("deepseek_v2", {"mlp_bias": True}, 2),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_of_every_rank_are_those_of_the_whole_model(case: str, tmp_path: Path) -> None:
    family, overrides, size = CASES[case]
    make_checkpoint(family, tmp_path, seed=31, max_shard_size="100KB", **overrides)
    tokens = random_tokens(40, seed=32)
    expected = prompt_logits(load_model(tmp_path), tokens)

    def run(ranks: Ranks) -> torch.Tensor:
        return prompt_logits(load_model(tmp_path, ranks=ranks), tokens)

    logits = on_threads(size, run)
    assert all(relative_error(found, expected) < 1e-5 for found in logits)
    assert all(torch.equal(found, logits[0]) for found in logits)


def test_each_parameter_that_is_split_is_held_once(tmp_path: Path) -> None:
    make_checkpoint("bough_gla", tmp_path, num_latent_heads=2)
    whole = dict(load_model(tmp_path).named_parameters())
    shares = on_threads(2, lambda ranks: dict(load_model(tmp_path, ranks=ranks).named_parameters()))
    attention = "layers.1.self_attn."
    for name in (f"{attention}kv_b_proj.weight", "layers.2.mlp.gate_up_proj.weight"):
        assert [share[name].numel() * 2 for share in shares] == [whole[name].numel()] * 2
    both = [share[f"{attention}o_proj.weight"] for share in shares]
    assert torch.equal(torch.cat(both, dim=1), whole[f"{attention}o_proj.weight"])
    both = [share[f"{attention}kv_a_layernorm.weight"] for share in shares]
    assert torch.equal(torch.cat(both), whole[f"{attention}kv_a_layernorm.weight"])


# KV bytes of a token in one layer on each device, bf16, 16 query heads of 128 columns
# (arXiv 2505.21487, table of KV bytes per token and device).
TABLE: dict[str, tuple[AttentionSpec, list[int]]] = {
    "mha": (AttentionSpec.mha(16, 128), [8192, 4096, 2048]),
    "gqa-4": (AttentionSpec.gqa(16, 4, 128), [2048, 1024, 512]),
    "gta-4": (AttentionSpec.gta(16, 4, 128), [1152, 640, 384]),
    "gla-2": (AttentionSpec.gla(16, 2), [1152, 640, 640]),
    "mla": (AttentionSpec.mla(16), [1152, 1152, 1152]),
}


@pytest.mark.parametrize("variant", TABLE)
def test_kv_bytes_of_a_device_are_those_of_the_papers_table(variant: str, tmp_path: Path) -> None:
    spec, expected = TABLE[variant]
    whole = replace(load_config(make_checkpoint("llama", tmp_path)), spec=spec)
    for size, token_bytes in zip((1, 2, 4), expected, strict=True):
        share = share_config(whole, size)
        pool = KVPool(share.spec, num_layers=3, num_pages=5, page_size=7, dtype=torch.bfloat16)
        assert pool.num_bytes == 3 * 5 * 7 * token_bytes
        layers = [pool.layer(index) for index in range(3)]
        planes = [p for kv in layers for p in (kv if isinstance(kv, tuple) else (kv,))]
        assert sum(plane.nbytes for plane in planes) == pool.num_bytes


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        ("llama", 3, "tp must be a divisor of intermediate_size 80, got 3"),
        ("llama", 8, "tp must be a divisor of num_q_heads 4, got 8"),
        ("deepseek_v3", 16, "tp must be a divisor of expert_size 24, got 16"),
    ],
)
def test_a_model_that_cannot_be_split_so_is_refused(
    family: str, size: int, message: str, tmp_path: Path
) -> None:
    sizes = {"intermediate_size": 80}
    if family == "deepseek_v3":
        sizes["moe_intermediate_size"] = 24
    config = load_config(make_checkpoint(family, tmp_path, **sizes))
    with pytest.raises(ValueError, match=f"^{message}$"):
        share_config(config, size)


def test_heads_that_ranks_cannot_share_evenly_are_refused(tmp_path: Path) -> None:
    config = load_config(make_checkpoint("qwen3", tmp_path))
    message = "tp must be a divisor or a multiple of num_kv_heads 3, got 2"
    with pytest.raises(ValueError, match=f"^{message}$"):
        share_config(config, 2)
