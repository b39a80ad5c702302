"""From logits to tokens: penalties, filters, draws and log probabilities. No requests live here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bough.engine.params import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What decides one sample's next token, beside its logits.

    Args:
        params: the request's sampling parameters.
        uniform: a number in [0, 1) from the sample's own stream; unused by greedy ones.
        seen_token_ids: tokens of the prompt and of the sample, for the repetition penalty.
    """

    params: SamplingParams
    uniform: float
    seen_token_ids: Collection[int]


def sample_tokens(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Choose one token for each row; a row's token depends on that row and its draw alone.

    Args:
        logits: [num_samples, vocab_size] fp32.
        draws: [num_samples].

    Returns:
        [num_samples] token ids.
    """
    logits = penalize_repetition(logits, draws)
    token_ids = logits.argmax(dim=-1)
    rows = [row for row, draw in enumerate(draws) if not draw.params.is_greedy]
    if rows:
        chance = [draws[row] for row in rows]
        index = torch.tensor(rows, device=logits.device)
        probs = filtered_probs(logits[index], [draw.params for draw in chance])
        token_ids[index] = draw_tokens(probs, [draw.uniform for draw in chance])
    return token_ids.tolist()


def penalize_repetition(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Divide positive logits of seen tokens by the penalty and multiply negative ones.

    Args:
        logits: [num_samples, vocab_size] fp32, left as it is.
        draws: [num_samples].

    Returns:
        [num_samples, vocab_size] fp32.
    """
    rows = [row for row, draw in enumerate(draws) if draw.params.repetition_penalty != 1]
    if not rows:
        return logits
    seen = [np.fromiter(draws[row].seen_token_ids, dtype=np.int64) for row in rows]
    num_seen = [len(token_ids) for token_ids in seen]
    penalties = np.array([draws[row].params.repetition_penalty for row in rows], np.float32)
    index = torch.from_numpy(np.repeat(rows, num_seen)).to(logits.device)
    columns = torch.from_numpy(np.concatenate(seen)).to(logits.device)
    penalty = torch.from_numpy(np.repeat(penalties, num_seen)).to(logits.device)
    scores = logits[index, columns]
    penalized = logits.clone()
    penalized[index, columns] = torch.where(scores > 0, scores / penalty, scores * penalty)
    return penalized


def filtered_probs(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Apply temperature, top_k, top_p and min_p, in this order, each to what the last one left.

    Args:
        logits: [num_samples, vocab_size] fp32.
        params: [num_samples], of a temperature above 0.

    Returns:
        [num_samples, vocab_size] fp32 probabilities, up to a factor a row; 0 where left out.
    """
    temperature = _column([param.temperature for param in params], logits)
    temperature.clamp_(min=torch.finfo(torch.float32).tiny)  # what rounds to 0 is above 0
    logits = (logits - logits.amax(dim=-1, keepdim=True)).div_(temperature)
    vocab_size = logits.shape[-1]
    keeps_some = [row for row, param in enumerate(params) if 0 < param.top_k < vocab_size]
    if keeps_some:
        index = torch.tensor(keeps_some, device=logits.device)
        logits[index] = _top_k(logits[index], [params[row].top_k for row in keeps_some])
    keeps_some = [row for row, param in enumerate(params) if param.top_p < 1]
    if keeps_some:
        index = torch.tensor(keeps_some, device=logits.device)
        logits[index] = _top_p(logits[index], [params[row].top_p for row in keeps_some])
    probs = logits.softmax(dim=-1)
    if any(param.min_p > 0 for param in params):
        min_p = _column([param.min_p for param in params], logits)
        probs.masked_fill_(probs < min_p * probs.amax(dim=-1, keepdim=True), 0.0)
    return probs


def draw_tokens(probs: Tensor, uniforms: Sequence[float]) -> Tensor:
    """Invert the cumulative distribution at one uniform number a row.

    Args:
        probs: [num_samples, vocab_size] fp32, at least 0, up to a factor a row.
        uniforms: [num_samples] in [0, 1).

    Returns:
        [num_samples] int64 token ids, of probability above 0.
    """
    cumulative = probs.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    target = torch.tensor(uniforms, dtype=torch.float64, device=probs.device)[:, None] * total
    # Rounding must not lift the target to the total: no token lies there.
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True)[:, 0]


def top_logprobs(
    logits: Tensor, token_ids: Sequence[int], num_top: Sequence[int]
) -> list[dict[int, float]]:
    """Report the most likely tokens of each row, and the chosen one.

    Args:
        logits: [num_samples, vocab_size] fp32, before penalties and temperature.
        token_ids: [num_samples] chosen tokens.
        num_top: [num_samples] how many of the most likely tokens to report.

    Returns:
        [num_samples] natural log probabilities by token id: the most likely first, then the
        chosen one, where it is not among them.
    """
    logprobs = logits.log_softmax(dim=-1)
    top = logprobs.topk(max(num_top), dim=-1)
    index = torch.tensor(token_ids, device=logits.device)[:, None]
    chosen = logprobs.gather(-1, index)[:, 0].tolist()
    rows = zip(top.indices.tolist(), top.values.tolist(), num_top, token_ids, chosen, strict=True)
    return [
        dict(zip(ids[:num], values[:num], strict=True)) | {token_id: logprob}
        for ids, values, num, token_id, logprob in rows
    ]


def _top_k(logits: Tensor, top_k: Sequence[int]) -> Tensor:
    """Leave out what is below the k-th greatest logit of its row."""
    greatest = logits.topk(max(top_k), dim=-1).values
    last = torch.tensor(top_k, device=logits.device)[:, None] - 1
    return logits.masked_fill(logits < greatest.gather(-1, last), -torch.inf)


def _top_p(logits: Tensor, top_p: Sequence[float]) -> Tensor:
    """Leave out what lies behind the most likely tokens that reach the sum.

    Of equally likely tokens those of lower ids stay.
    """
    ordered = _descending(logits)
    cumulative = ordered.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    wanted = torch.tensor(top_p, dtype=torch.float64, device=logits.device)[:, None]
    last = torch.searchsorted(cumulative, wanted).clamp(max=logits.shape[-1] - 1)
    least = ordered.gather(-1, last)
    is_out = logits < least
    behind = ordered.gather(-1, (last + 1).clamp(max=logits.shape[-1] - 1))
    ties = ((behind == least) & (last + 1 < logits.shape[-1]))[:, 0].nonzero()[:, 0]
    if len(ties):
        is_equal = logits[ties] == least[ties]
        num_kept = last[ties] + 1 - (ordered[ties] > least[ties]).sum(dim=-1, keepdim=True)
        is_out[ties] |= is_equal & (is_equal.cumsum(dim=-1) > num_kept)
    return logits.masked_fill(is_out, -torch.inf)


def _descending(logits: Tensor) -> Tensor:
    """Sort each row. On a CPU numpy does so ten times as fast as torch, which finds indices too."""
    if logits.device.type == "cpu":
        return torch.from_numpy(-np.sort(-logits.numpy(), axis=-1))
    return logits.sort(dim=-1, descending=True).values


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """[num_samples, 1] fp32 on the device of `like`."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
