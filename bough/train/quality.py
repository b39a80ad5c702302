"""The quality suite: variants of attention at one size, trained on the same tokens.

Every run leaves one file, so a suite that was stopped goes on with the runs that are missing, and
several processes may share its folder if they are told to make different runs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bough.bench.machine import describe_run
from bough.expect import expect
from bough.train.config import TrainConfig
from bough.train.config_file import read_config
from bough.train.corpus import installed_packages, load_packages
from bough.train.loop import Loop
from bough.train.model import make_decoder
from bough.train.run import resolve_device
from bough.train.shape import count_params
from bough.train.state import load_state, save_state
from bough.train.stepper import Stepper
from bough.train.stream import TokenStream
from bough.train.tokenizer import train_tokenizer

# Config files of the suite, and how many seeds each is trained from. Latents come first: they
# take the longest, so the short runs fill the gaps at the end.
VARIANTS = {"mla": 3, "gla-2": 3, "gta-4": 3, "gqa-4": 3, "mha": 1, "mqa": 1}
HELD_OUT = "networkx"
# Characters that the tokenizer is trained on; more change little and take long.
TOKENIZER_CHARS = 30_000_000
BYTES_PER_ELEMENT = 2


def variants_of(suite: str) -> Mapping[str, int]:
    """Return the config files of a suite, and how many seeds each is trained from.

    Raises:
        ValueError: there is no such suite.
    """
    expect(suite == "quality", "suite", "quality", repr(suite))
    return VARIANTS


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Which runs there are and where they go.

    Args:
        output: the folder of the results.
        variants: config files, by name or path, and how many seeds each is trained from. All have
            the same vocabulary, windows and steps.
        packages: the folder of installed packages to train on; None for this interpreter's own.
        held_out: the package that validates.
        steps: optimizer steps of every run; None for the config files' own.
        device: `cpu` or `cuda`, which stands for all GPUs; None for the GPUs where there are any.
    """

    output: Path
    variants: Mapping[str, int]
    packages: Path | None = None
    held_out: str = HELD_OUT
    steps: int | None = None
    device: str | None = None

    def config(self, variant: str, seed: int) -> TrainConfig:
        """Return the settings of one run."""
        changes: dict[str, Any] = {"steps": self.steps} if self.steps is not None else {}
        return read_config(variant, self.output, seed=seed, device=self.device, **changes)

    def path(self, variant: str, seed: int) -> Path:
        """Return the file that one run leaves."""
        return self.output / "runs" / f"{Path(variant).stem}-{seed}.json"

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every variant with each of its seeds."""
        return [(name, seed) for name, seeds in self.variants.items() for seed in range(seeds)]

    @property
    def data_path(self) -> Path:
        """The file of the tokens that all runs share."""
        return self.output / "tokens.safetensors"


def run_suite(suite: Suite, *, only: Collection[str] = ()) -> dict[str, Any]:
    """Make the runs that are missing, one process a GPU, and gather all that are there.

    Args:
        suite: the runs.
        only: make the runs of these variants; empty for all.

    Returns:
        the contents of `quality.json`, which is written too: `data` and `runs`.

    Raises:
        ValueError: `only` names no variant of the suite, a variant is no config or does not fit
            the others, or the device or the packages are missing.
    """
    _check(suite)
    for name in only:
        expect(name in suite.variants, "only", f"one of {', '.join(suite.variants)}", repr(name))
    device = resolve_device(suite.device)
    (suite.output / "runs").mkdir(parents=True, exist_ok=True)
    wanted = [run for run in suite.runs if not only or run[0] in only]
    missing = [run for run in wanted if _result(suite, *run) is None]
    if missing:
        _prepare(suite)
        _work(suite, missing, torch.cuda.device_count() if device.type == "cuda" else 0)
    runs = [result for run in suite.runs if (result := _result(suite, *run)) is not None]
    _, data = load_state(suite.data_path)
    results = {"data": data, "runs": runs}
    _write_json(suite.output / "quality.json", results)
    return results


def _check(suite: Suite) -> None:
    """See that all runs can read the same tokens, and that each leaves a file of its own."""
    names = [Path(variant).stem for variant in suite.variants]
    is_unique = len(set(names)) == len(names)
    expect(is_unique, "variants", "of different names", ", ".join(names))
    configs = [suite.config(variant, 0) for variant in suite.variants]
    for config, name in zip(configs, names, strict=True):
        found, wanted = (
            (one.shape.vocab_size, one.seq_len, one.steps) for one in (config, configs[0])
        )
        what = f"vocab_size, seq_len and steps of {name}"
        expect(found == wanted, what, f"{wanted}, as those of {names[0]}", found)


def _result(suite: Suite, variant: str, seed: int) -> dict[str, Any] | None:
    """What an earlier run left, None where there was none."""
    path = suite.path(variant, seed)
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    for name, value in suite.config(variant, seed).settings.items():
        found = result["settings"].get(name)
        expect(found == value, f"{name} of {path}", f"{value}, as now, or the file deleted", found)
    return result


def _prepare(suite: Suite) -> None:
    """Tokenize the packages into the file that all runs read, unless it is there."""
    if suite.data_path.exists():
        return
    config = suite.config(*suite.runs[0])
    root = suite.packages or installed_packages()
    corpus = load_packages(root, suite.held_out)
    tokenizer = train_tokenizer(_sample(corpus.train), config.shape.vocab_size)
    cpu = torch.device("cpu")
    train = TokenStream.encode(tokenizer, corpus.train, config.seq_len, cpu)
    validation = TokenStream.encode(tokenizer, corpus.validation, config.seq_len, cpu)
    tensors = {
        "train": train.token_ids.int(),
        "train_starts": train.file_starts,
        "validation": validation.token_ids.int(),
        "validation_starts": validation.file_starts,
    }
    facts = {
        "held_out": suite.held_out,
        "train_files": len(corpus.train),
        "train_chars": sum(map(len, corpus.train)),
        "train_tokens": len(train.token_ids),
        "validation_files": len(corpus.validation),
        "validation_chars": sum(map(len, corpus.validation)),
        "validation_tokens": len(validation.token_ids),
        "vocab_size": config.shape.vocab_size,
    }
    save_state(suite.data_path, tensors, facts)


def _sample(texts: list[str]) -> list[str]:
    """Every n-th text, so that together they have about `TOKENIZER_CHARS` characters."""
    stride = max(1, sum(map(len, texts)) // TOKENIZER_CHARS)
    return texts[::stride]


def _work(suite: Suite, runs: list[tuple[str, int]], num_gpus: int) -> None:
    """Give the runs out to one process a GPU, or to a single one on the CPU."""
    context = multiprocessing.get_context("spawn")
    gpus: SimpleQueue[int] = context.SimpleQueue()
    for index in range(num_gpus):
        gpus.put(index)
    pool = ProcessPoolExecutor(
        max(1, num_gpus), mp_context=context, initializer=_start_worker, initargs=(gpus, num_gpus)
    )
    with pool, tqdm(total=len(runs), desc="runs", unit="run") as bar:
        futures = [pool.submit(_run, suite, *run) for run in runs]
        try:
            for future in as_completed(futures):
                result = future.result()
                bar.update()
                bar.write(
                    f"{result['variant']} seed {result['seed']}: "
                    f"{result['validation_loss']:.4f} nats, "
                    f"{result['tokens_per_second']:,} tokens/s, {result['seconds']:.0f} s"
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(gpus: SimpleQueue[int], num_gpus: int) -> None:
    """Take one of the GPUs, and a fair share of the CPU cores, for all runs of this process."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // max(1, num_gpus)))
    if num_gpus:
        torch.cuda.set_device(gpus.get())


def _run(suite: Suite, variant: str, seed: int) -> dict[str, Any]:
    """Train one variant from one seed, write its file and return what is in it."""
    config = suite.config(variant, seed)
    device = resolve_device(config.device)
    tensors, _ = load_state(suite.data_path)
    streams = {
        name: TokenStream(
            tensors[name].to(device, torch.int64), tensors[f"{name}_starts"], config.seq_len
        )
        for name in ("train", "validation")
    }
    torch.manual_seed(seed)
    decoder = make_decoder(config.shape).to(device)
    loop = Loop(Stepper(decoder, streams["train"], config), streams["validation"], is_quiet=True)
    progress = loop.run()
    if device.type == "cuda":
        torch.compiler.reset()  # the next run's decoder is another one
    rates = sorted(record["tokens_per_second"] for record in progress.log)
    spec = config.shape.spec
    result = {
        "variant": Path(variant).stem,
        "seed": seed,
        "num_params": count_params(config.shape),
        "kv_bytes": spec.kv_bytes(1, BYTES_PER_ELEMENT) * config.shape.num_layers,
        "tokens_seen": progress.step * config.batch_size * config.seq_len,
        "validation_loss": progress.log[-1]["validation_loss"],
        "tokens_per_second": rates[len(rates) // 2],
        "seconds": round(progress.seconds, 1),
        "machine": describe_run(device),
        "settings": config.settings,
        "log": progress.log,
    }
    _write_json(suite.path(variant, seed), result)
    return result


def _write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
