"""A run of `bough generate`: from a prompts file, through the engine, to an output file."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bough.cli.outputs import (
    OrderedFile,
    OutputFile,
    ResumedFile,
    check_output_path,
    output_lines,
)
from bough.cli.prompts import BadLine, PromptLine, read_prompts
from bough.cli.report import Generation, Meter, ShownSample
from bough.engine.llm import LLM
from bough.engine.outputs import RequestOutput
from bough.engine.params import SamplingParams
from bough.engine.prompts import Prompt
from bough.expect import expect


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What a run is asked to do.

    Args:
        model: Hugging Face folder.
        prompts: file of one JSON object a line.
        output: file to make or, with `resume`, to go on with.
        params: how lines are sampled that do not say otherwise.
        engine: options of `LLM`.
        resume: whether to keep what is in `output`, and to append prompts as they are finished.
        num_shown: prompts of which the first sample is handed back to be shown.
    """

    model: Path
    prompts: Path
    output: Path
    params: SamplingParams
    engine: Mapping[str, Any]
    resume: bool = False
    num_shown: int = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prompt that the engine takes.

    Args:
        line: what was asked.
        prompt: the prompt as the engine takes it, with its token ids.
        max_tokens: most tokens that each sample may get.
    """

    line: PromptLine
    prompt: Prompt
    max_tokens: int


def run_generation(options: GenerateOptions) -> Generation:
    """Complete the prompts of a file; name the lines that cannot be run on stderr.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: an option or a file is not what it must be; the output is left as it was.
        ChildProcessError: one of several ranks ended.
    """
    path = check_output_path(options.output, options.prompts)
    lines, bad = read_prompts(options.prompts, options.params)
    file = _output_file(path, lines, options.resume)
    with Console(stderr=True).status(f"Loading {options.model}"):
        llm = LLM(options.model, **options.engine)
    jobs, refused = _check_lines(llm, [line for line in lines if line.index not in file.finished])
    bad = sorted([*bad, *refused], key=lambda line: line.index)
    for line in bad:
        print(f"bough: {options.prompts} {line}", file=sys.stderr)
    num_samples = sum(job.line.params.n for job in jobs)
    num_tokens = sum(job.line.params.n * job.max_tokens for job in jobs)
    shown: dict[int, ShownSample] = {}
    to_show = {job.line.index for job in jobs[: options.num_shown]}
    with (
        closing(llm),
        file.open([job.line.index for job in jobs]) as write,
        Meter(num_samples, num_tokens) as meter,
    ):
        for job, output in _complete(llm, jobs, meter):
            write(job.line.index, output_lines(job.line.index, output))
            if job.line.index in to_show:
                shown[job.line.index] = _shown_sample(llm, job, output)
    return Generation(
        stats=llm.stats,
        num_prompts=len(jobs),
        num_samples=num_samples,
        num_resumed=len(file.finished),
        num_bad=len(bad),
        shown=[sample for _, sample in sorted(shown.items())],
    )


def _output_file(path: Path, lines: Sequence[PromptLine], is_resumed: bool) -> OutputFile:
    if not is_resumed:
        return OrderedFile(path)
    return ResumedFile(path, {line.index: line.params.n for line in lines})


def _check_lines(llm: LLM, lines: Sequence[PromptLine]) -> tuple[list[Job], list[BadLine]]:
    """See which prompts the engine can serve, and tokenize them."""
    jobs: list[Job] = []
    bad: list[BadLine] = []
    for line in lines:
        try:
            read = llm.check_request(_engine_prompt(llm, line), line.params)
        except ValueError as error:
            bad.append(BadLine(index=line.index, reason=str(error)))
            continue
        room = llm.max_model_len - len(read.token_ids)
        max_tokens = room if line.params.max_tokens is None else min(room, line.params.max_tokens)
        prompt = {"prompt": read.text, "prompt_token_ids": read.token_ids}
        jobs.append(Job(line=line, prompt=prompt, max_tokens=max_tokens))
    return jobs, bad


def _engine_prompt(llm: LLM, line: PromptLine) -> Prompt:
    if line.kind != "messages":
        return {line.kind: line.prompt}
    expect(llm.tokenizer is not None, "messages", "for a model with a tokenizer", "one without")
    assert llm.tokenizer is not None
    text = llm.tokenizer.format_chat(line.prompt)
    token_ids = llm.tokenizer.encode(text, add_special_tokens=False)
    return {"prompt": text, "prompt_token_ids": token_ids}


def _complete(llm: LLM, jobs: Sequence[Job], meter: Meter) -> Iterator[tuple[Job, RequestOutput]]:
    """Run the jobs, and hand out each as it is finished.

    The engine is given as many at a time as keep it busy, for each sample that waits takes memory.
    """
    waiting = deque(jobs)
    running: dict[int, Job] = {}
    num_open = 0
    while waiting or running:
        while waiting and num_open < 2 * llm.config.max_num_seqs:
            job = waiting.popleft()
            running[llm.add_request(job.prompt, job.line.params)] = job
            num_open += job.line.params.n
        finished = [request.output() for request in llm.advance() if request.is_finished]
        for output in finished:
            job = running.pop(output.request_id)
            num_open -= job.line.params.n
            num_unused = sum(job.max_tokens - len(part.token_ids) for part in output.outputs)
            meter.finish(job.line.params.n, num_unused)
            yield job, output
        meter.update(llm.stats)


def _shown_sample(llm: LLM, job: Job, output: RequestOutput) -> ShownSample:
    sample = output.outputs[0]
    prompt, completion = output.prompt, sample.text
    if prompt is None and llm.tokenizer is not None:
        prompt = llm.tokenizer.decode(output.prompt_token_ids)
    return ShownSample(
        title=f"index {job.line.index}, sample {sample.index}: {len(sample.token_ids)} tokens, "
        f"ended by {sample.finish_reason}",
        prompt=str(output.prompt_token_ids) if prompt is None else prompt,
        completion=str(sample.token_ids) if completion is None else completion,
    )
