"""What a training run reports: figures, and the model card made of them."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bough.train.config import TrainConfig

CARD = """\
# {name}

A decoder with {attention} and tied embeddings, {num_params:,} parameters in bf16, that
`bough train` made. It continues Python source and knows nothing else.

| | |
|---|---|
| layers, width, feed-forward | {num_layers}, {hidden_dim}, {mlp_dim} |
| query heads, stored heads, head width | {num_q_heads}, {num_kv_heads}, {head_dim} |
| stored elements a token and layer | {num_elements} |
| tokenizer | byte-level BPE, {vocab_size} tokens, trained on the training files |
| longest context | {max_len} tokens; windows of {seq_len} while training |
| corpus | {corpus} |
| tokens, training and validation | {train_tokens:,} and {validation_tokens:,}, split by file |
| optimizer | AdamW, {batch_size} windows a step, peak rate {learning_rate}, cosine |
| regularisation | weight decay {weight_decay}, dropout {dropout} |
| steps, tokens seen | {num_steps:,}, {tokens_seen:,} |
| time | {seconds:.0f} s in all on {device} |
| tokens/s, compilation included | {tokens_per_second:,.0f} |
| validation loss | {validation_loss:.4f} nats a token, after step {best_step:,} |
| seed | {seed} |

`training.jsonl` holds the losses along the way.
"""
ATTENTION = {
    "gqa": "grouped-query attention (the Llama architecture)",
    "gta": "grouped-tied attention (GTA)",
    "mla": "multi-head latent attention (MLA)",
    "gla": "grouped latent attention (GLA)",
}
LIBRARY = (
    "source of the standard library of Python {version}{tests}, "
    "under the [PSF licence](https://docs.python.org/3/license.html)"
)


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """Figures of a finished run.

    Args:
        output: the checkpoint folder.
        device: what it was trained on.
        num_params: the model's, tied embeddings counted once.
        num_bytes: of all files in the folder but the model card.
        train_tokens: tokens of the training files.
        validation_tokens: tokens of the validation files.
        num_steps: optimizer steps taken.
        tokens_seen: tokens of all steps together.
        best_step: steps after which the saved weights were taken.
        validation_loss: of the saved weights, in nats a token.
        train_loss: mean over the steps before the last evaluation, dropout included.
        tokens_per_second: of the loop, compilation and evaluations included.
        seconds: wall time of the whole run up to the model card.
        log: the losses along the way, one record per evaluation.
    """

    output: Path
    device: str
    num_params: int
    num_bytes: int
    train_tokens: int
    validation_tokens: int
    num_steps: int
    tokens_seen: int
    best_step: int
    validation_loss: float
    train_loss: float
    tokens_per_second: float
    seconds: float
    log: list[dict[str, Any]]


def model_card(config: TrainConfig, report: TrainReport) -> str:
    """Return the README.md of the checkpoint folder that `report` is about."""
    if config.source is None:
        tests = ", its tests included" if config.include_tests else ", without its tests"
        corpus = LIBRARY.format(version=platform.python_version(), tests=tests)
    else:
        corpus = f"the Python files of a folder named `{config.source.name}`"
    facts = {**asdict(config.shape), **vars(config), **asdict(report), "corpus": corpus}
    facts["attention"] = ATTENTION[config.shape.attention]
    facts["num_elements"] = config.shape.spec.elements_per_token
    return CARD.format(**facts, name=config.output.name)
