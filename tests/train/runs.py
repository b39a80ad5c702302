"""Small runs that the tests of training share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bough.train import ModelShape, TrainConfig, read_config
from bough.train.corpus import standard_library

SHAPE = ModelShape(
    vocab_size=320,
    hidden_dim=32,
    num_layers=2,
    num_q_heads=4,
    num_kv_heads=2,
    head_dim=12,
    mlp_dim=48,
    max_len=64,
)


def small_config(output: Path, **changes: Any) -> TrainConfig:
    """Settings of a run that takes a second or two on a CPU."""
    settings = {"shape": SHAPE, "seq_len": 48, "steps": 40, "num_evaluations": 4, "device": "cpu"}
    settings["source"] = standard_library() / "json"
    return replace(read_config("tiny", output), **{**settings, **changes})


def losses(log: list[dict[str, Any]]) -> list[tuple[int, float, float]]:
    """Steps, training losses and validation losses of a log, to the last bit."""
    return [(r["step"], r["train_loss"], r["validation_loss"]) for r in log]
