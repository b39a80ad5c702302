"""The training loop: optimizer steps, evaluations, the best weights. It touches no files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bough.train.config import TrainConfig
from bough.train.model import TrainingModel
from bough.train.schedule import learning_rate, steps_within
from bough.train.stream import TokenStream

CLIP_NORM = 1.0
BETAS = (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the loop hands on.

    Args:
        state: the weights with the lowest validation loss.
        best_step: steps after which they were taken.
        validation_loss: theirs, in nats a token.
        num_steps: steps taken in all.
        seconds: wall time of the loop, compilation included.
        log: one record per evaluation.
    """

    state: dict[str, Tensor]
    best_step: int
    validation_loss: float
    num_steps: int
    seconds: float
    log: list[dict[str, Any]]


class Stepper:
    """The model with its optimizer and its draws: `step` is one optimizer step.

    Args:
        model: on the device to train on.
        stream: training tokens on the same device.
        config: batch size, rates, regularisation and seed.
    """

    def __init__(self, model: TrainingModel, stream: TokenStream, config: TrainConfig) -> None:
        device = stream.token_ids.device
        is_gpu = device.type == "cuda"
        is_compiled = is_gpu if config.compile_model is None else config.compile_model
        self.model = model
        self.stream = stream
        self.config = config
        self.optimizer = make_optimizer(model, config.weight_decay, is_fused=is_gpu)
        self.generator = torch.Generator(device=device).manual_seed(config.seed)
        self._loss = torch.compile(model.loss) if is_compiled else model.loss
        self._autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_gpu)

    def step(self, index: int, num_steps: int) -> Tensor:
        """Take optimizer step `index` of `num_steps`; return the batch's loss, a scalar."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                index,
                peak=config.learning_rate,
                warmup_steps=config.warmup_steps,
                num_steps=num_steps,
            )
        with self._autocast:
            loss = self._loss(self.stream.sample(config.batch_size, self.generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, stream: TokenStream) -> float:
        """Return the mean loss over `stream`, in nats a token, without dropout."""
        self.model.eval()
        with self._autocast:
            losses = [self._loss(batch) for batch in stream.batches(self.config.batch_size)]
        self.model.train()
        return torch.stack(losses).mean().item()


def make_optimizer(
    model: TrainingModel, weight_decay: float, *, is_fused: bool
) -> torch.optim.AdamW:
    """Make AdamW with `weight_decay` on the matrices and none on the norms."""
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=BETAS, fused=is_fused)


def run_loop(stepper: Stepper, validation: TokenStream, deadline: float | None = None) -> Outcome:
    """Train, evaluate at even intervals and keep the best weights.

    Args:
        stepper: what to train.
        validation: tokens that no step sees.
        deadline: when to be done, on `time.monotonic`'s clock; needed where the configuration
            gives no number of steps.
    """
    config = stepper.config
    began = time.monotonic()
    num_done, num_steps = 0, config.steps
    if num_steps is None:
        assert deadline is not None
        num_done = config.warmup_steps
        num_steps = num_done + _warm_up(stepper, validation, deadline)
    interval = max(1, num_steps // config.num_evaluations)
    log: list[dict[str, Any]] = []
    best_loss, best_step, best_state = float("inf"), 0, _copy_state(stepper.model)
    interval_losses: list[Tensor] = []
    with tqdm(total=num_steps, initial=num_done, unit="step", desc="train") as bar:
        while num_done < num_steps:
            interval_losses.append(stepper.step(num_done, num_steps))
            num_done += 1
            bar.update()
            if num_done % interval and num_done < num_steps:
                continue
            validation_loss = stepper.evaluate(validation)
            train_loss = torch.stack(interval_losses).mean().item()
            interval_losses.clear()
            if validation_loss < best_loss:
                best_loss, best_step = validation_loss, num_done
                best_state = _copy_state(stepper.model)
            log.append(_record(stepper, num_done, began, train_loss, validation_loss))
            bar.set_postfix(train=f"{train_loss:.3f}", validation=f"{validation_loss:.3f}")
            if deadline is not None and time.monotonic() > deadline:
                break
    return Outcome(
        state=best_state,
        best_step=best_step,
        validation_loss=best_loss,
        num_steps=num_done,
        seconds=time.monotonic() - began,
        log=log,
    )


def _warm_up(stepper: Stepper, validation: TokenStream, deadline: float) -> int:
    """Take the warm-up steps; return how many more fit before the deadline."""
    num_steps = stepper.config.warmup_steps
    num_untimed = num_steps // 2

    def take(first: int, last: int) -> None:
        for index in tqdm(range(first, last), desc="warm-up", unit="step", leave=False):
            stepper.step(index, num_steps)

    def evaluate() -> None:
        stepper.evaluate(validation)

    _seconds(stepper, lambda: take(0, num_untimed))
    step_seconds = _seconds(stepper, lambda: take(num_untimed, num_steps))
    evaluate()
    evaluation_seconds = _seconds(stepper, evaluate)
    return steps_within(
        deadline - time.monotonic(),
        step_seconds=step_seconds / (num_steps - num_untimed),
        evaluation_seconds=stepper.config.num_evaluations * evaluation_seconds,
    )


def _seconds(stepper: Stepper, job: Callable[[], None]) -> float:
    began = time.monotonic()
    job()
    if stepper.stream.token_ids.is_cuda:
        torch.cuda.synchronize()
    return time.monotonic() - began


def _copy_state(model: TrainingModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def _record(
    stepper: Stepper, step: int, began: float, train_loss: float, validation_loss: float
) -> dict[str, Any]:
    tokens_per_step = stepper.config.batch_size * stepper.stream.seq_len
    return {
        "step": step,
        "tokens": step * tokens_per_step,
        "seconds": round(time.monotonic() - began, 2),
        "learning_rate": stepper.optimizer.param_groups[0]["lr"],
        "train_loss": round(train_loss, 4),
        "validation_loss": round(validation_loss, 4),
    }
