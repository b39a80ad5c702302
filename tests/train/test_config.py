from pathlib import Path
from typing import Any

import pytest

from bough.train.config import TrainConfig
from bough.train.config_file import config_names, read_config

OUTPUT = Path("checkpoint")


def write_config(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


@pytest.mark.parametrize("name", config_names())
def test_every_config_file_is_valid(name: str) -> None:
    assert read_config(name, OUTPUT).output == OUTPUT


def test_minutes_take_the_place_of_a_files_steps() -> None:
    config = read_config("tiny", OUTPUT, minutes=1.0)
    assert (config.steps, config.minutes) == (None, 1.0)


def test_a_file_says_only_in_what_it_differs_from_its_base(tmp_path: Path) -> None:
    name = write_config(
        tmp_path, 'base = "tiny"\nseed = 3\nsource = "src"\n[shape]\nmlp_dim = 24\n'
    )
    config, base = read_config(name, OUTPUT), read_config("tiny", OUTPUT)
    assert (config.seed, config.source, config.shape.mlp_dim) == (3, Path("src"), 24)
    assert (config.steps, config.shape.hidden_dim) == (base.steps, base.shape.hidden_dim)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= 1", "must be TOML"),
        ('base = "none"', "config must be one of demo, .* got 'none'"),
        ('base = "tiny"\nsteep = 1', r"a key of mine.toml must be one of .* got 'steep'"),
        ('base = "tiny"\nsteps = "many"', "mine.toml steps must be of type int, got 'many'"),
        ('base = "tiny"\noutput = "x"', "a key of mine.toml must be one of"),
        ("batch_size = 8", "mine.toml must be given seq_len, got none"),
        (
            "batch_size = 8\nseq_len = 8",
            r"\[shape\] must be either mlp_dim or num_params, got none",
        ),
        (
            'base = "tiny"\n[shape]\nmlp_dim = 8\nnum_params = 9',
            "must be either mlp_dim or num_params, got mlp_dim and num_params",
        ),
        ('base = "tiny"\n[shape]\nnum_params = 9', "num_params must be at least 60736, got 9"),
        (
            'base = "tiny"\n[shape]\nattention = "gla"\nnum_kv_heads = 3',
            "a multiple of num_kv_heads",
        ),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(write_config(tmp_path, text), OUTPUT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5, "minutes": 1.0}, "steps must be given, or minutes, not both"),
        ({"steps": 0}, "steps must be positive or left out, got 0"),
        ({"seq_len": 257}, "seq_len must be at most max_len 256, got 257"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"microbatch_size": 3}, "microbatch_size must be a divisor of batch_size 8, got 3"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config("tiny", OUTPUT, **changes)


def test_settings_that_change_no_loss_are_left_out_of_those_that_do() -> None:
    config = read_config("tiny", OUTPUT)
    assert config.settings == read_config("tiny", Path("else"), device="cpu").settings
    assert config.settings != read_config("tiny", OUTPUT, seed=1).settings
    assert isinstance(config, TrainConfig)
