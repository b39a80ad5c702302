"""One measured step: a forest with random queries and KV, and the work it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from bough.attend import store_kv
from bough.bench.cases import Case
from bough.cache.pool import KVPool
from bough.device import Device
from bough.expect import expect
from bough.forest import Forest
from bough.fp8 import FP8
from bough.kv import KV, PlainKV, QuantizedKV, tensors_of
from bough.spec import AttentionSpec


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all cases of a run share.

    Args:
        spec: the attention variant; without window, cap and sinks, which not every peer knows.
        device: where it runs.
        dtype: of queries, KV and outputs.
        page_size: slots per page.
        seed: of queries and KV.
        is_fp8: whether ours reads its KV in fp8.

    Raises:
        ValueError: the spec has a window, a cap or sinks.
    """

    spec: AttentionSpec
    device: Device
    dtype: torch.dtype
    page_size: int = 16
    seed: int = 0
    is_fp8: bool = False

    def __post_init__(self) -> None:
        spec = self.spec
        is_plain = spec.window is None and spec.softcap is None and not spec.sinks
        expect(is_plain, "spec", "without window, softcap and sinks", spec)

    @property
    def itemsize(self) -> int:
        """Bytes of a stored number that ours reads."""
        return 1 if self.is_fp8 else self.dtype.itemsize


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A case with its tensors.

    Args:
        case: the case.
        setup: spec, device, dtype and page size.
        forest: its forest.
        q: [num_queries, num_q_heads, qk_dim] standard normal.
        plain_kv: planes of a `KVPool` of one layer, standard normal.
        kv: the same as ours reads it: in fp8 where the case says so.
    """

    case: Case
    setup: Setup
    forest: Forest
    q: torch.Tensor
    plain_kv: PlainKV
    kv: KV

    @property
    def spec(self) -> AttentionSpec:
        return self.setup.spec

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV that some query sees, each token once."""
        return self.spec.kv_bytes(self.forest.num_unique_tokens, self.setup.itemsize)

    @property
    def qo_bytes(self) -> int:
        """Bytes of all queries and outputs."""
        return self.spec.qo_bytes(self.forest.num_queries, self.setup.dtype.itemsize)

    @property
    def flops(self) -> int:
        """FLOPs over all (query, visible token) pairs."""
        return self.spec.flops(int((self.forest.rotary_position + 1).sum(dtype=np.int64)))


def make_problem(case: Case, setup: Setup) -> Problem:
    """Build a case's forest and fill a pool of just its pages.

    Args:
        case: the forest.
        setup: what the case itself does not say.

    Raises:
        ValueError: the case or its spec cannot be read.
    """
    setup = replace(
        setup,
        spec=AttentionSpec.parse(case.spec) if case.spec else setup.spec,
        page_size=case.page_size or setup.page_size,
        is_fp8=case.is_fp8,
    )
    forest = case.forest(setup.page_size)
    device = setup.device.torch_device
    generator = torch.Generator(device).manual_seed(setup.seed)
    kv = _new_kv(setup, forest, setup.dtype)
    assert not isinstance(kv, QuantizedKV)
    for plane in tensors_of(kv):
        plane.normal_(generator=generator)
    q = torch.empty(
        forest.num_queries,
        setup.spec.num_q_heads,
        setup.spec.qk_dim,
        dtype=setup.dtype,
        device=device,
    ).normal_(generator=generator)
    read = _quantized(setup, forest, kv) if setup.is_fp8 else kv
    return Problem(case=case, setup=setup, forest=forest, q=q, plain_kv=kv, kv=read)


def _new_kv(setup: Setup, forest: Forest, dtype: torch.dtype) -> KV:
    """Allocate just the pages of a forest, for one layer."""
    pool = KVPool(
        setup.spec,
        num_layers=1,
        num_pages=forest.max_page + 1,
        page_size=setup.page_size,
        dtype=dtype,
        device=setup.device.torch_device,
    )
    return pool.layer(0)


def _quantized(setup: Setup, forest: Forest, kv: PlainKV) -> KV:
    """Store every slot's rows in fp8, as an engine stores those of new tokens."""
    quantized = _new_kv(setup, forest, FP8)
    rows = tuple(plane.flatten(0, 1) for plane in tensors_of(kv))
    slots = torch.arange(len(rows[0]), device=rows[0].device)
    store_kv(quantized, (rows[0], rows[1]) if isinstance(kv, tuple) else rows[0], slots)
    return quantized


def path_slots(forest: Forest, node: int, stop: int) -> npt.NDArray[np.int64]:
    """List the slots of positions 0 to `stop` on the path that ends in `node`."""
    parts = [np.zeros(0, dtype=np.int64)]
    while node >= 0:
        token = np.arange(max(0, stop - forest.node_start[node])) + forest.node_first_slot[node]
        page = forest.page_indices[forest.node_page_start[node] + token // forest.page_size]
        parts.insert(0, page.astype(np.int64) * forest.page_size + token % forest.page_size)
        stop, node = int(forest.node_start[node]), int(forest.node_parent[node])
    return np.concatenate(parts)


def contiguous_kv(
    problem: Problem, slots: npt.NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Copy tokens out of the pool: keys [num_kv_heads, n, qk_dim], values [.., v_dim]."""
    spec, kv = problem.spec, problem.plain_kv
    at = torch.from_numpy(slots).to(problem.q.device)
    page, slot = at // problem.setup.page_size, at % problem.setup.page_size
    if isinstance(kv, tuple):
        key, value = (plane[page, slot].transpose(0, 1).contiguous() for plane in kv)
        return key, value
    states, rope = kv[page, slot].split([spec.num_kv_heads * spec.v_dim, spec.rope_dim], dim=1)
    value = states.unflatten(1, (spec.num_kv_heads, spec.v_dim)).transpose(0, 1).contiguous()
    rope = rope.expand(spec.num_kv_heads, -1, -1)
    return torch.cat([value[..., : spec.nope_dim], rope], dim=2), value
