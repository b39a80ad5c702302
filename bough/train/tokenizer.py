"""A byte-level byte-pair tokenizer for source code: training, encoding, saving."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

END_OF_TEXT = "<|endoftext|>"

# Pieces that byte pairs never cross, first match wins. Line breaks and the indentation after
# them are apart, so that a prompt which ends with a line break is cut as the corpus was.
PIECES = "|".join(
    (
        r"\n+",  # line breaks, blank lines included
        r"(?<=\n)[ \t]+",  # the indentation of a line, as one piece
        r"[^\n\p{L}\p{N}]?\p{L}+",  # a word with the one space or sign before it: ` def`, `_words`
        r" ?\p{N}{1,3}",  # up to three digits
        r" ?[^\s\p{L}\p{N}]+",  # a run of signs
        r"[^\S\n]+(?!\S)",  # spaces, except the last one before a word
        r"\s",
    )
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a byte-level BPE vocabulary.

    Args:
        texts: the files to learn from.
        vocab_size: tokens in all: 256 bytes, `END_OF_TEXT` (id 0) and the merges.

    Raises:
        ValueError: the texts are too short for that many tokens.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [
            Split(Regex(PIECES), behavior="isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        max_token_length=32,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        size = tokenizer.get_vocab_size()
        raise ValueError(f"vocab_size must be at most {size} for this corpus, got {vocab_size}")
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_len: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, as Hugging Face's AutoTokenizer reads them.

    Args:
        tokenizer: one that `train_tokenizer` returned.
        folder: an existing folder.
        max_len: longest context of the model in tokens.
    """
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "model_max_length": max_len,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
