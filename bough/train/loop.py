"""The training loop: steps, evaluations, the best weights, and a state to go on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bough.expect import expect
from bough.train.schedule import steps_within
from bough.train.state import load_state, save_state
from bough.train.stepper import Stepper
from bough.train.stream import TokenStream

_BEST, _STATE = "best.", "state."


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come; plain JSON values.

    Args:
        step: optimizer steps done.
        num_steps: in all.
        best_step: steps after which the best weights were taken.
        validation_loss: theirs, in nats a token; None before the first evaluation.
        seconds: wall time of these steps, compilation and evaluations included.
        log: one record per evaluation.
    """

    step: int
    num_steps: int
    best_step: int = 0
    validation_loss: float | None = None
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Where and how often a run's state is saved.

    Args:
        path: the file.
        seconds: from one state to the next, at least.
        settings: what the run depends on; a state saved for others is refused.
    """

    path: Path
    seconds: float
    settings: Mapping[str, Any]


class Loop:
    """A run: what is trained, how far it is, and the best weights so far.

    Args:
        stepper: what to train.
        validation: tokens that no step sees.
        saving: where its state is saved; None for nowhere.
        is_quiet: whether progress bars are left out.
    """

    def __init__(
        self,
        stepper: Stepper,
        validation: TokenStream,
        *,
        saving: Saving | None = None,
        is_quiet: bool = False,
    ) -> None:
        self.stepper = stepper
        self.validation = validation
        self.saving = saving
        self.is_quiet = is_quiet
        self.best = stepper.weights()

    def run(self, deadline: float | None = None) -> Progress:
        """Train to the end, from the saved state where there is one.

        Afterwards `best` holds the weights with the lowest validation loss.

        Args:
            deadline: when to be done, on `time.monotonic`'s clock; needed where the configuration
                gives no number of steps.

        Raises:
            ValueError: the saved state belongs to other settings.
        """
        saved_at = began = time.monotonic()
        progress = self._begin(deadline)
        began -= progress.seconds
        interval = max(1, progress.num_steps // self.stepper.config.num_evaluations)
        with self._bar(progress.num_steps, "train", progress.step) as bar:
            while progress.step < progress.num_steps:
                end = min((progress.step // interval + 1) * interval, progress.num_steps)
                record = self._advance(progress, end, bar)
                progress = self._follow(progress, record, time.monotonic() - began)
                bar.set_postfix(
                    train=f"{record['train_loss']:.3f}",
                    validation=f"{record['validation_loss']:.3f}",
                )
                if self.saving and time.monotonic() - saved_at >= self.saving.seconds:
                    self._save(self.saving, progress)
                    saved_at = time.monotonic()
                if deadline is not None and time.monotonic() > deadline:
                    break
        return progress

    def _begin(self, deadline: float | None) -> Progress:
        if self.saving is not None and self.saving.path.exists():
            return self._restore(self.saving)
        config = self.stepper.config
        if config.steps is not None:
            return Progress(step=0, num_steps=config.steps)
        assert deadline is not None
        num_more = self._warm_up(deadline)
        return Progress(step=config.warmup_steps, num_steps=config.warmup_steps + num_more)

    def _advance(self, progress: Progress, end: int, bar: tqdm[Any]) -> dict[str, Any]:
        """Take the steps up to `end`, then evaluate; return the record of both."""
        stepper, config = self.stepper, self.stepper.config
        began = time.monotonic()
        losses = []
        for index in range(progress.step, end):
            losses.append(stepper.step(index, progress.num_steps))
            bar.update()
        train_loss = torch.stack(losses).mean().item()
        num_tokens = len(losses) * config.batch_size * config.seq_len
        tokens_per_second = num_tokens / (time.monotonic() - began)
        return {
            "step": end,
            "tokens": end * config.batch_size * config.seq_len,
            "learning_rate": stepper.learning_rate,
            "train_loss": train_loss,
            "validation_loss": stepper.evaluate(self.validation),
            "tokens_per_second": round(tokens_per_second),
        }

    def _follow(self, progress: Progress, record: dict[str, Any], seconds: float) -> Progress:
        """Return the progress behind a record, and keep the weights if they are the best."""
        log = [*progress.log, {**record, "seconds": round(seconds, 2)}]
        progress = replace(progress, step=record["step"], seconds=seconds, log=log)
        lowest = progress.validation_loss
        if lowest is not None and record["validation_loss"] >= lowest:
            return progress
        self.best = self.stepper.weights()
        return replace(
            progress, best_step=record["step"], validation_loss=record["validation_loss"]
        )

    def _save(self, saving: Saving, progress: Progress) -> None:
        best = {_BEST + name: weight for name, weight in self.best.items()}
        state = {_STATE + name: tensor for name, tensor in self.stepper.state().items()}
        facts = {"settings": dict(saving.settings), "progress": asdict(progress)}
        save_state(saving.path, {**best, **state}, facts)

    def _restore(self, saving: Saving) -> Progress:
        tensors, facts = load_state(saving.path)
        for name, value in saving.settings.items():
            found = facts["settings"].get(name)
            expectation = f"{value}, as now, or the file deleted"
            expect(found == value, f"{name} of {saving.path}", expectation, found)
        device = self.stepper.stream.token_ids.device
        self.best = {
            name: tensors[_BEST + name].to(device) for name in self.stepper.decoder.state_dict()
        }
        self.stepper.restore(
            {
                name.removeprefix(_STATE): tensor
                for name, tensor in tensors.items()
                if name.startswith(_STATE)
            }
        )
        return Progress(**facts["progress"])

    def _warm_up(self, deadline: float) -> int:
        """Take the warm-up steps; return how many more fit before the deadline."""
        num_steps = self.stepper.config.warmup_steps
        num_untimed = num_steps // 2
        with self._bar(num_steps, "warm-up") as bar:

            def take(first: int, last: int) -> None:
                for index in range(first, last):
                    self.stepper.step(index, num_steps)
                    bar.update()

            self._seconds(lambda: take(0, num_untimed))
            step_seconds = self._seconds(lambda: take(num_untimed, num_steps))
        self.stepper.evaluate(self.validation)
        evaluation_seconds = self._seconds(lambda: self.stepper.evaluate(self.validation))
        return steps_within(
            deadline - time.monotonic(),
            step_seconds=step_seconds / (num_steps - num_untimed),
            evaluation_seconds=self.stepper.config.num_evaluations * evaluation_seconds,
        )

    def _seconds(self, job: Callable[[], object]) -> float:
        began = time.monotonic()
        job()
        if self.stepper.stream.token_ids.is_cuda:
            torch.cuda.synchronize()
        return time.monotonic() - began

    def _bar(self, num_steps: int, what: str, num_done: int = 0) -> tqdm[Any]:
        return tqdm(
            total=num_steps, initial=num_done, desc=what, unit="step", disable=self.is_quiet
        )
