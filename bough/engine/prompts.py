"""What people give as a prompt, turned into token ids and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bough.expect import expect
from bough.models.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Mapping[str, Any]
KEYS = {"prompt", "prompt_token_ids", "cache_salt"}


@dataclass(frozen=True, kw_only=True)
class TokenPrompt:
    """A prompt as the engine uses it.

    Args:
        text: the prompt as text; None where it came as token ids alone.
        token_ids: its tokens.
        salt: prompts of different salts share nothing.
    """

    text: str | None
    token_ids: list[int]
    salt: str


def read_prompt(prompt: Prompt, tokenizer: Tokenizer | None, vocab_size: int) -> TokenPrompt:
    """Read text, token ids, or a mapping with `prompt`, `prompt_token_ids` and `cache_salt`.

    Of a mapping that has both text and token ids, the ids count.

    Raises:
        ValueError: it is none of these or empty, a token id is out of range, or it is text and
            there is no tokenizer.
    """
    if isinstance(prompt, str):
        prompt = {"prompt": prompt}
    elif not isinstance(prompt, Mapping):
        prompt = {"prompt_token_ids": prompt}
    text, token_ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
    salt = prompt.get("cache_salt", "")
    unknown = sorted(set(prompt) - KEYS)
    expect(not unknown, "prompt", f"a mapping of {', '.join(sorted(KEYS))} only", unknown)
    expect(isinstance(salt, str), "cache_salt", "text", repr(salt))
    expect(text is None or isinstance(text, str), "prompt", "text", repr(text))
    if token_ids is None:
        expect(text is not None, "prompt", "text or token ids", prompt)
        expect(tokenizer is not None, "prompt", "token ids for a model without tokenizer", "text")
        assert tokenizer is not None and text is not None
        token_ids = tokenizer.encode(text)
    _check_token_ids(token_ids, vocab_size)
    return TokenPrompt(text=text, token_ids=list(token_ids), salt=salt)


def as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """Tell a single prompt from a list of prompts; a list of whole numbers is one prompt.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(prompts, str | Mapping):
        return [prompts]
    is_list = isinstance(prompts, Sequence) and not isinstance(prompts, bytes)
    expect(is_list, "prompts", "a prompt or a list of prompts", repr(prompts))
    if prompts and all(isinstance(item, int) for item in prompts):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]


def _check_token_ids(token_ids: object, vocab_size: int) -> None:
    is_list = isinstance(token_ids, Sequence) and not isinstance(token_ids, str | bytes)
    expect(is_list, "prompt_token_ids", "a list of token ids", repr(token_ids))
    assert isinstance(token_ids, Sequence)
    expect(len(token_ids) > 0, "prompt", "at least 1 token", len(token_ids))
    for at, token_id in enumerate(token_ids):
        is_id = type(token_id) is int and 0 <= token_id < vocab_size
        expect(is_id, f"prompt_token_ids[{at}]", f"from 0 to {vocab_size - 1}", repr(token_id))
