"""Tokens of all files in one row, and the windows that a step draws from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from bough.train.tokenizer import END_OF_TEXT

# Share of windows that begin where a file does: a prompt begins there too, with no
# end-of-text token before it.
FILE_START_SHARE = 0.125
# Encodings hold much beside the ids, so only those of a few files are kept at a time.
FILES_AT_ONCE = 1024


class TokenStream:
    """Files one after another, an end-of-text token after each.

    Args:
        token_ids: [num_tokens] int64.
        file_starts: [num_files] int64, the index of each file's first token.
        seq_len: tokens per window, the one after it not counted.

    Raises:
        ValueError: the stream is shorter than one window.
    """

    def __init__(self, token_ids: Tensor, file_starts: Tensor, seq_len: int) -> None:
        if len(token_ids) <= seq_len:
            raise ValueError(f"seq_len must be less than {len(token_ids)} tokens, got {seq_len}")
        self.token_ids = token_ids
        self.seq_len = seq_len
        self.num_windows = (len(token_ids) - 1) // seq_len
        last_start = len(token_ids) - seq_len - 1
        self.file_starts = file_starts[file_starts <= last_start].cpu()

    @classmethod
    def encode(
        cls, tokenizer: Tokenizer, texts: Sequence[str], seq_len: int, device: torch.device
    ) -> TokenStream:
        """Tokenize `texts` and lay them in one row on `device`."""
        end = tokenizer.token_to_id(END_OF_TEXT)
        files: list[Tensor] = []
        for first in range(0, len(texts), FILES_AT_ONCE):
            batch = list(texts[first : first + FILES_AT_ONCE])
            encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            files += [torch.tensor([*encoding.ids, end]) for encoding in encodings]
        ends = torch.tensor([len(file) for file in files]).cumsum(0)
        starts = torch.cat((torch.zeros(1, dtype=torch.int64), ends[:-1]))
        return cls(torch.cat(files).to(device), starts.to(device), seq_len)

    def sample(self, batch_size: int, seed: int) -> Tensor:
        """Draw windows at random, `FILE_START_SHARE` of them at the start of a file.

        Args:
            batch_size: windows to draw.
            seed: in [0, 2**32); the same draws the same windows on every device.

        Returns:
            [batch_size, seq_len + 1] int64.
        """
        generator = torch.Generator().manual_seed(seed)
        at_file = torch.rand(batch_size, generator=generator) < FILE_START_SHARE
        file = torch.randint(len(self.file_starts), (batch_size,), generator=generator)
        last_start = len(self.token_ids) - self.seq_len - 1
        anywhere = torch.randint(last_start + 1, (batch_size,), generator=generator)
        starts = torch.where(at_file, self.file_starts[file], anywhere)
        # Does not wait for the steps that a GPU has still to do.
        return self._windows(starts.to(self.token_ids.device, non_blocking=True))

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Yield all windows in order, [batch_size, seq_len + 1] int64.

        An incomplete batch at the end is left out. Where there are fewer windows than
        `batch_size`, one smaller batch holds them all.
        """
        batch_size = min(batch_size, self.num_windows)
        for first in range(0, self.num_windows - batch_size + 1, batch_size):
            index = torch.arange(first, first + batch_size, device=self.token_ids.device)
            yield self._windows(index * self.seq_len)

    def _windows(self, starts: Tensor) -> Tensor:
        offsets = torch.arange(self.seq_len + 1, device=self.token_ids.device)
        return self.token_ids[starts[:, None] + offsets]
