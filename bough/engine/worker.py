"""Models on several ranks: rank 0 has them loaded, the others serve it with their share."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass, replace
from typing import NoReturn

from bough.engine.config import EngineConfig
from bough.engine.executor import Executor, make_pool
from bough.engine.steps import StepReceiver
from bough.models.config import load_config
from bough.models.decoder import Decoder
from bough.models.load import load_model
from bough.models.share import share_config
from bough.parallel import LOST_OTHERS, Ranks, join_ranks, start_ranks


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What rank 0 lets the others load.

    Args:
        model: Hugging Face folder.
        config: the engine's settings.
    """

    model: str
    config: EngineConfig


def load_on_ranks(
    model: str | os.PathLike[str], config: EngineConfig
) -> tuple[Decoder, EngineConfig]:
    """Load a model on as many ranks as the config says, this one being rank 0.

    Returns:
        rank 0's share, whose `ranks` are to be closed in the end; and the config, in which the
        pages are settled where there are several ranks.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        ValueError: a file or a setting is not what it must be, or the model cannot be split so.
        ChildProcessError: a rank ended.
    """
    size, device_type = config.tensor_parallel_size, config.device_type
    if size > 1:
        share_config(load_config(model), size)  # refused before anything is started
    entry = f"from bough.engine.worker import serve; serve({device_type!r})"
    ranks = start_ranks(size, device_type, entry)
    assignment = Assignment(model=os.fspath(model), config=config)
    try:
        ranks.send(assignment)
        return load_share(assignment, ranks)
    except BaseException:
        ranks.abandon()
        raise


def load_share(assignment: Assignment, ranks: Ranks) -> tuple[Decoder, EngineConfig]:
    """Load this rank's share; settle on as many pages of KV as every rank has room for.

    Returns:
        the share; and the config, in which the pages are settled where there are several ranks.

    Raises:
        OSError, ValueError: on every rank, where one of them could not load its share.
        ChildProcessError: a rank is gone.
    """
    config = assignment.config
    device = config.chosen_device.torch_device
    if ranks.size == 1:
        return load_model(assignment.model, dtype=config.chosen_dtype, device=device), config
    decoder, num_pages = None, 0
    failure: OSError | ValueError | None = None
    try:
        decoder = load_model(
            assignment.model, dtype=config.chosen_dtype, device=device, ranks=ranks
        )
        num_pages = config.pool_pages(decoder.config, decoder.embed_tokens.weight.dtype)
    except (OSError, ValueError) as error:
        failure = error
    everyone = ranks.gather((num_pages, failure))
    for found in (failure, *(theirs for _, theirs in everyone)):
        if found is not None:
            raise found
    assert decoder is not None
    least = min(num_pages for num_pages, _ in everyone)
    return decoder, replace(config, num_pages=least, kv_bytes=None)


def serve(device_type: str) -> None:
    """Be one of the other ranks, as a process of its own, until rank 0 ends the run.

    What goes wrong in loading is for rank 0 to tell. A rank that loses another ends at once.

    Args:
        device_type: `cuda` or `cpu`.
    """
    try:
        ranks = join_ranks(device_type)
        run_steps(ranks.receive(), ranks)
        ranks.close()
    except ChildProcessError:
        _leave(LOST_OTHERS)
    except (OSError, ValueError):
        _leave(1)
    except Exception:
        traceback.print_exc()
        _leave(1)


def _leave(exit_code: int) -> NoReturn:
    """End at once: an orderly exit would wait for a GPU that waits for another one's sum."""
    sys.stderr.flush()
    os._exit(exit_code)


def run_steps(assignment: Assignment, ranks: Ranks) -> None:
    """Load this rank's share of a model and run its share of every step that rank 0 sends.

    Raises:
        OSError, ValueError: the model cannot be loaded; every rank knows.
        ChildProcessError: a rank is gone.
    """
    decoder, config = load_share(assignment, ranks)
    follow_steps(Executor(decoder, make_pool(decoder, config), config.chosen_device), ranks)


def follow_steps(executor: Executor, ranks: Ranks) -> None:
    """Run this rank's share of every step that rank 0 sends, until it sends None.

    Raises:
        ChildProcessError: a rank is gone.
    """
    receiver = StepReceiver(ranks)
    while (step := receiver.receive()) is not None:
        executor.run(step)
