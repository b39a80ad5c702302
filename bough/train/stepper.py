"""A decoder with its optimizer: one step, one evaluation, and their state as tensors by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bough.models.decoder import Decoder
from bough.train.config import TrainConfig
from bough.train.model import next_token_loss
from bough.train.schedule import learning_rate
from bough.train.stream import TokenStream

CLIP_NORM = 1.0
BETAS = (0.9, 0.95)
_WEIGHTS, _OPTIMIZER = "weights.", "optimizer."


class Stepper:
    """The model with its optimizer and its draws: `step` is one optimizer step.

    All that step i draws follows from the seeds and from i, so weights and optimizer are the whole
    state.

    Args:
        decoder: on the device to train on.
        stream: training tokens on the same device.
        config: batch size, rates, regularisation and seeds.
    """

    def __init__(self, decoder: Decoder, stream: TokenStream, config: TrainConfig) -> None:
        device = stream.token_ids.device
        is_gpu = device.type == "cuda"
        is_compiled = is_gpu if config.compile_model is None else config.compile_model
        self.decoder = decoder.train()
        self.stream = stream
        self.config = config
        self.optimizer = make_optimizer(decoder, config.weight_decay, is_fused=is_gpu)
        self._loss = torch.compile(next_token_loss) if is_compiled else next_token_loss
        self._autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_gpu)

    @property
    def learning_rate(self) -> float:
        """The last step's."""
        return self.optimizer.param_groups[0]["lr"]

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
        seed = (config.data_seed * 1_000_003 + index) % 2**32
        torch.manual_seed(seed)  # the dropout's
        parts = self.stream.sample(config.batch_size, seed).split(config.windows_at_once)
        losses = []
        for part in parts:
            with self._autocast:
                loss = self._loss(self.decoder, part, config.dropout) / len(parts)
            loss.backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum()

    @torch.no_grad()
    def evaluate(self, stream: TokenStream) -> float:
        """Return the mean loss over `stream`, in nats a token, without dropout."""
        self.decoder.eval()
        with self._autocast:
            batches = stream.batches(self.config.windows_at_once)
            losses = [self._loss(self.decoder, batch, self.config.dropout) for batch in batches]
        self.decoder.train()
        return torch.stack(losses).mean().item()

    def weights(self) -> dict[str, Tensor]:
        """Copy the decoder's weights."""
        return {name: weight.clone() for name, weight in self.decoder.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """View all that further steps depend on."""
        weights = {_WEIGHTS + name: w for name, w in self.decoder.state_dict().items()}
        moments = {
            f"{_OPTIMIZER}{index}.{name}": tensor
            for index, tensors in self.optimizer.state_dict()["state"].items()
            for name, tensor in tensors.items()
        }
        return {**weights, **moments}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` returned before."""
        weights = {
            key.removeprefix(_WEIGHTS): tensor
            for key, tensor in state.items()
            if key.startswith(_WEIGHTS)
        }
        self.decoder.load_state_dict(weights)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            if key.startswith(_OPTIMIZER):
                index, _, name = key.removeprefix(_OPTIMIZER).partition(".")
                moments.setdefault(int(index), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def make_optimizer(decoder: Decoder, weight_decay: float, *, is_fused: bool) -> torch.optim.AdamW:
    """Make AdamW with `weight_decay` on the projections and none on norms and embeddings."""
    embeddings = {id(decoder.embed_tokens.weight)}
    weights = list(decoder.parameters())
    decayed = [weight for weight in weights if weight.dim() == 2 and id(weight) not in embeddings]
    others = [weight for weight in weights if weight.dim() < 2 or id(weight) in embeddings]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=BETAS, fused=is_fused)
