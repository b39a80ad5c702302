"""One step on the device: spans to forest, plan, context, logits. No request is known here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bough.cache.node import QuerySpan
from bough.cache.pool import KVPool
from bough.cache.radix import RadixTree
from bough.device import Device
from bough.engine.batch import Batch
from bough.forest import Forest
from bough.layers.context import StepContext
from bough.models.decoder import Decoder
from bough.plan import Plan, make_plan


class Runner:
    """Runs batches through the decoder, with one plan that follows the forest.

    Args:
        decoder: the model, on the device.
        tree: where the spans' nodes lie.
        pool: the tree's pool, on the device.
        device: the machine.
    """

    def __init__(self, decoder: Decoder, tree: RadixTree, pool: KVPool, device: Device) -> None:
        self._decoder = decoder
        self._tree = tree
        self._pool = pool
        self._device = device
        self._kv = [pool.layer(index) for index in range(pool.num_layers)]
        self._plan: Plan | None = None

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """Compute a batch and store its KV.

        Returns:
            [len(batch.endings), vocab_size] fp32 logits behind the last token of each ending.
        """
        forest = self._tree.forest(batch.spans)
        context = StepContext(
            plan=self._follow(forest),
            positions=self._on_device(forest.query_position),
            slots=self._on_device(_slots(batch.spans, forest)),
        )
        token_ids = self._on_device(_token_ids(batch.spans))
        hidden = self._decoder(token_ids, context, self._kv)
        last = forest.query_indptr[1:][batch.endings] - 1
        return self._decoder.logits(hidden[self._on_device(last)])

    @property
    def forest(self) -> Forest:
        """The forest of the last step."""
        assert self._plan is not None
        return self._plan.forest

    @property
    def num_tokens_read(self) -> int:
        """KV tokens that the last step's tiles read in each layer, each counted once per tile."""
        assert self._plan is not None
        return self._plan.num_tokens_read

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


def _token_ids(spans: list[QuerySpan]) -> npt.NDArray[np.int64]:
    """[num_tokens] the tokens of all spans."""
    token_ids: list[int] = []
    for node, position, num_queries in spans:
        begin = position - node.start
        token_ids += node.tokens[begin : begin + num_queries]
    return np.array(token_ids, dtype=np.int64)


def _slots(spans: list[QuerySpan], forest: Forest) -> npt.NDArray[np.int64]:
    """[num_tokens] where the KV of each token goes, -1 where it is stored already."""
    node = forest.query_node
    offset = forest.query_position - forest.node_start[node] + forest.node_first_slot[node]
    at = forest.node_page_start[node] + offset // forest.page_size
    slots = forest.page_indices[at].astype(np.int64) * forest.page_size + offset % forest.page_size
    num_stored = [node.start + node.num_computed for node, _, _ in spans]
    is_stored = forest.query_position < np.repeat(num_stored, np.diff(forest.query_indptr))
    return np.where(is_stored, -1, slots)
