from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bough.cache import KVPool, PoolExhausted
from bough.fp8 import FP8
from bough.kv import tensors_of
from bough.spec import AttentionSpec

UNTIED = {
    "mha": AttentionSpec.mha(4, 8),
    "mqa": AttentionSpec.mqa(4, 8),
    "gqa": AttentionSpec.gqa(4, 2, 8),
    "values-wider": AttentionSpec(num_q_heads=4, num_kv_heads=2, nope_dim=8, v_dim=12, scale=1.0),
}
TIED = {
    "gta": AttentionSpec.gta(4, 2, 8),
    "mla": AttentionSpec.mla(4, latent_dim=16, rope_dim=4, head_dim=8),
    "gla": AttentionSpec.gla(4, 2, latent_dim=8, rope_dim=4, head_dim=8),
}
NUM_PAGES = 10


def make_pool(num_pages: int = NUM_PAGES, spec: AttentionSpec = UNTIED["mqa"]) -> KVPool:
    return KVPool(spec, num_layers=1, num_pages=num_pages, page_size=3)


@pytest.mark.parametrize("spec", UNTIED.values(), ids=UNTIED)
def test_planes_of_untied_specs_are_keys_and_values(spec: AttentionSpec) -> None:
    keys, values = make_pool(spec=spec).layer(0)
    assert keys.shape == (NUM_PAGES, 3, spec.num_kv_heads, spec.nope_dim)
    assert values.shape == (NUM_PAGES, 3, spec.num_kv_heads, spec.v_dim)


@pytest.mark.parametrize("spec", UNTIED.values(), ids=UNTIED)
def test_a_run_of_pages_is_one_contiguous_matrix_for_each_head_on_the_cpu(
    spec: AttentionSpec,
) -> None:
    for plane in make_pool(spec=spec).layer(0):
        for head in range(spec.num_kv_heads):
            assert plane[2:7, :, head].is_contiguous()


@pytest.mark.parametrize("spec", TIED.values(), ids=TIED)
def test_the_plane_of_a_tied_spec_holds_states_and_one_rotary_key(spec: AttentionSpec) -> None:
    plane = make_pool(spec=spec).layer(0)
    assert isinstance(plane, torch.Tensor)
    assert plane.shape == (NUM_PAGES, 3, spec.num_kv_heads * spec.v_dim + spec.rope_dim)
    assert plane.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, FP8], ids=str)
@pytest.mark.parametrize("spec", (UNTIED | TIED).values(), ids=UNTIED | TIED)
def test_num_bytes_counts_every_plane_of_every_layer(
    spec: AttentionSpec, dtype: torch.dtype
) -> None:
    pool = KVPool(spec, num_layers=3, num_pages=5, page_size=7, dtype=dtype)
    planes = []
    for index in range(3):
        layer = pool.layer(index)
        planes.extend(tensors_of(layer))
    assert dtype == FP8 or all(plane.dtype == dtype for plane in planes)
    assert len({plane.data_ptr() for plane in planes}) == len(planes)
    assert pool.num_bytes == sum(plane.numel() * plane.element_size() for plane in planes)


def test_taking_and_freeing_pages_leaves_their_contents_alone() -> None:
    pool = make_pool(spec=TIED["mla"])
    plane = pool.layer(0)
    assert isinstance(plane, torch.Tensor)
    plane.fill_(float("nan"))
    pool.release(pool.allocate(NUM_PAGES))
    pool.allocate(NUM_PAGES)
    assert plane.isnan().all()


def test_allocated_pages_are_consecutive_where_a_free_run_is_long_enough() -> None:
    pool = make_pool()
    pool.allocate(NUM_PAGES)
    pool.release([1, 2, 4, 5, 6, 8])
    assert pool.allocate(3) == [4, 5, 6]
    assert pool.allocate(2) == [1, 2]


def test_freed_runs_join_whatever_the_order_in_which_they_are_freed() -> None:
    pool = make_pool()
    pool.allocate(NUM_PAGES)
    for page in (3, 9, 5, 4, 0, 8, 7, 1, 2, 6):
        pool.release([page])
    assert pool.allocate(NUM_PAGES) == list(range(NUM_PAGES))


def test_the_longest_runs_are_taken_where_none_is_long_enough() -> None:
    pool = make_pool()
    pool.allocate(NUM_PAGES)
    pool.release([0, 2, 3, 5, 7, 8, 9])
    assert sorted(pool.allocate(5)) == [2, 3, 7, 8, 9]
    assert sorted(pool.allocate(2)) == [0, 5]


def test_asking_for_too_many_pages_takes_none() -> None:
    pool = make_pool()
    pool.allocate(4)
    with pytest.raises(PoolExhausted, match="at most the 6 free pages, got 7"):
        pool.allocate(7)
    assert pool.num_free == 6


def test_a_page_is_free_only_once_every_holder_released_it() -> None:
    pool = make_pool()
    pages = pool.allocate(2)
    pool.retain(pages[:1])
    pool.release(pages)
    assert pool.num_free == NUM_PAGES - 1
    pool.release(pages[:1])
    assert pool.num_free == NUM_PAGES


@pytest.mark.parametrize("pages", [[0, 3], [0, 0], [-1], [NUM_PAGES]], ids=str)
def test_releasing_more_than_is_held_is_refused_and_changes_nothing(pages: list[int]) -> None:
    pool = make_pool()
    pool.allocate(2)
    with pytest.raises(ValueError, match="page"):
        pool.release(pages)
    assert pool.num_free == NUM_PAGES - 2


def test_retaining_a_free_page_is_refused() -> None:
    with pytest.raises(ValueError, match="page 3 must be held at least 1 times, got 0"):
        make_pool().retain([3])


@pytest.mark.parametrize("name", ["num_layers", "num_pages", "page_size"])
def test_sizes_below_one_are_refused(name: str) -> None:
    sizes = {"num_layers": 1, "num_pages": 1, "page_size": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        KVPool(UNTIED["mqa"], **sizes)


def test_dtypes_that_are_not_floating_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dtype must be .*floating type, got torch\.int8"):
        KVPool(UNTIED["mqa"], num_layers=1, num_pages=1, dtype=torch.int8)


class PoolMachine(RuleBasedStateMachine):
    """The pool beside a Counter of how often each page is held."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = make_pool()
        self.held: Counter[int] = Counter()

    @rule(num_pages=st.integers(0, NUM_PAGES))
    def allocate(self, num_pages: int) -> None:
        num_free = NUM_PAGES - len(self.held)
        if num_pages > num_free:
            with pytest.raises(PoolExhausted):
                self.pool.allocate(num_pages)
            return
        pages = self.pool.allocate(num_pages)
        assert len(set(pages)) == num_pages
        assert not set(pages) & set(self.held)
        is_run = pages == list(range(min(pages, default=0), max(pages, default=-1) + 1))
        assert is_run or not self.has_free_run(num_pages)
        self.held.update(pages)

    def has_free_run(self, num_pages: int) -> bool:
        free = [page not in self.held for page in range(NUM_PAGES)]
        return any(all(free[at : at + num_pages]) for at in range(NUM_PAGES - num_pages + 1))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_retained=st.booleans())
    def retain_or_release(self, data: st.DataObject, is_retained: bool) -> None:
        pages = data.draw(st.lists(st.sampled_from(sorted(self.held)), unique=True))
        if is_retained:
            self.pool.retain(pages)
            self.held.update(pages)
        else:
            self.pool.release(pages)
            self.held = +(self.held - Counter(pages))

    @invariant()
    def every_page_is_free_or_held(self) -> None:
        assert self.pool.num_free == NUM_PAGES - len(self.held)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
