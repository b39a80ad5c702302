"""`bough generate`: samples for the prompts of a file."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from typer.models import OptionInfo

SAMPLING = "Sampling, for lines that do not say otherwise"
ENGINE = "Engine"


def _sampling(text: str) -> OptionInfo:
    return typer.Option(help=text, rich_help_panel=SAMPLING)


def _engine(text: str) -> OptionInfo:
    return typer.Option(help=text, rich_help_panel=ENGINE)


def generate(
    model: Annotated[Path, typer.Option(help="Hugging Face folder.")],
    prompts: Annotated[Path, typer.Option(help="File of one JSON object a line.")],
    output: Annotated[Path, typer.Option(help="JSONL file to make or to replace.")],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep the prompts that OUTPUT has; append as others are finished."
        ),
    ] = False,
    show: Annotated[
        int, typer.Option(min=0, help="Print the first sample of this many prompts.")
    ] = 0,
    n: Annotated[int, _sampling("Samples of a prompt.")] = 1,
    max_tokens: Annotated[int, _sampling("Most tokens of a sample.")] = 64,
    temperature: Annotated[float, _sampling("0 takes the most likely token.")] = 1.0,
    top_p: Annotated[float, _sampling("Keep the likeliest tokens up to this sum.")] = 1.0,
    top_k: Annotated[int, _sampling("Keep this many of the likeliest tokens; 0 for all.")] = 0,
    min_p: Annotated[float, _sampling("Keep tokens this likely against the likeliest.")] = 0.0,
    repetition_penalty: Annotated[float, _sampling("Against tokens seen; 1 for none.")] = 1.0,
    stop: Annotated[list[str] | None, _sampling("Text that ends a sample; repeatable.")] = None,
    ignore_eos: Annotated[
        bool,
        typer.Option("--ignore-eos", help="Go on after the end of text.", rich_help_panel=SAMPLING),
    ] = False,
    logprobs: Annotated[int | None, _sampling("Report this many of the likeliest tokens.")] = None,
    seed: Annotated[int, _sampling("Each line's own is made of this one and its index.")] = 0,
    device: Annotated[
        str | None, _engine("cpu or cuda; if not given, the GPU where there is one.")
    ] = None,
    tp: Annotated[int, _engine("Ranks that share the model, a GPU each; sizes are a rank's.")] = 1,
    dtype: Annotated[
        str | None, _engine("float32, bfloat16 or float16; if not given, the model's.")
    ] = None,
    kv_dtype: Annotated[
        str | None, _engine("fp8 for KV of one byte a number; if not given, as the weights.")
    ] = None,
    page_size: Annotated[int, _engine("Tokens in a page of KV.")] = 16,
    num_pages: Annotated[int | None, _engine("Pages of KV.")] = None,
    kv_memory: Annotated[
        str | None, _engine("Memory for KV in place of --num-pages, such as 4GB.")
    ] = None,
    max_num_seqs: Annotated[int, _engine("Most samples that run at once.")] = 256,
    max_num_batched_tokens: Annotated[int, _engine("Most tokens of one step.")] = 2048,
    max_model_len: Annotated[
        int | None, _engine("Most tokens of prompt and sample together.")
    ] = None,
    draft_tokens: Annotated[
        int, _engine("Guess this many tokens ahead, from a sample's own text, and check them.")
    ] = 0,
) -> None:
    """Complete the prompts of a file; what they share is computed, stored and read once.

    A line of PROMPTS is `{"prompt": "text"}`, `{"prompt_token_ids": [1, 2, 3]}` or
    `{"messages": [{"role": "user", "content": "text"}]}`. It may also set n, max_tokens,
    temperature, top_p, top_k, min_p, repetition_penalty, stop, stop_token_ids, ignore_eos,
    logprobs, skip_special_tokens and seed for itself. Blank lines are passed over.

    A line of OUTPUT is `{"index", "sample", "text", "token_ids", "finish_reason"}`: index counts
    the lines of PROMPTS from 0, blank ones included; text is null for a model without a
    tokenizer; with --logprobs there is also "logprobs", an object from token id to log
    probability for each token. Lines are in order of index and sample. OUTPUT appears when all is
    done; with --resume it grows by whole lines as prompts are finished, and is put in order at the
    end.

    Lines that cannot be run are named on stderr by their number, counted from 1; the others run,
    and the exit code is 2. The same seed gives the same samples in whatever batch, up to rounding:
    a near tie may fall the other way, rarely in float32, now and then in bfloat16. Prompts that
    are equal get different samples, unless their lines set the same seed.

    Examples:

        bough generate --model models/stdlib-gqa --prompts examples/demo.jsonl
            --output out/demo.jsonl --n 4 --temperature 0.6 --show 3

        bough generate --model DIR --prompts FILE.jsonl --output OUT.jsonl --temperature 0
            --kv-memory 8GB --resume
    """
    with _leaving_when_told(output, resume):
        from bough.cli.generation import GenerateOptions, run_generation
        from bough.cli.prompts import check_num_samples
        from bough.cli.report import count_of, parse_bytes, print_sample, report_lines
        from bough.engine.config import EngineConfig
        from bough.engine.params import SamplingParams
        from bough.engine.worker import serve
        from bough.parallel import launched_rank

        if tp > 1 and launched_rank() > 0:  # torchrun runs this command on every rank
            serve(EngineConfig(device=device).device_type)
            return
        params = SamplingParams(
            n=n,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            stop=stop or None,
            ignore_eos=ignore_eos,
            logprobs=logprobs,
            seed=seed,
        )
        check_num_samples(params)
        options = GenerateOptions(
            model=model,
            prompts=prompts,
            output=output,
            params=params,
            engine={
                "device": device,
                "tensor_parallel_size": tp,
                "dtype": dtype,
                "kv_dtype": kv_dtype,
                "page_size": page_size,
                "num_pages": num_pages,
                "kv_bytes": None if kv_memory is None else parse_bytes(kv_memory),
                "max_num_seqs": max_num_seqs,
                "max_num_batched_tokens": max_num_batched_tokens,
                "max_model_len": max_model_len,
                "num_draft_tokens": draft_tokens,
                "seed": seed,
            },
            resume=resume,
            num_shown=show,
        )
        done = run_generation(options)
    console = Console()
    for shown in done.shown:
        print_sample(console, shown)
    for line in report_lines(done):
        console.print(line, soft_wrap=True, highlight=False)
    if done.num_bad:
        lines = count_of(done.num_bad, "line")
        typer.echo(f"bough: {lines} of {prompts} could not be run", err=True)
        raise typer.Exit(2)


class _Terminated(BaseException):
    """SIGTERM, as KeyboardInterrupt is SIGINT."""


@contextmanager
def _leaving_when_told(output: Path, is_resumed: bool) -> Iterator[None]:
    """Clean up after Ctrl-C and after `kill`; the exit code is a shell's, 128 and the signal."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, _Terminated) as error:
        kept = "is kept; go on with the same command" if is_resumed else "was left as it was"
        typer.echo(f"bough: interrupted; {output} {kept}", err=True)
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
        raise typer.Exit(128 + number) from None
    finally:
        signal.signal(signal.SIGTERM, before)
