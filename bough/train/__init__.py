"""Training of small decoders on source code, with any of the kinds of attention."""

from bough.train.config import TrainConfig
from bough.train.config_file import config_names, read_config
from bough.train.report import TrainReport
from bough.train.run import train
from bough.train.shape import ModelShape

__all__ = ["ModelShape", "TrainConfig", "TrainReport", "config_names", "read_config", "train"]
