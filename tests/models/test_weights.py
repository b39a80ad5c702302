from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bough.models.load import load_model
from bough.models.weights import checkpoint_tensors
from tests.checkpoints import edit_config, make_checkpoint

Tensors = dict[str, torch.Tensor]
INDEX = "model.safetensors.index.json"


def edit_weights(folder: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_every_tensor_of_a_checkpoint_is_loaded_as_it_is(tmp_path: Path) -> None:
    make_checkpoint("qwen3", tmp_path, attention_bias=True)
    stored = load_file(tmp_path / "model.safetensors")
    loaded = checkpoint_tensors(load_model(tmp_path))
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)


def test_sharded_weights_load_as_single_ones(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path / "single", seed=1)
    make_checkpoint("llama", tmp_path / "sharded", seed=1, max_shard_size="50KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    single = load_model(tmp_path / "single").state_dict()
    sharded = load_model(tmp_path / "sharded").state_dict()
    assert all(torch.equal(single[name], sharded[name]) for name in single)


def test_weights_are_cast_to_the_dtype_asked_for_or_the_config_s(tmp_path: Path) -> None:
    make_checkpoint("mistral", tmp_path)
    edit_config(tmp_path, dtype="bfloat16")
    own, asked = load_model(tmp_path), load_model(tmp_path, dtype=torch.float16)
    assert {p.dtype for p in own.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in asked.parameters()} == {torch.float16}
    assert own.rotary.frequencies.dtype == asked.rotary.frequencies.dtype == torch.float32
    assert not any(p.requires_grad for p in own.parameters())
    with pytest.raises(ValueError, match=r"^dtype must be one of float32, .* got torch.int8$"):
        load_model(tmp_path, dtype=torch.int8)


def test_tied_embeddings_are_one_tensor(tmp_path: Path) -> None:
    decoder = load_model(make_checkpoint("qwen2", tmp_path))
    assert decoder.lm_head is None
    hidden = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decoder.logits(hidden), hidden @ decoder.embed_tokens.weight.T)


def test_a_stored_head_that_is_tied_must_equal_the_embedding(tmp_path: Path) -> None:
    make_checkpoint("qwen2", tmp_path)

    def add_head(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    edit_weights(tmp_path, add_head)
    load_model(tmp_path)
    edit_weights(tmp_path, lambda tensors: tensors["lm_head.weight"].mul_(2))
    with pytest.raises(ValueError, match=r"^lm_head.weight must equal model.embed_tokens.weight"):
        load_model(tmp_path)


def test_frequencies_that_old_checkpoints_store_are_passed_over(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_weights(tmp_path, lambda tensors: tensors.update({name: torch.ones(8)}))
    load_model(tmp_path)


WRONG: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "a missing tensor": (
        lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"),
        r"must hold 30 tensors, got none named model.layers.1.mlp.up_proj.weight$",
    ),
    "missing tensors": (
        lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.2" in name],
        r"got none named model.layers.2.input_layernorm.weight \(and 8 more\)$",
    ),
    "an unexpected tensor": (
        lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}),
        r"must hold only the config's tensors, got model.layers.0.self_attn.q_proj.bias$",
    ),
    "a misshapen tensor": (
        lambda tensors: tensors.update({"model.layers.0.self_attn.k_proj.weight": torch.ones(9)}),
        r"model.layers.0.self_attn.k_proj.weight must be of shape \[32, 64\], got \[9\]$",
    ),
    "whole numbers": (
        lambda tensors: tensors.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)}),
        r"model.norm.weight must be one of float32, bfloat16, float16, got torch.int8$",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_do_not_fit_the_config_are_refused(case: str, tmp_path: Path) -> None:
    edit, message = WRONG[case]
    make_checkpoint("llama", tmp_path)
    edit_weights(tmp_path, edit)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_refused_unopened(name: str, tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=rf"^weights must be safetensors .*, got {name} in "):
        load_model(tmp_path)


def test_a_pickle_beside_safetensors_is_passed_over(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    load_model(tmp_path)


def test_missing_and_broken_weight_files_are_named(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model.safetensors must be a safetensors file, got "):
        load_model(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"^weights must be .* got neither$"):
        load_model(tmp_path)


def test_an_index_must_tell_the_truth(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path, max_shard_size="50KB")
    index = json.loads((tmp_path / INDEX).read_text())
    files = index["weight_map"]

    def rewrite(weight_map: object) -> None:
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    rewrite(files | {"model.norm.weight": files["model.embed_tokens.weight"]})
    with pytest.raises(ValueError, match=r"must hold model.norm.weight as .* says, got none$"):
        load_model(tmp_path)
    rewrite(files | {"model.norm.weight": "../elsewhere.safetensors"})
    with pytest.raises(ValueError, match=r"model.norm.weight must be a file name, got '\.\./else"):
        load_model(tmp_path)
    rewrite(files | {"model.norm.weight": 3})
    with pytest.raises(ValueError, match=r"model.norm.weight must be a string, got 3$"):
        load_model(tmp_path)
    rewrite([])
    with pytest.raises(ValueError, match=r"weight_map must be a JSON object, got \[\]$"):
        load_model(tmp_path)
    rewrite(files)
    (tmp_path / files["model.norm.weight"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"^model-.*safetensors must be in .*no such file$"):
        load_model(tmp_path)
