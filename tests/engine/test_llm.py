"""LLM: prompts in, outputs out, errors in one line, and nothing lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bough.device import Device
from bough.engine.config import EngineConfig
from bough.engine.engine import Engine
from bough.engine.llm import LLM
from bough.engine.params import SamplingParams
from bough.models.load import load_model
from bough.models.tokenizer import Tokenizer
from tests.checkpoints import EOS

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture
def llm(model: Path) -> LLM:
    return LLM(model, device="cpu", page_size=4, num_pages=200, max_model_len=256)


@pytest.fixture
def bare_llm(bare_model: Path) -> LLM:
    return LLM(bare_model, device=Device.cpu(), num_pages=20)


def test_outputs_come_in_the_order_of_the_prompts(llm: LLM) -> None:
    prompts: list[Any] = ["def branch(", [5, 6, 7], {"prompt": "the leaf"}]
    prompts.append({"prompt_token_ids": [5, 6, 7, 8]})
    params = [SamplingParams(temperature=0, max_tokens=9 - at, ignore_eos=True) for at in range(4)]
    outputs = llm.generate(prompts, params)
    assert [output.prompt for output in outputs] == ["def branch(", None, "the leaf", None]
    assert [len(output.outputs[0].token_ids) for output in outputs] == [9, 8, 7, 6]
    assert outputs[3].prompt_token_ids == [5, 6, 7, 8]
    assert all(output.is_finished for output in outputs)
    assert outputs[1].outputs[0].finish_reason == "length"


def test_one_prompt_may_stand_alone(llm: LLM) -> None:
    by_text = llm.generate("the leaf", GREEDY)
    by_ids = llm.generate(by_text[0].prompt_token_ids, GREEDY)
    assert len(by_text) == len(by_ids) == 1
    assert by_text[0].outputs == by_ids[0].outputs
    assert llm.generate([], GREEDY) == []
    assert len(llm.generate("the leaf")[0].outputs[0].token_ids) <= 16


def test_text_is_what_the_tokens_spell(llm: LLM) -> None:
    output = llm.generate("the leaf and ", SamplingParams(n=8, seed=1, max_tokens=40))[0]
    assert llm.tokenizer is not None
    whole = len(llm.tokenizer.decode(output.prompt_token_ids))
    for sample in output.outputs:
        spelled = llm.tokenizer.decode([*output.prompt_token_ids, *sample.token_ids])[whole:]
        assert sample.text == spelled


def test_end_of_text_stops_a_sample_unless_it_is_ignored(llm: LLM) -> None:
    params = SamplingParams(n=40, seed=2, max_tokens=60, temperature=2.0)
    stopped = [s for s in llm.generate("a", params)[0].outputs if s.finish_reason == "stop"]
    assert stopped
    assert all(sample.token_ids[-1] == EOS for sample in stopped)
    params = SamplingParams(n=40, seed=2, max_tokens=60, temperature=2.0, ignore_eos=True)
    outputs = llm.generate("a", params)[0].outputs
    assert all(len(sample.token_ids) == 60 for sample in outputs)


def test_stop_strings_and_stop_tokens_end_the_text_before_them(llm: LLM) -> None:
    free = llm.generate("the leaf", GREEDY)[0].outputs[0]
    assert free.text is not None and len(free.text) >= 6
    stop = free.text[3:5]
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, stop=stop)
    sample = llm.generate("the leaf", params)[0].outputs[0]
    assert (sample.finish_reason, sample.text) == ("stop", free.text[: free.text.find(stop)])
    assert sample.token_ids == free.token_ids[: len(sample.token_ids)]
    stop_token = free.token_ids[4]
    params = SamplingParams(
        temperature=0, max_tokens=8, ignore_eos=True, stop_token_ids=[stop_token]
    )
    sample = llm.generate("the leaf", params)[0].outputs[0]
    assert sample.finish_reason == "stop"
    assert sample.token_ids == free.token_ids[: free.token_ids.index(stop_token) + 1]


def test_a_full_context_ends_a_sample(model: Path) -> None:
    llm = LLM(model, device="cpu", max_model_len=20)
    params = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
    sample = llm.generate([list(range(12))], params)[0].outputs[0]
    assert (len(sample.token_ids), sample.finish_reason) == (8, "length")


def test_a_second_call_finds_the_prefix_in_the_cache(llm: LLM) -> None:
    prompt = list(range(30))
    first = llm.generate([prompt], GREEDY)[0]
    computed = llm.stats.num_computed_tokens
    second = llm.generate([[*prompt, 7]], GREEDY)[0]
    again = llm.generate([prompt], GREEDY)[0]
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 30)
    assert again.num_cached_tokens == 30 and again.outputs == first.outputs
    assert llm.stats.num_computed_tokens - computed == (1 + 7) + (1 + 7)
    assert llm.stats.num_cached_tokens == 60
    chat = [*prompt, *first.outputs[0].token_ids, 9]
    assert llm.generate([chat], GREEDY)[0].num_cached_tokens == 30 + 7


def test_requests_of_different_salts_share_nothing(llm: LLM) -> None:
    prompts = [{"prompt_token_ids": [1, 2, 3, 4, 5], "cache_salt": salt} for salt in "ab"]
    outputs = [llm.generate(prompt, GREEDY)[0] for prompt in [*prompts, prompts[0]]]
    assert [output.num_cached_tokens for output in outputs] == [0, 0, 5]
    assert outputs[0].outputs == outputs[1].outputs


def test_n_samples_prefill_and_store_the_prompt_once(model: Path) -> None:
    llm = LLM(model, device="cpu", page_size=4, num_pages=100)
    llm.add_request(list(range(40)), SamplingParams(n=16, seed=0, max_tokens=3, ignore_eos=True))
    llm.step()
    assert llm.num_pages - llm.num_free_pages == 10
    while llm.has_unfinished:
        llm.step()
    assert llm.stats.num_computed_tokens == 40 + 16 * 2
    assert llm.stats.num_generated_tokens == 16 * 3
    assert llm.stats.peak_unique_tokens == 40 + 16 * 2
    assert llm.stats.peak_num_nodes == 17
    spec, num_layers = llm.model_config.spec, llm.model_config.num_layers
    assert llm.stats.kv_bytes_apart == num_layers * spec.kv_bytes(16 * (40 + 41 + 42), 4)
    assert llm.stats.sharing_factor > 1
    assert llm.stats.tokens_per_second > 0


def test_without_sharing_attention_reads_what_it_reads_request_by_request(model: Path) -> None:
    llm = LLM(model, device="cpu", page_size=4, num_pages=100)
    llm.generate([list(range(40))], GREEDY)
    spec, num_layers = llm.model_config.spec, llm.model_config.num_layers
    num_read = 40 + sum(range(41, 48))
    assert llm.stats.kv_bytes_read == num_layers * spec.kv_bytes(num_read, 4)
    assert llm.stats.kv_bytes_apart == llm.stats.kv_bytes_read


def test_streamed_outputs_grow_to_what_generate_returns(llm: LLM) -> None:
    prompts = ["def branch(", "the leaf"]
    params = SamplingParams(n=2, seed=4, max_tokens=12)
    whole = llm.generate(prompts, params)
    last: dict[int, Any] = {}
    for output in llm.stream(prompts, params):
        for before, now in zip(
            last[output.request_id].outputs if output.request_id in last else output.outputs,
            output.outputs,
            strict=True,
        ):
            assert now.token_ids[: len(before.token_ids)] == before.token_ids
            assert now.text.startswith(before.text)
        last[output.request_id] = output
    streamed = [last[request_id] for request_id in sorted(last)]
    assert all(output.is_finished for output in streamed)
    assert [output.outputs for output in streamed] == [output.outputs for output in whole]


def test_a_closed_stream_gives_its_pages_back(llm: LLM) -> None:
    stream = llm.stream("the leaf", SamplingParams(n=5, max_tokens=50))
    next(stream)
    with pytest.raises(RuntimeError, match="must be finished or aborted first"):
        llm.generate("the leaf")
    stream.close()  # type: ignore[attr-defined]
    assert not llm.has_unfinished
    llm.clear_cache()
    assert llm.num_free_pages == llm.num_pages
    llm.stream("never started", GREEDY)
    assert len(llm.generate("the leaf", GREEDY)) == 1


def test_abort_ends_a_request_and_frees_its_pages(llm: LLM) -> None:
    running = llm.add_request([1] * 30, SamplingParams(n=3, max_tokens=50, ignore_eos=True))
    for _ in range(4):
        llm.step()
    waiting = llm.add_request([2] * 30, SamplingParams(max_tokens=50))
    kept = llm.add_request([3] * 3, GREEDY)
    outputs = [llm.abort(running), llm.abort(waiting)]
    assert llm.abort(running) is None and llm.abort(999) is None
    for output in outputs:
        assert output is not None and output.is_finished
        assert {sample.finish_reason for sample in output.outputs} == {"abort"}
    assert outputs[0] is not None and len(outputs[0].outputs[2].token_ids) == 4
    results = []
    while llm.has_unfinished:
        results += llm.step()
    assert {output.request_id for output in results} == {kept}
    assert len(results[-1].outputs[0].token_ids) == 8
    assert llm.step() == []
    llm.clear_cache()
    assert llm.num_free_pages == llm.num_pages


class TornTokenizer(Tokenizer):
    """Fails at its 20th text."""

    def __init__(self, whole: Tokenizer) -> None:
        self.whole = whole
        self.num_texts = 0

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return self.whole.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        self.num_texts += 1
        if self.num_texts == 20:
            raise InterruptedError
        return self.whole.decode(token_ids, skip_special_tokens=skip_special_tokens)


@pytest.mark.parametrize("n", [3, 30])
def test_an_interrupted_call_leaves_nothing_behind(llm: LLM, n: int) -> None:
    whole = llm.tokenizer
    assert whole is not None
    llm.tokenizer = TornTokenizer(whole)
    with pytest.raises(InterruptedError):
        llm.generate("the leaf", SamplingParams(n=n, ignore_eos=True))
    assert not llm.has_unfinished
    llm.tokenizer = whole
    assert len(llm.generate("the leaf", GREEDY)) == 1
    llm.clear_cache()
    assert llm.num_free_pages == llm.num_pages


def test_chats_are_written_in_the_models_format(llm: LLM) -> None:
    chat = [{"role": "user", "content": "the tree"}]
    one = llm.chat(chat, GREEDY)
    assert one[0].prompt == "<s><user>the tree</user><assistant>"
    assert one[0].prompt_token_ids.count(256) <= 1
    assert len(llm.chat([chat, chat], GREEDY)) == 2


def test_a_model_without_tokenizer_runs_token_ids(bare_llm: LLM) -> None:
    sample = bare_llm.generate([[1, 2, 3]], GREEDY)[0].outputs[0]
    assert sample.text is None and len(sample.token_ids) == 8
    with pytest.raises(ValueError, match="prompt must be token ids for a model without tokenizer"):
        bare_llm.generate("text")
    with pytest.raises(ValueError, match="stop must be None for a model without tokenizer"):
        bare_llm.generate([[1]], SamplingParams(stop="x"))
    with pytest.raises(ValueError, match="chat must be for a model with a tokenizer"):
        bare_llm.chat([{"role": "user", "content": "hi"}])


def test_a_list_of_params_is_as_long_as_that_of_prompts(llm: LLM) -> None:
    with pytest.raises(ValueError, match="params must be one or 2, got 1"):
        llm.generate(["a", "b"], [GREEDY])


def test_the_progress_bar_counts_requests(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate(["a", "b"], GREEDY)
    assert capsys.readouterr().err == ""
    llm.generate(["a", "b"], GREEDY, use_tqdm=True)
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_give_no_finite_logits_are_an_error(
    bare_model: Path, value: float, temperature: float
) -> None:
    decoder = load_model(bare_model, dtype=torch.float32, device="cpu")
    engine = Engine(decoder, None, EngineConfig(device="cpu", num_pages=20))
    head = decoder.embed_tokens if decoder.lm_head is None else decoder.lm_head
    params = SamplingParams(temperature=temperature, max_tokens=4, ignore_eos=True)
    engine.add_request([5, 6], params)
    assert engine.step()[0].outputs[0].token_ids
    with torch.no_grad():
        head.weight[7] = value
    engine.add_request([8, 9], params)
    message = r"^logits of request [01] in step 2 must be finite, as sound weights make them, got "
    with pytest.raises(ValueError, match=message):
        engine.step()
