"""Samples: what ends them, and what they hand out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bough.engine.detokenizer import Detokenizer
from bough.engine.params import SamplingParams
from bough.engine.request import Request, Sample


class LetterTokenizer:
    """Token 0 is `a`, and so on."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(chr(ord("a") + token_id) for token_id in token_ids)


def new_sample(params: SamplingParams, max_len: int = 10, has_text: bool = True) -> Sample:
    request = Request(
        request_id=0,
        prompt=None,
        prompt_token_ids=[1, 2],
        params=params,
        stop_token_ids=frozenset(params.stop_token_ids or ()),
        max_len=max_len,
    )
    detokenizer = Detokenizer(LetterTokenizer(), [1, 2], params.stop_strings) if has_text else None
    stream = np.random.default_rng(0)
    sample = Sample(request=request, index=0, stream=stream, detokenizer=detokenizer)
    request.samples = [sample]
    return sample


def push_all(sample: Sample, text: str) -> None:
    for letter in text:
        assert not sample.is_finished
        sample.push(ord(letter) - ord("a"))


def test_a_full_context_ends_a_sample_by_length() -> None:
    sample = new_sample(SamplingParams(), max_len=5)
    push_all(sample, "xyz")
    output = sample.output()
    assert (output.finish_reason, output.text, output.token_ids) == ("length", "xyz", [23, 24, 25])


def test_a_stop_token_is_kept_as_token_and_left_out_of_the_text() -> None:
    sample = new_sample(SamplingParams(stop_token_ids=[25]))
    push_all(sample, "xyz")
    output = sample.output()
    assert (output.finish_reason, output.text, output.token_ids) == ("stop", "xy", [23, 24, 25])


def test_a_stop_string_ends_a_sample_across_tokens() -> None:
    sample = new_sample(SamplingParams(stop=["yz", "q"]))
    push_all(sample, "xyyz")
    output = sample.output()
    assert (output.finish_reason, output.text) == ("stop", "xy")
    assert len(output.token_ids) == 4


def test_what_was_held_back_is_given_out_at_the_end() -> None:
    sample = new_sample(SamplingParams(stop="zzz"), max_len=5)
    push_all(sample, "xz")
    assert sample.output().text == "x"
    push_all(sample, "z")
    assert (sample.output().text, sample.finish_reason) == ("xzz", "length")


def test_without_a_tokenizer_there_is_no_text() -> None:
    sample = new_sample(SamplingParams(), has_text=False)
    push_all(sample, "x")
    assert sample.output().text is None
    assert sample.output().finish_reason is None


def test_a_request_is_finished_when_all_its_samples_are() -> None:
    sample = new_sample(SamplingParams())
    assert not sample.request.output().is_finished
    sample.finish("abort")
    output = sample.request.output()
    assert output.is_finished and output.outputs[0].finish_reason == "abort"


def test_only_a_sample_that_draws_moves_its_stream() -> None:
    greedy, drawing = new_sample(SamplingParams(temperature=0)), new_sample(SamplingParams())
    before = greedy.stream.bit_generator.state["state"]
    assert greedy.next_draw().uniform == 0.0
    assert greedy.stream.bit_generator.state["state"] == before
    uniforms = [drawing.next_draw().uniform for _ in range(3)]
    assert uniforms == np.random.default_rng(0).random(3).tolist()


def test_seen_tokens_are_listed_only_for_a_penalty() -> None:
    assert list(new_sample(SamplingParams()).next_draw().seen_token_ids) == []
    sample = new_sample(SamplingParams(repetition_penalty=1.2))
    push_all(sample, "x")
    assert list(sample.next_draw().seen_token_ids) == [1, 2, 23]
