import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from bough.train import PRESETS
from bough.train.export import llama_config
from bough.train.model import TrainingModel

CHECKPOINT = Path(__file__).parents[2] / "models" / "stdlib-gqa"
UNSEEN = '''"""Count the words of text files."""

import sys


def count_words(path):
    """Return the number of words in a file."""
    with open(path, encoding="utf-8") as file:
        return sum(len(line.split()) for line in file)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, count_words(name))
'''


def test_the_checkpoint_keeps_within_twelve_million_bytes() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 11.9e6


def test_the_checkpoint_has_the_shape_of_the_demo_preset() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config == llama_config(PRESETS["demo"]["shape"], 0)


@torch.no_grad()
def test_the_checkpoint_predicts_python_it_never_saw() -> None:
    torch.set_num_threads(1)
    weights = load_file(CHECKPOINT / "model.safetensors")
    model = TrainingModel(PRESETS["demo"]["shape"]).eval()
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in weights.items()})
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    token_ids = torch.tensor([tokenizer.encode(UNSEEN).ids])
    order = torch.randperm(token_ids.shape[1], generator=torch.manual_seed(0))
    assert model.loss(token_ids) < 2.5
    assert model.loss(token_ids[:, order]) > 5
