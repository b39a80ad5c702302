from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bough.cache.pool import KVPool
from bough.layers.grouped import GroupedAttention
from bough.layers.latent import LatentAttention, LatentShape
from bough.layers.rope import Rotary, rotate
from bough.layers.tied import TiedAttention
from bough.spec import AttentionSpec
from tests.layers.variants import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    ROPE_DIM,
    VARIANTS,
    make_layer,
    make_rotary,
    run_cached,
)

SEQ_LEN = 21
ELEMENTS = {
    "mha": 2 * HEADS * HEAD_DIM,
    "mqa": 2 * HEAD_DIM,
    "gqa-2": 2 * 2 * HEAD_DIM,
    "gta-2": 2 * HEAD_DIM + HEAD_DIM // 2,
    "mla": 4 * HEAD_DIM + ROPE_DIM,
    "mla-low-rank": 4 * HEAD_DIM + ROPE_DIM,
    "gla-2": 2 * 2 * HEAD_DIM + ROPE_DIM,
    "gla-4-low-rank": 4 * 2 * HEAD_DIM + ROPE_DIM,
}


def random_input(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, HIDDEN, generator=generator, dtype=dtype)


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    got, expected = got.detach(), expected.detach()
    return float((got - expected).abs().max() / expected.abs().max())


def make_pool(layer: torch.nn.Module, page_size: int, dtype: torch.dtype = torch.float32) -> KVPool:
    num_pages = -(-SEQ_LEN // page_size)
    return KVPool(layer.spec, num_layers=1, num_pages=num_pages, page_size=page_size, dtype=dtype)


def whole(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The form for whole sequences, x [batch_size, seq_len, HIDDEN]."""
    return layer.forward_sequences(x, make_rotary(layer)(torch.arange(x.shape[1])))


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_through_a_cache_equal_whole_sequences(variant: str, page_size: int) -> None:
    layer, x = make_layer(variant), random_input(SEQ_LEN)
    got = run_cached(layer, x, make_pool(layer, page_size), cut=17)
    assert relative_error(got, whole(layer, x[None])[0]) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_sequences_of_a_batch_do_not_meet_and_nobody_sees_the_future(variant: str) -> None:
    layer, x = make_layer(variant), random_input(2, SEQ_LEN)
    together = whole(layer, x)
    torch.testing.assert_close(together[1:], whole(layer, x[1:]))
    torch.testing.assert_close(together[:, :9], whole(layer, x[:, :9]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_finite_differences(variant: str) -> None:
    layer = make_layer(variant).double()
    x = random_input(1, 3, dtype=torch.float64).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        rotation = make_rotary(layer)(torch.arange(3))
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(
            _Sequences(layer), {f"layer.{name}": p for name, p in given.items()}, (x, rotation)
        )

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()), fast_mode=True)


class _Sequences(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.layer.forward_sequences(x, rotation)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_token_takes_what_its_variant_says_and_no_more(variant: str) -> None:
    pool = make_pool(make_layer(variant), page_size=16)
    kv = pool.layer(0)
    planes = kv if isinstance(kv, tuple) else (kv,)
    num_slots = pool.num_pages * pool.page_size
    assert pool.spec.elements_per_token == ELEMENTS[variant]
    assert sum(plane.numel() for plane in planes) == num_slots * ELEMENTS[variant]
    assert pool.num_bytes == num_slots * ELEMENTS[variant] * 4
    assert pool.spec.tied == (len(planes) == 1)


@pytest.mark.parametrize("variant", ["mla", "gla-2", "gla-4-low-rank"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_absorbed_latents_err_at_most_twice_as_much_as_expanded_ones(
    variant: str, dtype: torch.dtype
) -> None:
    layer, x = make_layer(variant), random_input(SEQ_LEN)
    exact = whole(layer, x[None])[0]
    layer = layer.to(dtype)
    expanded = whole(layer, x[None].to(dtype))[0].float()
    absorbed = run_cached(layer, x.to(dtype), make_pool(layer, 16, dtype), cut=17).float()
    assert (absorbed - exact).norm() <= 2 * (expanded - exact).norm()


@pytest.mark.parametrize("variant", ["mla", "gla-4-low-rank"])
def test_absorbed_matrices_follow_the_weights(variant: str) -> None:
    layer, other, x = make_layer(variant), make_layer(variant, seed=5), random_input(SEQ_LEN)
    pool = make_pool(layer, 16)
    before = run_cached(layer, x, pool, cut=17)
    with torch.no_grad():
        layer.kv_b_proj.weight.mul_(0.5)
    changed = run_cached(layer, x, pool, cut=17)
    assert not torch.allclose(changed, before)
    assert relative_error(changed, whole(layer, x[None])[0]) < 1e-5
    layer.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(run_cached(layer, x, pool, cut=17), run_cached(other, x, pool, cut=17))


def test_tied_attention_equals_its_keys_and_values_written_out() -> None:
    layer, x = make_layer("gta-2"), random_input(SEQ_LEN)
    weights = layer.qkv_proj.parts(layer.qkv_proj.weight)
    rotation = Rotary(HEAD_DIM // 2, 10000.0, None)(torch.arange(SEQ_LEN))
    q = (x @ weights["q_proj"].T).view(SEQ_LEN, HEADS, HEAD_DIM)
    kv = (x @ weights["kv_proj"].T).view(SEQ_LEN, 2, HEAD_DIM)
    k_rope = rotate((x @ weights["k_rope_proj"].T).view(SEQ_LEN, 1, HEAD_DIM // 2), *rotation)
    outs = []
    for head in range(HEADS):
        group, half = head // 2, HEAD_DIM // 2
        key = torch.cat((kv[:, group, :half], k_rope[:, 0]), dim=-1)
        rotated = rotate(q[:, head : head + 1, half:], *rotation)[:, 0]
        query = torch.cat((q[:, head, :half], rotated), dim=-1)
        scores = (query @ key.T * HEAD_DIM**-0.5).masked_fill(
            torch.ones(SEQ_LEN, SEQ_LEN).triu(1).bool(), -torch.inf
        )
        outs.append(scores.softmax(-1) @ kv[:, group])
    expected = F.linear(torch.cat(outs, dim=-1), layer.o_proj.weight)
    assert relative_error(whole(layer, x[None])[0], expected) < 1e-5


def test_a_window_limits_whole_sequences_too() -> None:
    spec = AttentionSpec(
        num_q_heads=4, num_kv_heads=2, nope_dim=8, v_dim=8, scale=8**-0.5, window=5
    )
    layer = GroupedAttention(HIDDEN, spec)
    layer.load_state_dict(make_layer("gqa-2").state_dict())
    x = random_input(SEQ_LEN)
    got = run_cached(layer, x, make_pool(layer, 16), cut=17)
    assert relative_error(got, whole(layer, x[None])[0]) < 1e-5


@pytest.mark.parametrize("num_latents", [1, 2, 4])
def test_a_latent_serves_its_own_group_of_heads_only(num_latents: int) -> None:
    spec = AttentionSpec.gla(HEADS, num_latents, 2 * HEAD_DIM, ROPE_DIM, HEAD_DIM)
    layer = LatentAttention(HIDDEN, spec, LatentShape(key_dim=HEAD_DIM, value_dim=HEAD_DIM))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 7)
    layer.o_proj = torch.nn.Identity()
    x = random_input(1, SEQ_LEN)
    before = whole(layer, x).unflatten(-1, (HEADS, HEAD_DIM))
    with torch.no_grad():
        layer.qkv_a_proj.parts(layer.qkv_a_proj.weight)["kv_a_proj_with_mqa"][0].mul_(-3)
    is_same = (whole(layer, x).unflatten(-1, (HEADS, HEAD_DIM)) == before).all(-1).all(1)[0]
    assert is_same.tolist() == [head >= HEADS // num_latents for head in range(HEADS)]


def test_odd_sizes_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^rotary dimensions must be even in number, got 3$"):
        Rotary(AttentionSpec.gta(4, 2, 6).rope_dim, 10000.0, None)
    with pytest.raises(ValueError, match=r"^num_q_heads must be a multiple of .* 3, got 4$"):
        TiedAttention(HIDDEN, AttentionSpec.gta(4, 3, 8))
    with pytest.raises(ValueError, match=r"^value_dim must be at least 1, got 0$"):
        LatentShape(key_dim=4, value_dim=0)
    with pytest.raises(ValueError, match=r"^query_rank must be None or at least 1, got 0$"):
        LatentShape(key_dim=4, value_dim=4, query_rank=0)
