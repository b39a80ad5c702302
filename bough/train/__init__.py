"""Training of small Llama-architecture models on Python source, in plain PyTorch."""

from bough.train.config import PRESETS, ModelShape, TrainConfig
from bough.train.report import TrainReport
from bough.train.run import train

__all__ = ["PRESETS", "ModelShape", "TrainConfig", "TrainReport", "train"]
