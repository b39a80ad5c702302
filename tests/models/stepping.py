"""Run a decoder step by step over requests whose pages the test lays out itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bough.cache.pool import KVPool
from bough.device import Device
from bough.forest import Forest
from bough.layers.context import StepContext
from bough.models.decoder import Decoder
from bough.plan import make_plan


class Stepper:
    """Feeds tokens to a decoder; unused slots hold NaN.

    Args:
        decoder: the model.
        tables: pages of each request, column by column; equal leading pages are shared.
        page_size: slots per page.
    """

    def __init__(self, decoder: Decoder, tables: Sequence[Sequence[int]], page_size: int) -> None:
        self.decoder = decoder
        self.page_size = page_size
        width = max(len(table) for table in tables)
        rows = [list(table) + [0] * (width - len(table)) for table in tables]
        self.tables = torch.tensor(rows, dtype=torch.int32)
        pool = KVPool(
            decoder.spec,
            num_layers=decoder.config.num_layers,
            num_pages=int(self.tables.max()) + 1,
            page_size=page_size,
            dtype=next(decoder.parameters()).dtype,
        )
        self.kv = [pool.layer(index) for index in range(pool.num_layers)]
        for kv in self.kv:
            for plane in kv if isinstance(kv, tuple) else (kv,):
                plane.fill_(torch.nan)
        self.lens = [0] * len(tables)

    @torch.inference_mode()
    def feed(self, tokens: Sequence[Sequence[int]], *, stored: bool = False) -> list[torch.Tensor]:
        """Append each request's new tokens, none for a request that rests.

        Args:
            tokens: new tokens of each request.
            stored: the tokens are those fed last and are only run again, not stored again.

        Returns:
            logits of each request [num_new_tokens, vocab_size].
        """
        counts = [len(new) for new in tokens]
        starts = [n - c if stored else n for n, c in zip(self.lens, counts, strict=True)]
        self.lens = [start + count for start, count in zip(starts, counts, strict=True)]
        positions, slots = self._places(starts, counts)
        if stored:
            slots.fill_(-1)
        resting = torch.tensor(counts) == 0
        lens = torch.tensor(self.lens, dtype=torch.int32).masked_fill(resting, 0)
        forest = Forest.from_page_table(self.tables, lens, self.page_size, counts)
        plan = make_plan(forest, self.decoder.spec, Device.cpu())
        context = StepContext(plan=plan, positions=positions, slots=slots)
        token_ids = torch.tensor([token for new in tokens for token in new])
        hidden = self.decoder(token_ids, context, self.kv)
        return list(self.decoder.logits(hidden).split(counts))

    def skip(self, request: int, num_tokens: int) -> None:
        """Count a request's first tokens as computed, since it shares their pages."""
        self.lens[request] = num_tokens

    def _places(
        self, starts: Sequence[int], counts: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        positions, slots = [], []
        for table, start, count in zip(self.tables.tolist(), starts, counts, strict=True):
            for position in range(start, start + count):
                column, slot = divmod(position, self.page_size)
                positions.append(position)
                slots.append(table[column] * self.page_size + slot)
        return torch.tensor(positions), torch.tensor(slots)


def prompt_logits(decoder: Decoder, tokens: Sequence[int], page_size: int = 16) -> torch.Tensor:
    """Logits [num_tokens, vocab_size] of one request fed at once."""
    num_pages = -(-len(tokens) // page_size)
    return Stepper(decoder, [range(num_pages)], page_size).feed([tokens])[0]
