"""Text to token ids and back, and chats to prompts, by the tokenizer of a Hugging Face folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bough.models.fields import Fields

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


class Tokenizer:
    """A folder's tokenizer. Decoded text is exactly what the tokens spell.

    Args:
        backend: transformers' tokenizer.
    """

    def __init__(self, backend: PreTrainedTokenizerBase) -> None:
        self._backend = backend

    @property
    def vocab_size(self) -> int:
        """Token ids, those of special tokens included."""
        return len(self._backend)

    @property
    def has_chat_template(self) -> bool:
        return self._backend.chat_template is not None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Turn text into token ids, with what the tokenizer puts around a prompt."""
        # Not verbose: how long a prompt may be is for the engine to say.
        return self._backend.encode(text, add_special_tokens=add_special_tokens, verbose=False)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Turn token ids into text."""
        text = self._backend.decode(
            list(token_ids),
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
        return str(text)

    def format_chat(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """Write a chat as the prompt that the model was trained on.

        Args:
            messages: `{"role": ..., "content": ...}` each.
            add_generation_prompt: whether to end where the assistant begins to answer.

        Raises:
            ValueError: the folder has no chat template, or the template refuses the messages.
        """
        from jinja2 import TemplateError

        if not self.has_chat_template:
            raise ValueError("chat_template must be in the model's folder, got none")
        try:
            text = self._backend.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except TemplateError as error:
            raise ValueError(f"messages must fit the chat template, got {error}") from error
        return str(text)

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Turn a chat into token ids; the template writes the special tokens itself."""
        text = self.format_chat(messages, add_generation_prompt=add_generation_prompt)
        return self.encode(text, add_special_tokens=False)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer | None:
    """Load a folder's tokenizer and chat template; None where it has none.

    No code of the folder is ever run and nothing is downloaded.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the tokenizer's files are broken, or ask for code of their own.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"model must be a folder, got {str(folder)!r}")
    if not any((folder / name).exists() for name in _FILES):
        return None
    if (folder / "tokenizer_config.json").exists():
        Fields.read(folder / "tokenizer_config.json").refuse_code()
    # Here because it takes seconds, which models without a tokenizer need not wait for.
    from transformers import AutoTokenizer, PreTrainedConfig

    # Of a type of its own, transformers would warn that it does not know it.
    config = PreTrainedConfig() if _is_of_own_family(folder) else None
    try:
        backend = AutoTokenizer.from_pretrained(
            folder, config=config, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # tokenizers raises nothing narrower for a broken tokenizer.json
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"tokenizer in {folder} must be readable, got {reason}") from error
    return Tokenizer(backend)


def _is_of_own_family(folder: Path) -> bool:
    path = folder / "config.json"
    return path.exists() and Fields.read(path).text("model_type", "").startswith("bough_")
