"""A shared prefix of latents in expanded form gives what the absorbed form gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bough.attend import Expansion, attend
from bough.device import Device
from bough.forest import Forest
from bough.plan import make_plan
from bough.plan.cost import CostModel
from bough.plan.expansion import ExpandedForm, choose_root, forest_below
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
H100 = Device.named("h100")
MLA = AttentionSpec.mla(128)
FORM = ExpandedForm(key_dim=128, value_dim=128, most_bytes=1 << 40)


def latent_step(
    forest: Forest, spec: AttentionSpec, dims: tuple[int, int], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, Expansion]:
    """Absorbed queries, stored rows, and the root in expanded form; matrices are random."""
    heads, group = spec.num_q_heads, spec.group_size
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    kv = draw(forest.max_page + 1, forest.page_size, spec.elements_per_token)
    key_up, value_up = (draw(heads, spec.v_dim, dim) * spec.v_dim**-0.5 for dim in dims)
    q_nope, q_rope = (
        draw(forest.num_queries, heads, dims[0]),
        draw(forest.num_queries, heads, spec.rope_dim),
    )
    q = torch.cat([torch.einsum("nhd,hcd->nhc", q_nope, key_up), q_rope], dim=2)
    slot = np.arange(forest.node_len[0])
    page = forest.page_indices[forest.node_page_start[0] + slot // forest.page_size]
    rows = kv[page, slot % forest.page_size]
    states, rope = rows.split([spec.num_kv_heads * spec.v_dim, spec.rope_dim], dim=1)
    states = states.unflatten(1, (spec.num_kv_heads, -1)).repeat_interleave(group, dim=1)
    key = torch.einsum("thc,hcd->thd", states, key_up)
    expansion = Expansion(
        q=torch.cat([q_nope, q_rope], dim=2).to(DEVICE, dtype),
        key=torch.cat([key, rope[:, None].expand(-1, heads, -1)], dim=2).to(DEVICE, dtype),
        value=torch.einsum("thc,hcd->thd", states, value_up).to(DEVICE, dtype),
        value_up=value_up.to(DEVICE, dtype),
    )
    return q.to(DEVICE, dtype), kv.to(DEVICE, dtype), expansion


def assert_agrees(
    text: str, spec: AttentionSpec, dims: tuple[int, int], dtype: torch.dtype, most: float
) -> None:
    forest, device = forest_from_text(text, 16), Device.current()
    q, kv, expansion = latent_step(forest, spec, dims, dtype)
    absorbed, expected_lse = attend(q, kv, make_plan(forest, spec, device))
    expected = torch.einsum("nhc,hcd->nhd", absorbed.float(), expansion.value_up.float())
    below = make_plan(forest_below(forest, 0), spec, device)
    out, lse = attend(q, kv, below, expansion=expansion)
    assert out.shape == expected.shape
    assert out.dtype == dtype
    assert (out.float() - expected).norm() < most * expected.norm()
    assert (lse - expected_lse).norm() < most * expected_lse.norm()


@pytest.mark.parametrize("text", ["1,3|70,9", "1,2,6|40,7,12"])
@pytest.mark.parametrize("spec", [AttentionSpec.mla(4, 32, 8, 16), AttentionSpec.gla(4, 2, 24, 8)])
def test_the_expanded_form_gives_what_the_absorbed_form_gives(
    spec: AttentionSpec, text: str
) -> None:
    if ON_GPU:
        pytest.skip("cuDNN takes 16 bits")
    assert_agrees(text, spec, (12, 20), torch.float32, 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("text", ["1,128|1024,64", "1,5|300,1"])
@pytest.mark.parametrize("spec", [MLA, AttentionSpec.mla(16)])
def test_cudnn_and_the_union_agree_on_a_gpu(spec: AttentionSpec, text: str) -> None:
    assert_agrees(text, spec, (128, 128), torch.bfloat16, 1.5e-2)


def test_what_is_left_below_a_root_starts_at_its_end() -> None:
    below = forest_below(forest_from_text("1,2,4|40,8,5", 16), 0)
    assert below.node_parent.tolist() == [-1, -1, -1, 1, 1, 2, 2]
    assert below.node_start.tolist() == [0, 0, 0, 8, 8, 8, 8]
    assert below.num_unique_tokens == 2 * 8 + 4 * 5
    assert below.query_position.tolist() == [12] * 4


def test_only_a_root_above_all_queries_can_be_left_out() -> None:
    with pytest.raises(ValueError, match="root must be a root, got 1"):
        forest_below(forest_from_text("1,2|40,8"), 1)
    with pytest.raises(ValueError, match="root must be above every query's node, got 1"):
        forest_below(forest_from_text("2,4|40,8"), 1)


def test_roots_are_expanded_where_many_share_much_and_bytes_allow() -> None:
    cost = CostModel(spec=MLA, device=H100, itemsize=2)
    rank = CostModel(spec=AttentionSpec.mla(16), device=H100, itemsize=2)
    assert choose_root(forest_from_text("1,256|8192,256", 64), rank, FORM) is None
    chosen = {
        text: choose_root(forest_from_text(text, 64), cost, FORM)
        for text in ("1,128|4096,512", "1,256|8192,256", "1,64|8192,256", "1,256|64,256", "256|512")
    }
    assert list(chosen.values()) == [0, 0, None, None, None]
    needed = 4096 * 128 * 320 * 2
    assert FORM.num_bytes(4096, cost) == needed
    forest = forest_from_text("1,128|4096,512", 64)
    assert choose_root(forest, cost, replace(FORM, most_bytes=needed - 1)) is None
    assert choose_root(forest, cost, replace(FORM, most_bytes=needed)) == 0


def test_what_does_not_fit_a_step_is_refused() -> None:
    spec, forest = AttentionSpec.mla(4, 32, 8, 16), forest_from_text("1,3|70,9", 16)
    q, kv, expansion = latent_step(forest, spec, (12, 20), torch.float32)
    plan = make_plan(forest_below(forest, 0), spec, Device.current())
    with pytest.raises(ValueError, match=r"expansion\.q must be torch\.float32 on"):
        attend(q, kv, plan, expansion=replace(expansion, q=expansion.q.half()))
    with pytest.raises(ValueError, match=r"value must be \[70, 4, 20\], got \[69, 4, 20\]"):
        replace(expansion, value=expansion.value[1:])
    with pytest.raises(ValueError, match=r"expansion.q must be \[3, 4, 'dim'\]"):
        attend(q, kv, plan, expansion=replace(expansion, q=expansion.q[:2]))
    grouped = make_plan(forest, AttentionSpec.gqa(4, 2, 16), Device.current())
    planes = tuple(torch.zeros(9, 16, 2, 16, device=DEVICE) for _ in range(2))
    with pytest.raises(NotImplementedError, match="expansion takes latents"):
        attend(torch.zeros(3, 4, 16, device=DEVICE), planes, grouped, expansion=expansion)
