from __future__ import annotations

import pytest
import torch

from bough.device import Device


@pytest.mark.parametrize("name", ["cpu", "h100"])
def test_machines_are_known_by_name_wherever_they_are(name: str) -> None:
    assert Device.named(name).name == name


def test_cuda_is_the_gpu_that_is_here() -> None:
    if torch.cuda.is_available():
        assert Device.named("cuda") == Device.current()
        return
    with pytest.raises(ValueError, match=r"^device must be cpu where there is no GPU, got 'cuda'$"):
        Device.named("cuda")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^device must be one of cpu, cuda, h100, got 'abacus'$"):
        Device.named("abacus")
