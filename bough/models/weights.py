"""A checkpoint's tensors, from safetensors files into a decoder's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bough.expect import expect
from bough.layers.linear import FusedLinear
from bough.layers.moe import Experts, Router
from bough.models.config import DTYPES, ModelConfig
from bough.models.decoder import Decoder
from bough.models.fields import Fields
from bough.models.share import is_left_to_first, pieces_of

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"


def checkpoint_tensors(decoder: Decoder) -> dict[str, torch.Tensor]:
    """View a decoder's parameters and stored buffers under the names that checkpoints give them.

    Returns:
        name in the checkpoint -> the tensor, or the part of a fused one.
    """
    tensors: dict[str, torch.Tensor] = {}
    for module_name, module in decoder.named_modules():
        path = module_name if module_name == "lm_head" else f"model.{module_name}"
        if isinstance(module, FusedLinear):
            block = path.rpartition(".")[0]
            for name, parameter in module.named_parameters():
                for part, rows in module.parts(parameter).items():
                    tensors[f"{block}.{part}.{name}"] = rows
        elif isinstance(module, Experts):
            tensors |= {f"{path}.{name}": part for name, part in module.parts().items()}
        else:
            own = dict(module.named_parameters(recurse=False))
            if isinstance(module, Router):
                own |= dict(module.named_buffers())
            tensors |= {f"{path}.{name}": tensor for name, tensor in own.items()}
    return tensors


@torch.no_grad()
def load_weights(decoder: Decoder, folder: Path, whole: Decoder | None = None) -> None:
    """Fill every parameter of a decoder, cast to its dtype, from a folder's safetensors files.

    Args:
        decoder: the model, or one rank's share of it, for which only that is read.
        folder: with the files.
        whole: the model on one rank, whose shapes the files have; its values do not matter.

    Raises:
        FileNotFoundError: there are no safetensors files, or one of them is missing.
        ValueError: a file is broken; tensors are missing, unexpected or misshapen; or the only
            weights are pickles.
    """
    targets, ranks = checkpoint_tensors(decoder), decoder.ranks
    models = targets if whole is None else checkpoint_tensors(whole)
    files = _files_of_tensors(folder)
    files = {name: file for name, file in files.items() if not _is_extra(name, decoder.config)}
    _check_names(set(files), set(targets), decoder.config.has_tied_embeddings)
    for name, file in _open_each(folder, files):
        if name in targets:
            target, shape = targets[name], list(models[name].shape)
            _check_tensor(name, file.get_slice(name), shape)
            if is_left_to_first(name, models, targets, ranks):
                target.zero_()
            else:
                pieces = pieces_of(name, shape, target.shape, decoder.spec.rope_dim, ranks)
                target.copy_(torch.cat([file.get_slice(name)[piece] for piece in pieces]))
        elif name == _HEAD:
            _check_tied_head(file.get_tensor(name), folder, files)


def _files_of_tensors(folder: Path) -> dict[str, str]:
    """Which file of the folder holds each tensor."""
    if (folder / _SINGLE).exists():
        with _open(folder / _SINGLE) as tensors:
            return dict.fromkeys(tensors.keys(), _SINGLE)
    if (folder / _INDEX).exists():
        index = Fields.read(folder / _INDEX).nested("weight_map")
        files = {name: index.text(name) for name in index.values}
        for name, file in files.items():
            expect(Path(file).name == file, f"{index.source} {name}", "a file name", repr(file))
        return files
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ValueError(
            f"weights must be safetensors (pickles can run code and are never opened), "
            f"got {pickles[0]} in {folder}"
        )
    raise FileNotFoundError(f"weights must be {_SINGLE} or {_INDEX} in {folder}, got neither")


def _is_extra(name: str, config: ModelConfig) -> bool:
    """Whether a tensor is of a layer behind the last, such as DeepSeek's for drafting."""
    last = config.num_layers + config.num_extra_layers
    return name.startswith(tuple(f"model.layers.{i}." for i in range(config.num_layers, last)))


def _check_names(found: set[str], expected: set[str], is_tied: bool) -> None:
    missing = sorted(expected - found)
    if missing:
        raise ValueError(
            f"weights must hold {len(expected)} tensors, got none named {_some(missing)}"
        )
    derived = {name for name in found if name.endswith("rotary_emb.inv_freq")}
    unexpected = sorted(found - expected - derived - ({_HEAD} if is_tied else set()))
    if unexpected:
        raise ValueError(f"weights must hold only the config's tensors, got {_some(unexpected)}")


def _some(names: list[str]) -> str:
    """The first name, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def _open_each(folder: Path, files: dict[str, str]) -> Iterator[tuple[str, safe_open]]:
    """Yield every tensor's name with its open file, one file after another."""
    names_of_file: dict[str, list[str]] = {}
    for name, file in files.items():
        names_of_file.setdefault(file, []).append(name)
    for file, names in names_of_file.items():
        with _open(folder / file) as tensors:
            absent = sorted(set(names) - set(tensors.keys()))
            if absent:
                raise ValueError(f"{file} must hold {_some(absent)} as {_INDEX} says, got none")
            for name in names:
                yield name, tensors


def _open(path: Path) -> safe_open:
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} must be in {path.parent}, got no such file")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file, got {error}") from error


def _check_tensor(name: str, stored: Any, shape: list[int]) -> None:
    found = list(stored.get_shape())
    expect(found == shape, name, f"of shape {shape}", found)
    dtype = stored[:0].dtype
    expect(dtype in DTYPES.values(), name, f"one of {', '.join(DTYPES)}", dtype)


def _check_tied_head(head: torch.Tensor, folder: Path, files: dict[str, str]) -> None:
    """A head that is stored although it is tied must be the embedding itself."""
    with _open(folder / files[_EMBEDDING]) as tensors:
        embedding = tensors.get_tensor(_EMBEDDING)
    if not torch.equal(head, embedding):
        raise ValueError(
            f"{_HEAD} must equal {_EMBEDDING} where tie_word_embeddings is true, "
            "got different values"
        )
