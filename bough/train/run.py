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
from bough.train.loop import Loop, Saving
from bough.train.model import make_decoder
from bough.train.report import TrainReport, model_card
from bough.train.stepper import Stepper
from bough.train.stream import TokenStream
from bough.train.tokenizer import train_tokenizer

# Kept free of a run given in minutes, for copying the weights and writing the folder.
EXPORT_SECONDS = 5.0


def train(config: TrainConfig) -> TrainReport:
    """Train a tokenizer and a model on Python source and write a checkpoint folder.

    The folder holds what `AutoModelForCausalLM` and `AutoTokenizer` read, a model card (README.md)
    and the losses along the way (training.jsonl). It appears whole or not at all; until then the
    run's state lies beside it (`state_path`), and a run that was killed goes on from there when it
    is started again. PyTorch's global random state is seeded.

    Args:
        config: the run's settings.

    Raises:
        FileExistsError: `config.output` exists and `config.overwrite` is false.
        ValueError: the device is missing, the corpus too small for the settings, or a state to go
            on from belongs to other settings.
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
    decoder = make_decoder(config.shape).to(device)
    saving = Saving(
        path=state_path(config.output),
        seconds=config.checkpoint_seconds,
        settings={**config.settings, "train_tokens": len(stream.token_ids)},
    )
    saving.path.parent.mkdir(parents=True, exist_ok=True)
    loop = Loop(Stepper(decoder, stream, config), validation, saving=saving)
    deadline = None
    if config.minutes is not None:
        deadline = began + 60 * config.minutes - EXPORT_SECONDS
    progress = loop.run(deadline)
    assert progress.validation_loss is not None
    with new_folder(config.output, overwrite=config.overwrite) as folder:
        decoder.load_state_dict(loop.best)
        save_checkpoint(folder, decoder, config.shape, tokenizer)
        lines = (json.dumps(record) + "\n" for record in progress.log)
        (folder / "training.jsonl").write_text("".join(lines), encoding="utf-8")
        tokens_seen = progress.step * config.batch_size * config.seq_len
        report = TrainReport(
            output=config.output,
            device=device_name(device),
            num_params=sum(weight.numel() for weight in decoder.parameters()),
            num_bytes=sum(path.stat().st_size for path in folder.iterdir()),
            train_tokens=len(stream.token_ids),
            validation_tokens=len(validation.token_ids),
            num_steps=progress.step,
            tokens_seen=tokens_seen,
            best_step=progress.best_step,
            validation_loss=progress.validation_loss,
            train_loss=progress.log[-1]["train_loss"],
            tokens_per_second=tokens_seen / progress.seconds,
            seconds=time.monotonic() - began,
            log=progress.log,
        )
        (folder / "README.md").write_text(model_card(config, report), encoding="utf-8")
    saving.path.unlink(missing_ok=True)
    return report


def state_path(output: Path) -> Path:
    """Return the file that a run to `output` goes on from after it was killed."""
    return output.with_name(f"{output.name}.unfinished")


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
