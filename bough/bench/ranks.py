"""`bough bench ranks`: a model on one device and on several: their tokens, and what each stores."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bough.bench.rank_models import PUBLISHED_KV_BYTES
from bough.engine.config import EngineConfig
from bough.engine.engine import Engine
from bough.engine.executor import Executor, make_pool
from bough.engine.params import SamplingParams
from bough.engine.worker import Assignment, follow_steps, load_share
from bough.models.config import ModelConfig
from bough.parallel import Ranks, join_ranks, start_ranks

_NUM_PAGES, _PAGE_SIZE = 4096, 16
_NUM_PROMPTS, _SHARED_LEN, _OWN_LEN = 8, 48, 12
_GREEDY = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True)


@dataclass(frozen=True, kw_only=True)
class RankRow:
    """One model in one dtype, on one device and on several.

    Args:
        model: a variant, or the name of a model's folder.
        dtype: of weights and KV.
        num_tokens: greedy tokens that were compared.
        num_equal: those on which one device and several agree.
        kv_bytes_alone: bytes of a token and layer on one device. They are measured: on a GPU what
            the allocator gave out for the pool, on a CPU the storage of its tensors.
        kv_bytes: the same on each of several devices.
        published_kv_bytes: what the paper's table says of these; None where it says nothing.
        step_ms_alone: wall time of a step on one device, prompts included, kernels compiled.
        step_ms: the same on several.
    """

    model: str
    dtype: str
    num_tokens: int
    num_equal: int
    kv_bytes_alone: float
    kv_bytes: list[float]
    published_kv_bytes: int | None
    step_ms_alone: float
    step_ms: float


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    token_ids: list[int]
    kv_bytes: list[float]
    step_ms: float


def start_bench_ranks(num_ranks: int, device: str) -> Ranks:
    """Start the ranks that `bench_ranks` runs models on; the caller closes them.

    Raises:
        ValueError: there are not as many GPUs.
        ChildProcessError: a rank ended.
    """
    device_type = EngineConfig(device=device).device_type
    entry = f"from bough.bench.ranks import follow; follow({device_type!r})"
    return start_ranks(num_ranks, device_type, entry)


def bench_ranks(model: Path, device: str, dtype: str, ranks: Ranks) -> RankRow:
    """Complete the same prompts on one device and on several.

    Args:
        model: checkpoint folder; one named as a published variant is compared with its figures.
        device: `cuda` or `cpu`.
        dtype: of weights and KV.
        ranks: from `start_bench_ranks`.

    Raises:
        ValueError: the model cannot be shared so.
        ChildProcessError: a rank ended.
    """
    config = EngineConfig(device=device, dtype=dtype, num_pages=_NUM_PAGES, page_size=_PAGE_SIZE)
    alone = _run(Assignment(model=str(model), config=config), Ranks())
    shared = replace(config, tensor_parallel_size=ranks.size)
    several = _run(Assignment(model=str(model), config=shared), ranks)
    pairs = list(zip(alone.token_ids, several.token_ids, strict=True))
    published = PUBLISHED_KV_BYTES.get(model.name, {}) if dtype == "bfloat16" else {}
    return RankRow(
        model=model.name,
        dtype=dtype,
        num_tokens=len(pairs),
        num_equal=sum(one == other for one, other in pairs),
        kv_bytes_alone=alone.kv_bytes[0],
        kv_bytes=several.kv_bytes,
        published_kv_bytes=published.get(ranks.size),
        step_ms_alone=alone.step_ms,
        step_ms=several.step_ms,
    )


def follow(device_type: str) -> None:
    """Be one of the other ranks: serve model after model, and say what the KV of each takes."""
    ranks = join_ranks(device_type)
    while (assignment := ranks.receive()) is not None:
        _serve(assignment, ranks)
    ranks.close()


def _serve(assignment: Assignment, ranks: Ranks) -> None:
    decoder, config = load_share(assignment, ranks)
    before = _num_allocated()
    pool = make_pool(decoder, config)
    ranks.gather(_kv_bytes(pool.num_bytes, before, decoder.config))
    follow_steps(Executor(decoder, pool, config.chosen_device), ranks)


def _run(assignment: Assignment, ranks: Ranks) -> _Outcome:
    """Complete the prompts twice, the second time on compiled kernels."""
    ranks.send(assignment)
    decoder, config = load_share(assignment, ranks)
    before = _num_allocated()
    engine = Engine(decoder, None, config)
    pool_bytes = engine.stats.kv_token_bytes * _NUM_PAGES * _PAGE_SIZE
    kv_bytes = ranks.gather(_kv_bytes(pool_bytes, before, decoder.config))
    _complete(engine)
    first = engine.stats
    token_ids = _complete(engine)
    seconds = engine.stats.seconds - first.seconds
    num_steps = engine.stats.num_steps - first.num_steps
    ranks.send(None)
    return _Outcome(token_ids=token_ids, kv_bytes=kv_bytes, step_ms=1e3 * seconds / num_steps)


def _complete(engine: Engine) -> list[int]:
    """Greedy tokens of all prompts in a row; nothing is cached before or after."""
    rng = np.random.default_rng(0)
    vocab_size = engine.model_config.vocab_size
    shared = rng.integers(0, vocab_size, _SHARED_LEN).tolist()
    for _ in range(_NUM_PROMPTS):
        own = rng.integers(0, vocab_size, _OWN_LEN).tolist()
        engine.add_request({"prompt_token_ids": shared + own}, _GREEDY)
    token_ids: dict[int, tuple[int, ...]] = {}
    while engine.has_unfinished:
        token_ids |= {
            output.request_id: tuple(output.outputs[0].token_ids) for output in engine.step()
        }
    engine.clear_cache()
    return [token_id for key in sorted(token_ids) for token_id in token_ids[key]]


def _num_allocated() -> int:
    """Bytes that live tensors take on this rank's GPU; 0 without one."""
    gc.collect()
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def _kv_bytes(pool_bytes: int, before: int, model: ModelConfig) -> float:
    """Bytes of a token and layer, by what was given out for the pool since `before`."""
    taken = _num_allocated() - before
    return (taken or pool_bytes) / (_NUM_PAGES * _PAGE_SIZE * model.num_layers)
