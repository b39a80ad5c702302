"""Text of one sample, token by token, cut at stop strings. No tokenizer's rules live here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

REPLACEMENT = "\ufffd"
MAX_PARTIAL = 3  # bytes that an unfinished UTF-8 character may have
CONTEXT = 8  # tokens before a new one that it is decoded with


class TextDecoder(Protocol):
    """The one thing that is asked of a tokenizer here."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of `token_ids`."""
        ...


class Detokenizer:
    """Text of one sample as it grows.

    Each token is decoded behind the tokens before it, the prompt's last ones included, and what
    the decoded window has gained is the token's text. An unfinished character at the end waits for
    its other bytes.

    Args:
        tokenizer: decodes token ids.
        prompt_token_ids: the prompt, for the context of the first tokens.
        stop: strings that end the text; they are not part of it.
        skip_special_tokens: whether special tokens are left out.
    """

    def __init__(
        self,
        tokenizer: TextDecoder,
        prompt_token_ids: Sequence[int],
        stop: tuple[str, ...] = (),
        skip_special_tokens: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._skip_special_tokens = skip_special_tokens
        self._window = list(prompt_token_ids[-CONTEXT:])
        self._num_shown = len(_settled(self._decode()))
        self._text = ""
        self._num_open = 0

    @property
    def text(self) -> str:
        """Text that no later token changes; it ends before anything that may become a stop."""
        return self._text[: len(self._text) - self._num_open]

    def push(self, token_id: int) -> bool:
        """Add one token; return whether a stop string ended the text."""
        self._window.append(token_id)
        decoded = self._decode()
        settled = _settled(decoded)
        added = settled[self._num_shown :]
        self._num_shown = len(settled)
        if len(self._window) > 2 * CONTEXT:
            del self._window[:CONTEXT]
            # A window that begins inside a character or word reads differently at its beginning,
            # so it is the unsettled end that stays in place.
            self._num_shown = len(self._decode()) - (len(decoded) - len(settled))
        return self._add(added)

    def finish(self) -> bool:
        """Give out all that was held back; return whether a stop string ended the text."""
        decoded = self._decode()
        is_stopped = self._add(decoded[self._num_shown :])
        self._num_shown = len(decoded)
        self._num_open = 0
        return is_stopped

    def _decode(self) -> str:
        return self._tokenizer.decode(self._window, skip_special_tokens=self._skip_special_tokens)

    def _add(self, added: str) -> bool:
        if not added:
            return False
        searched = max(0, len(self._text) - max((len(stop) for stop in self._stop), default=1) + 1)
        self._text += added
        found = [at for stop in self._stop if (at := self._text.find(stop, searched)) >= 0]
        if found:
            self._text = self._text[: min(found)]
            self._num_open = 0
            return True
        self._num_open = max((_overlap(self._text, stop) for stop in self._stop), default=0)
        return False


def _settled(text: str) -> str:
    """Leave out what may be an unfinished character at the end."""
    num_partial = 0
    while num_partial < MAX_PARTIAL and text.endswith(REPLACEMENT, 0, len(text) - num_partial):
        num_partial += 1
    return text[: len(text) - num_partial]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, shorter than it."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
