"""The settings of one training run. Nothing runs here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bough.expect import expect
from bough.train.shape import ModelShape

# Settings that change nothing in what a step computes.
_INCIDENTAL = frozenset({"output", "device", "compile_model", "checkpoint_seconds", "overwrite"})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, from source files to a checkpoint folder.

    Args:
        output: the checkpoint folder to make.
        shape: sizes of the model and its tokenizer.
        batch_size: windows per optimizer step.
        microbatch_size: windows per forward pass, whose gradients a step adds up; a divisor of
            `batch_size`, None for all at once.
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
        weight_decay: decoupled decay of the projections; norms and embeddings have none.
        dropout: probability on embeddings and on every residual branch while training.
        compile_model: whether torch.compile is used; None for on a GPU only.
        checkpoint_seconds: at the first evaluation after this long the run's state is saved, so
            that a killed run goes on from there.
        seed: of the initial weights.
        data_seed: of the windows and the dropout.
        overwrite: whether an existing `output` may be replaced.

    Raises:
        ValueError: a setting is out of range or contradicts another.
    """

    output: Path
    shape: ModelShape
    batch_size: int
    microbatch_size: int | None = None
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
    checkpoint_seconds: float = 60.0
    seed: int = 0
    data_seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "seq_len", "warmup_steps", "num_evaluations"):
            expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("steps", "minutes", "max_files", "microbatch_size"):
            value = getattr(self, name)
            expect(value is None or value > 0, name, "positive or left out", value)
        is_one_given = (self.steps is None) != (self.minutes is None)
        expect(is_one_given, "steps", "given, or minutes, not both", f"{self.steps}")
        expect(self.learning_rate > 0, "learning_rate", "positive", self.learning_rate)
        for name in ("weight_decay", "checkpoint_seconds", "seed", "data_seed"):
            expect(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        expect(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        expectation = f"at most max_len {self.shape.max_len}"
        expect(self.seq_len <= self.shape.max_len, "seq_len", expectation, self.seq_len)
        expectation = f"a divisor of batch_size {self.batch_size}"
        is_divisor = self.batch_size % self.windows_at_once == 0
        expect(is_divisor, "microbatch_size", expectation, self.microbatch_size)

    @property
    def windows_at_once(self) -> int:
        """Windows per forward pass."""
        return self.microbatch_size or self.batch_size

    @property
    def settings(self) -> dict[str, Any]:
        """All that a run's losses depend on, beside its corpus, as plain JSON values."""
        source = None if self.source is None else str(self.source)
        values = {name: value for name, value in asdict(self).items() if name not in _INCIDENTAL}
        return {**values, "source": source}
