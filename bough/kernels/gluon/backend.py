"""Attention by Gluon kernels on Hopper; plain Triton merges partials and stores."""

from __future__ import annotations

import torch

from bough.kernels.gluon.latent.config import merge_block as latent_merge_block
from bough.kernels.gluon.latent.launch import launch_latents
from bough.kernels.gluon.launch_grouped import launch_grouped
from bough.kernels.triton.backend import TritonBackend
from bough.kernels.triton.config import merge_block
from bough.kernels.triton.launch import launch_merge, new_states
from bough.kv import KV
from bough.plan import Plan


class GluonBackend(TritonBackend):
    """Launches kernels on the tensors' device, of calls that `refusal` takes; safe inside CUDA
    graphs."""

    def attend(
        self, q: torch.Tensor, kv: KV, plan: Plan, sinks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all tiles, then merge where some query has partials or sees nothing."""
        states, v_dim = new_states(q, plan), plan.cost.spec.v_dim
        if plan.cost.spec.is_latent:
            assert not isinstance(kv, tuple)
            if plan.num_launched_items:
                launch_latents(q, kv, plan, states, sinks)
            block, is_early = latent_merge_block(plan.most_partials, len(q), v_dim), False
        else:
            if plan.num_launched_items:
                launch_grouped(q, kv, plan, states, sinks)
            block = merge_block(plan.most_partials, v_dim)
            # Early programs crowd where work ends first, which many partials at a time do not bear.
            is_early = block.partials == 1
        if plan.has_merge:
            launch_merge(states, sinks, plan, block, is_early=is_early)
        return states.out, states.lse
