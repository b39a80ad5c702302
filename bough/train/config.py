"""The settings of one training run and the two sizes to start from. Nothing runs here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bough.expect import expect


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of a Llama-architecture decoder with tied embeddings.

    Args:
        vocab_size: rows of the embedding, and tokens of the tokenizer.
        hidden_dim: width of the residual stream; a multiple of `num_q_heads`.
        num_layers: decoder layers.
        num_q_heads: query heads.
        num_kv_heads: stored heads; a divisor of `num_q_heads`.
        head_dim: columns of a head; even, for the rotary halves.
        mlp_dim: width of the gated feed-forward.
        max_len: longest context in tokens.
        rope_theta: base of the rotary frequencies.
        norm_eps: added to the mean square in RMSNorm.

    Raises:
        ValueError: a size is out of range or contradicts another.
    """

    vocab_size: int
    hidden_dim: int
    num_layers: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    max_len: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            expect(value > 0, field.name, "positive", value)
        is_grouped = self.num_q_heads % self.num_kv_heads == 0
        expectation = f"a multiple of num_kv_heads {self.num_kv_heads}"
        expect(is_grouped, "num_q_heads", expectation, self.num_q_heads)
        expectation = f"a multiple of num_q_heads {self.num_q_heads}"
        expect(self.hidden_dim % self.num_q_heads == 0, "hidden_dim", expectation, self.hidden_dim)
        expect(self.head_dim % 2 == 0, "head_dim", "even", self.head_dim)
        expect(self.vocab_size > 256, "vocab_size", "more than the 256 bytes", self.vocab_size)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, from source files to a checkpoint folder.

    Args:
        output: the checkpoint folder to make.
        shape: sizes of the model and its tokenizer.
        batch_size: windows per step.
        seq_len: tokens per window; at most `shape.max_len`.
        steps: optimizer steps; None where `minutes` is given.
        minutes: wall time of the whole run, data preparation and export included; the number
            of steps follows from the speed measured during warm-up. None where `steps` is given.
        device: `cpu` or `cuda`; None for the GPU where there is one, else the CPU.
        source: folder of Python files; None for this interpreter's standard library.
        include_tests: whether the standard library's own tests are part of the corpus.
        max_files: at most this many files, a fixed pseudo-random choice; None for all.
        learning_rate: peak of the schedule.
        warmup_steps: steps of linear warm-up before the cosine decay.
        num_evaluations: how often the validation loss is taken, about evenly, the end included.
        weight_decay: decoupled decay of the matrices; norms have none.
        dropout: probability on embeddings and on every residual branch while training.
        compile_model: whether torch.compile is used; None for on a GPU only.
        seed: of the initial weights, the windows and the dropout.
        overwrite: whether an existing `output` may be replaced.

    Raises:
        ValueError: a setting is out of range or contradicts another.
    """

    output: Path
    shape: ModelShape
    batch_size: int
    seq_len: int
    steps: int | None = None
    minutes: float | None = None
    device: str | None = None
    source: Path | None = None
    include_tests: bool = True
    max_files: int | None = None
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    num_evaluations: int = 40
    weight_decay: float = 0.1
    dropout: float = 0.1
    compile_model: bool | None = None
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "seq_len", "warmup_steps", "num_evaluations"):
            expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("steps", "minutes", "max_files"):
            value = getattr(self, name)
            expect(value is None or value > 0, name, "positive or left out", value)
        is_one_given = (self.steps is None) != (self.minutes is None)
        expect(is_one_given, "steps", "given, or minutes, not both", f"{self.steps}")
        expect(self.learning_rate > 0, "learning_rate", "positive", self.learning_rate)
        expect(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        expect(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        expectation = f"at most max_len {self.shape.max_len}"
        expect(self.seq_len <= self.shape.max_len, "seq_len", expectation, self.seq_len)

    @classmethod
    def preset(cls, size: str, output: Path, **changes: Any) -> TrainConfig:
        """Start from a named size: `tiny` (seconds on a CPU) or `demo` (minutes on a GPU).

        Args:
            size: a key of `PRESETS`.
            output: the checkpoint folder to make.
            changes: fields that replace the preset's; giving `minutes` takes the place of the
                preset's `steps`, and the reverse.

        Raises:
            ValueError: the size is unknown, or a field is out of range.
        """
        if size not in PRESETS:
            raise ValueError(f"size must be one of {', '.join(PRESETS)}, got {size!r}")
        settings = dict(PRESETS[size])
        if changes.get("steps") is not None or changes.get("minutes") is not None:
            settings["steps"] = settings["minutes"] = None
        return cls(output=output, **{**settings, **changes})


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "shape": ModelShape(
            vocab_size=512,
            hidden_dim=64,
            num_layers=2,
            num_q_heads=4,
            num_kv_heads=2,
            head_dim=16,
            mlp_dim=160,
            max_len=256,
        ),
        "batch_size": 8,
        "seq_len": 128,
        "steps": 100,
        "minutes": None,
        "max_files": 40,
        "warmup_steps": 10,
        "num_evaluations": 5,
        "learning_rate": 5e-3,
        "dropout": 0.0,
    },
    "demo": {
        "shape": ModelShape(
            vocab_size=4096,
            hidden_dim=256,
            num_layers=7,
            num_q_heads=8,
            num_kv_heads=2,
            head_dim=32,
            mlp_dim=672,
            max_len=2048,
        ),
        "batch_size": 32,
        "seq_len": 2048,
        "steps": None,
        "minutes": 4.25,
        # On an H100 this is some 77 passes over 8 million tokens, so it takes strong
        # regularisation: with a dropout of 0.1 the validation loss ended at 1.792, with 0.2 at
        # 1.741 nats a token.
        "weight_decay": 1.0,
        "dropout": 0.2,
    },
}
