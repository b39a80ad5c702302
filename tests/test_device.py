from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bough.device import Device
from bough.rates import store_rates


@pytest.mark.parametrize("name", ["cpu", "h100", "h200"])
def test_machines_are_known_by_name_wherever_they_are(name: str) -> None:
    assert Device.named(name).name == name


def test_cuda_is_the_gpu_that_is_here() -> None:
    if torch.cuda.is_available():
        assert Device.named("cuda") == Device.current()
        return
    with pytest.raises(ValueError, match=r"^device must be cpu where there is no GPU, got 'cuda'$"):
        Device.named("cuda")


def test_unknown_names_are_refused() -> None:
    refusal = r"^device must be one of cpu, cuda, h100, h200, got 'abacus'$"
    with pytest.raises(ValueError, match=refusal):
        Device.named("abacus")


@pytest.fixture
def other_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A GPU of an unknown kind, and a cache in which nothing was measured yet."""
    name = "NVIDIA Z9"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: name)
    properties = SimpleNamespace(multi_processor_count=77)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda: properties)
    return name


def test_a_gpu_of_another_kind_counts_as_an_h100_with_its_own_multiprocessors(
    other_gpu: str,
) -> None:
    assert Device.named("cuda") == replace(Device.named("h100"), num_workers=77)


def test_a_gpu_has_the_rates_that_were_measured_on_it(other_gpu: str) -> None:
    store_rates(other_gpu, {"num_workers": 77, "bandwidth": 1e12})
    assert Device.named("cuda").bandwidth == 1e12
    assert Device.named("h100").bandwidth != 1e12
