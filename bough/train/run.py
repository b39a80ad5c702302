"""One training run from source files to a checkpoint folder."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import torch

from bough.train.config import TrainConfig
from bough.train.corpus import load_corpus
from bough.train.export import check_output, new_folder, save_checkpoint
from bough.train.loop import Outcome, Stepper, run_loop
from bough.train.model import TrainingModel
from bough.train.report import TrainReport, model_card
from bough.train.stream import TokenStream
from bough.train.tokenizer import train_tokenizer

# Kept free of a run given in minutes, for copying the weights and writing the folder.
EXPORT_SECONDS = 5.0


def train(config: TrainConfig) -> TrainReport:
    """Train a tokenizer and a model on Python source and write a checkpoint folder.

    The folder holds what `transformers.LlamaForCausalLM` and `AutoTokenizer` read, a model card
    (README.md) and the losses along the way (training.jsonl). It appears whole or not at all.
    PyTorch's global random state is seeded.

    Args:
        config: the run's settings.

    Raises:
        FileExistsError: `config.output` exists and `config.overwrite` is false.
        ValueError: the device is missing, or the corpus too small for the settings.
    """
    began = time.monotonic()
    check_output(config.output, overwrite=config.overwrite)
    device = resolve_device(config.device)
    corpus = load_corpus(
        config.source, include_tests=config.include_tests, max_files=config.max_files
    )
    tokenizer = train_tokenizer(corpus.train, config.shape.vocab_size)
    stream = TokenStream.encode(tokenizer, corpus.train, config.seq_len, device)
    validation = TokenStream.encode(tokenizer, corpus.validation, config.seq_len, device)
    torch.manual_seed(config.seed)
    model = TrainingModel(config.shape, config.dropout).to(device)
    deadline = None
    if config.minutes is not None:
        deadline = began + 60 * config.minutes - EXPORT_SECONDS
    outcome = run_loop(Stepper(model, stream, config), validation, deadline)
    with new_folder(config.output, overwrite=config.overwrite) as folder:
        save_checkpoint(folder, outcome.state, config.shape, tokenizer)
        _write_log(folder / "training.jsonl", outcome)
        tokens_seen = outcome.num_steps * config.batch_size * config.seq_len
        report = TrainReport(
            output=config.output,
            device=device_name(device),
            num_params=sum(weight.numel() for weight in model.parameters()),
            num_bytes=sum(path.stat().st_size for path in folder.iterdir()),
            train_tokens=len(stream.token_ids),
            validation_tokens=len(validation.token_ids),
            num_steps=outcome.num_steps,
            tokens_seen=tokens_seen,
            best_step=outcome.best_step,
            validation_loss=outcome.validation_loss,
            train_loss=outcome.log[-1]["train_loss"],
            tokens_per_second=tokens_seen / outcome.seconds,
            seconds=time.monotonic() - began,
        )
        (folder / "README.md").write_text(model_card(config, report), encoding="utf-8")
    return report


def resolve_device(name: str | None) -> torch.device:
    """Return the device called `name`; for None the GPU where there is one, else the CPU.

    Raises:
        ValueError: it is neither `cpu` nor a GPU of this machine.
    """
    has_gpu = torch.cuda.is_available()
    if name is None:
        return torch.device("cuda" if has_gpu else "cpu")
    if name != "cpu" and not (name.startswith("cuda") and has_gpu):
        raise ValueError(f"device must be cpu{' or cuda' if has_gpu else ''}, got {name!r}")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """Return what people call the device: a GPU's model, or `CPU` and its architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def _write_log(path: Path, outcome: Outcome) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in outcome.log), encoding="utf-8")
