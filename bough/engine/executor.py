"""One step on one rank's device, told what to compute. Nothing is chosen here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bough.cache.pool import KVPool
from bough.device import Device
from bough.engine.config import EngineConfig
from bough.engine.steps import Step
from bough.forest import Forest
from bough.layers.context import StepContext
from bough.models.decoder import Decoder
from bough.plan import Plan, make_plan


def make_pool(decoder: Decoder, config: EngineConfig) -> KVPool:
    """Make the storage for the KV of a model, or of this rank's share of it."""
    dtype = decoder.embed_tokens.weight.dtype
    return KVPool(
        decoder.spec,
        num_layers=decoder.config.num_layers,
        num_pages=config.pool_pages(decoder.config, dtype),
        page_size=config.page_size,
        dtype=config.pool_dtype(dtype),
        device=config.chosen_device.torch_device,
    )


class Executor:
    """Runs steps through the decoder, with one plan that follows the forest.

    Args:
        decoder: the model, or this rank's share of it, on the device.
        pool: where its KV goes, on the device.
        device: the machine.
    """

    def __init__(self, decoder: Decoder, pool: KVPool, device: Device) -> None:
        self._decoder = decoder
        self._pool = pool
        self._device = device
        self._kv = [pool.layer(index) for index in range(pool.num_layers)]
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """The plan of the last step."""
        assert self._plan is not None
        return self._plan

    @torch.inference_mode()
    def run(self, step: Step) -> Tensor:
        """Compute a step and store its KV.

        Returns:
            [num_tokens, hidden_size], ready for `logits`.
        """
        self._pool.move(step.moves)
        context = StepContext(
            plan=self._follow(step.forest),
            positions=self._on_device(step.forest.rotary_position),
            slots=self._on_device(step.slots),
        )
        return self._decoder(self._on_device(step.token_ids), context, self._kv)

    @torch.inference_mode()
    def logits(self, hidden: Tensor, rows: npt.NDArray[np.integer]) -> Tensor:
        """Map those rows of `run`'s result to logits [num_rows, vocab_size] fp32."""
        return self._decoder.logits(hidden[self._on_device(rows)])

    def _follow(self, forest: Forest) -> Plan:
        """Let the plan serve `forest`."""
        if self._plan is None:
            itemsize = self._pool.dtype.itemsize
            self._plan = make_plan(forest, self._decoder.spec, self._device, itemsize=itemsize)
        else:
            self._plan.update(forest)
        return self._plan

    def _on_device(self, values: npt.NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self._device.torch_device)
