from __future__ import annotations

import pytest
import torch

from bough.bench import latents
from bough.bench.contestant import Contestant
from bough.bench.latents import FlashAttention3Latent, FlashMla
from tests.bench.problems import problem_of


@pytest.mark.parametrize("contestant", [FlashMla(), FlashAttention3Latent()])
def test_a_peer_that_is_not_installed_says_so(contestant: Contestant) -> None:
    assert "cannot be imported" in (contestant.refusal(problem_of("2|7", "mla:4:24:8:16")) or "")


@pytest.mark.parametrize(
    ("contestant", "spec", "reason"),
    [
        (FlashMla(), "mla:4:24:8:16", "takes one latent of 512 columns and rotary keys of 64"),
        (FlashMla(), "gla:4:2", "takes one latent of 512 columns and rotary keys of 64"),
        (FlashMla(), "mla:4", "takes pages of 64, got"),
        (FlashAttention3Latent(), "gqa:4:2:16", "takes latents of 256 or 512 columns"),
        (FlashAttention3Latent(), "mla:4:24:8:16", "takes latents of 256 or 512 columns"),
        (FlashAttention3Latent(), "gla:4:2", "takes float16 and bfloat16, not torch.float32"),
    ],
)
def test_a_peer_refuses_what_it_cannot_read(
    contestant: Contestant, spec: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "load_operators", lambda *modules: object())
    assert reason in (contestant.refusal(problem_of("2|7", spec)) or "")


def test_a_latent_peer_takes_latents_in_whole_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "load_operators", lambda *modules: object())
    peer = FlashAttention3Latent()
    assert peer.refusal(problem_of("1,2|8,3", "gla:4:2", dtype=torch.float16)) is None
    inside = problem_of("1,2|7,3", "gla:4:2", dtype=torch.float16)
    assert "inside a page" in (peer.refusal(inside) or "")
