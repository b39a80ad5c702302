from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bough.train.model import make_decoder
from bough.train.stepper import Stepper, make_optimizer
from bough.train.stream import TokenStream
from tests.train.runs import SHAPE, small_config

SHAPES = {
    "mha": replace(SHAPE, num_kv_heads=4),
    "mqa": replace(SHAPE, num_kv_heads=1),
    "gqa": SHAPE,
    "gta": replace(SHAPE, attention="gta"),
    "mla": replace(SHAPE, attention="mla", num_kv_heads=1),
    "gla": replace(SHAPE, attention="gla"),
}


def make_stepper(name: str = "gqa", **changes: object) -> Stepper:
    torch.set_num_threads(1)
    config = small_config(Path("out"), shape=SHAPES[name], steps=60, **changes)
    torch.manual_seed(0)
    # Each token follows from the one before it, so there is something to learn.
    tokens = (torch.arange(3000) * 7) % 320
    return Stepper(make_decoder(config.shape), TokenStream(tokens, torch.tensor([0]), 48), config)


@pytest.mark.parametrize("name", SHAPES)
def test_every_kind_of_attention_learns(name: str) -> None:
    stepper = make_stepper(name)
    first = stepper.step(0, 60).item()
    for index in range(1, 60):
        last = stepper.step(index, 60).item()
    assert first == pytest.approx(torch.tensor(320.0).log().item(), abs=0.3)
    assert last < 0.6 * first


def test_gradients_of_parts_of_a_batch_add_up_to_the_whole_batchs() -> None:
    whole, parts = make_stepper(), make_stepper(microbatch_size=2)
    for index in range(5):
        expected = whole.step(index, 60).item()
        assert parts.step(index, 60).item() == pytest.approx(expected, rel=1e-5)


def test_a_step_depends_on_the_state_before_it_and_on_nothing_else() -> None:
    one, other = make_stepper(dropout=0.2), make_stepper(dropout=0.2)
    for index in range(3):
        one.step(index, 60)
    torch.rand(5)
    other.restore({name: tensor.clone() for name, tensor in one.state().items()})
    assert [one.step(i, 60).item() for i in (3, 4)] == [other.step(i, 60).item() for i in (3, 4)]


def test_norms_and_embeddings_do_not_decay() -> None:
    decoder = make_decoder(SHAPES["gla"])
    decayed, others = make_optimizer(decoder, 0.1, is_fused=False).param_groups
    names = {id(weight): name for name, weight in decoder.named_parameters()}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    for weight in others["params"]:
        name = names[id(weight)]
        assert "norm" in name or name == "embed_tokens.weight"
    assert not any("norm" in names[id(weight)] for weight in decayed["params"])
