"""A model folder and whole calls: prompts in, outputs out in the same order."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from bough.engine.config import EngineConfig
from bough.engine.engine import Engine
from bough.engine.outputs import RequestOutput
from bough.engine.params import SamplingParams
from bough.engine.prompts import Prompt, TokenPrompt, as_list
from bough.engine.worker import load_on_ranks
from bough.expect import expect
from bough.models.tokenizer import load_tokenizer

Message = Mapping[str, Any]


class LLM(Engine):
    """A model that generates. KV of what it has read stays cached from call to call.

    Example:
        llm = LLM("path/to/model", device="cpu")
        outputs = llm.generate(["def add(", "def sub("], SamplingParams(n=4, max_tokens=32))
        print(outputs[0].outputs[3].text)

    Args:
        model: a Hugging Face folder; one without a tokenizer runs token ids.
        options: the fields of `EngineConfig`: `device`, `tensor_parallel_size`, `dtype`,
            `kv_dtype`, `page_size`, `num_pages`, `kv_bytes`, `max_num_seqs`,
            `max_num_batched_tokens`, `max_model_len`, `num_draft_tokens`, `seed`.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        ValueError: a file or an option is not what it must be.
        TypeError: there is no such option.
        ChildProcessError: one of several ranks ended.
    """

    def __init__(self, model: str | os.PathLike[str], **options: Any) -> None:
        config = EngineConfig(**options)
        tokenizer = load_tokenizer(model)
        decoder, config = load_on_ranks(model, config)
        try:
            super().__init__(decoder, tokenizer, config)
        except BaseException:
            decoder.ranks.abandon()
            raise
        self._end_ranks = weakref.finalize(self, decoder.ranks.close)

    def close(self) -> None:
        """End the other ranks, where there are several; otherwise it does nothing.

        It also happens when the model is no longer used, and when the program ends.
        """
        self._end_ranks()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Complete prompts.

        Args:
            prompts: one or a list; each as in `add_request`.
            params: one for all or one for each; the defaults when None.
            use_tqdm: whether to show a progress bar.

        Returns:
            One output a prompt, in the same order.

        Raises:
            ValueError: a prompt cannot be served, named by its index; none is started then.
            RuntimeError: other requests are under way.
        """
        checked = self._check_all(prompts, params)
        request_ids: list[int] = []
        finished: dict[int, RequestOutput] = {}
        progress = tqdm(total=len(checked), unit="request", disable=not use_tqdm)
        try:
            request_ids.extend(self._enqueue(*request) for request in checked)
            while self.has_unfinished:
                for request in self.advance():
                    if request.is_finished:
                        finished[request.request_id] = request.output()
                        progress.set_postfix_str(f"{self.stats.tokens_per_second:.0f} tokens/s")
                        progress.update()
        finally:
            progress.close()
            self._abort_all(request_ids)
        return [finished[request_id] for request_id in request_ids]

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> Iterator[RequestOutput]:
        """Complete prompts, and hand out what there is after every step.

        What is under way when the iterator is closed is aborted.

        Args:
            prompts: as in `generate`.
            params: as in `generate`.

        Returns:
            Outputs of all prompts, mixed, each with everything so far; the last one of a request
            is finished. Their `request_id`s count up in the order of the prompts.

        Raises:
            As `generate` does, at once.
        """
        return self._steps(self._check_all(prompts, params))

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Answer one chat or several, in the model's own chat format.

        Args:
            messages: `{"role": ..., "content": ...}` each; or a list of such lists.
            params: as in `generate`.
            use_tqdm: as in `generate`.

        Raises:
            ValueError: the model has no tokenizer or chat template, or as in `generate`.
        """
        if self.tokenizer is None:
            raise ValueError("chat must be for a model with a tokenizer, got one without")
        is_list = isinstance(messages, Sequence) and not isinstance(messages, str | bytes)
        expect(is_list, "messages", "a list of messages, or of such lists", repr(messages))
        is_one = all(isinstance(message, Mapping) for message in messages)
        prompts: list[Prompt] = []
        for chat in [messages] if is_one else messages:
            text = self.tokenizer.format_chat(chat)  # type: ignore[arg-type]
            token_ids = self.tokenizer.encode(text, add_special_tokens=False)
            prompts.append({"prompt": text, "prompt_token_ids": token_ids})
        return self.generate(prompts, params, use_tqdm=use_tqdm)

    def _check_all(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None,
    ) -> list[tuple[TokenPrompt, SamplingParams]]:
        """See that all can be served before any is started."""
        if self.has_unfinished:
            raise RuntimeError("other requests must be finished or aborted first, got some running")
        listed = as_list(prompts)
        if isinstance(params, Sequence):
            each = list(params)
        else:
            each = [params or SamplingParams()] * len(listed)
        if len(each) != len(listed):
            raise ValueError(f"params must be one or {len(listed)}, got {len(each)}")
        checked = []
        for index, (prompt, param) in enumerate(zip(listed, each, strict=True)):
            try:
                checked.append((self.check_request(prompt, param), param))
            except ValueError as error:
                raise ValueError(f"prompts[{index}]: {error}") from error
        return checked

    def _steps(
        self, checked: Sequence[tuple[TokenPrompt, SamplingParams]]
    ) -> Iterator[RequestOutput]:
        request_ids: list[int] = []
        try:
            request_ids.extend(self._enqueue(*request) for request in checked)
            while self.has_unfinished:
                yield from self.step()
        finally:
            self._abort_all(request_ids)

    def _abort_all(self, request_ids: Sequence[int]) -> None:
        """Abort those of the requests that are not finished."""
        for request_id in request_ids:
            self.abort(request_id)
