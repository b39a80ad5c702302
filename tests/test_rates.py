from __future__ import annotations

from pathlib import Path

import pytest

from bough.rates import cache_path, cached_rates, measured_version, shipped_rates, store_rates

GPU = "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_nothing_is_known_of_a_gpu_that_was_never_measured() -> None:
    assert cached_rates(GPU) is None


def test_what_was_measured_is_found_again_for_the_same_gpu_only() -> None:
    path = store_rates(GPU, {"bandwidth": 3e12, "tile_seconds": 2e-6})
    assert path.name.startswith("nvidia-h100-80gb-hbm3-")
    assert cached_rates(GPU) == {"bandwidth": 3e12, "tile_seconds": 2e-6}
    assert cached_rates("NVIDIA H200") is None
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_rates_of_other_kernels_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store_rates(GPU, {"bandwidth": 3e12})
    monkeypatch.setattr("bough.rates.measured_version", lambda: "other")
    assert cached_rates(GPU) is None


def test_the_version_is_short_and_the_same_each_time() -> None:
    assert measured_version() == measured_version()
    assert len(measured_version()) == 12


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rates": 3}'])
def test_a_file_that_is_no_calibration_is_refused_by_name(text: str) -> None:
    path = cache_path(GPU)
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="cached rates must be JSON as `bough calibrate`"):
        cached_rates(GPU)


def test_the_table_that_ships_has_hopper() -> None:
    assert {"h100", "h200"} <= shipped_rates().keys()
