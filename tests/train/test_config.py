from pathlib import Path
from typing import Any

import pytest

from bough.train.config import PRESETS, TrainConfig

OUTPUT = Path("checkpoint")


@pytest.mark.parametrize("size", PRESETS)
def test_every_preset_is_valid(size: str) -> None:
    assert TrainConfig.preset(size, OUTPUT).output == OUTPUT


def test_minutes_take_the_place_of_a_presets_steps() -> None:
    config = TrainConfig.preset("tiny", OUTPUT, minutes=1.0)
    assert (config.steps, config.minutes) == (None, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5, "minutes": 1.0}, "steps must be given, or minutes, not both"),
        ({"steps": 0}, "steps must be positive or left out, got 0"),
        ({"seq_len": 257}, "seq_len must be at most max_len 256, got 257"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.preset("tiny", OUTPUT, **changes)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be one of tiny, demo, got 'huge'"):
        TrainConfig.preset("huge", OUTPUT)
