import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from bough.models.load import load_model
from bough.train import read_config
from bough.train.export import config_values
from bough.train.model import next_token_loss

MODELS = Path(__file__).parents[2] / "models"
CONFIGS = {"stdlib-gqa": "demo", "stdlib-gla": "demo-gla"}
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


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_keeps_within_twelve_million_bytes(name: str) -> None:
    assert sum(path.stat().st_size for path in (MODELS / name).iterdir()) < 11.9e6


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_has_the_shape_of_its_config_file(name: str) -> None:
    found = json.loads((MODELS / name / "config.json").read_text())
    assert found == config_values(read_config(CONFIGS[name], Path("out")).shape, 0)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_predicts_python_it_never_saw(name: str) -> None:
    torch.set_num_threads(1)
    decoder = load_model(MODELS / name, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(MODELS / name / "tokenizer.json"))
    token_ids = torch.tensor([tokenizer.encode(UNSEEN).ids])
    order = torch.randperm(token_ids.shape[1], generator=torch.manual_seed(0))
    assert next_token_loss(decoder, token_ids) < 2.5
    assert next_token_loss(decoder, token_ids[:, order]) > 5
