"""What the engine did so far, as a frozen snapshot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """Sums over all steps so far.

    Args:
        num_steps: steps.
        num_generated_tokens: tokens that samples took.
        num_draft_tokens: guesses that went through the model.
        num_drawn_drafts: guesses that samples then drew, each of them a step spared.
        num_computed_tokens: tokens that went through the model, prompts and recomputed included.
        num_cached_tokens: prompt tokens of requests whose KV was stored when they were admitted.
        num_preemptions: times that a running sample had to wait again.
        seconds: wall time of the steps.
        peak_num_nodes: most nodes of a step's forest.
        peak_unique_tokens: most KV tokens of a step's forest.
        kv_bytes_read: bytes that attention read on each rank, all layers together.
        kv_bytes_apart: bytes that it would have read, had each sample read its path for itself.
        num_ranks: devices that share the model.
        kv_token_bytes: bytes of one token's KV on each of them, all layers together.
    """

    num_steps: int = 0
    num_generated_tokens: int = 0
    num_draft_tokens: int = 0
    num_drawn_drafts: int = 0
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    num_preemptions: int = 0
    seconds: float = 0.0
    peak_num_nodes: int = 0
    peak_unique_tokens: int = 0
    kv_bytes_read: int = 0
    kv_bytes_apart: int = 0
    num_ranks: int = 1
    kv_token_bytes: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second of the steps' wall time; 0 before the first step."""
        return self.num_generated_tokens / self.seconds if self.seconds else 0.0

    @property
    def sharing_factor(self) -> float:
        """How many times as much attention would have read without sharing; 1 for nothing read."""
        return self.kv_bytes_apart / self.kv_bytes_read if self.kv_bytes_read else 1.0
