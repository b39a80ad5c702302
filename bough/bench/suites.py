"""The named suites of cases that `bough bench` measures."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from math import gcd

from bough.bench.cases import Case, parse_cases
from bough.expect import expect
from bough.workloads import SUITES as FORESTS

# Of a run where nothing is said.
_PAGE_SIZE = 16
# P prompts with n samples each.
_ROLLOUTS = ("8,256|4096,512", "32,256|2048,512", "16,1024|512,128")
# Trees on which peers are measured one by one: deep, wide, ragged, and nothing shared.
_TREES = (
    "1,8|4096,512",
    "1,16|120000,2048",
    "1,64|120000,2048",
    "1,2,4,8,16,32|1024",
    "1,256|256,32",
    "1,1024|2048,32",
    "1,2,64|1024,256,256",
    "1,8,512|32,2048,256",
    "1,4,16,512|1024,256,128,32",
    "1,4,16,64,256,1024|256,32,256,64,32,256",
    "8,16,32,256|512,512,256,32",
    "256|1024",
    "256|4096",
    "1,8|4000,16",
)
# The page size must not matter: scattered pages, so that each costs its own lookup.
_PAGES = ("1,16|120000,2048", "1,1024|2048,32", "1,8|4096,512", "256|1024")
# A tile reads a node once for all its rows. Under GQA a group's heads fill those rows, so the
# widest sharing shows where every query head has a stored head of its own.
_WIDE = ("1,128|65536,16", "1,128|131072,16", "1,256|65536,16", "1,1024|16384,16")
_WIDE_SPEC = "mha:32:128"
# Decode over latents: the second paper's batch, two more of equal tokens of which one is lopsided,
# and the batch on scattered pages, large and of single slots.
_LATENTS = ("gla:128:2", "mla:128")
_BATCH = "128|8192"
_LATENT = (
    *(f"{_BATCH} page=64 queries={count}" for count in (1, 2, 4)),
    "16|5056 page=64",
    "15|1024+1|65536 page=64",
    *(f"{_BATCH} page={size} queries={count} shuffled" for count in (1, 2) for size in (64, 1)),
)
_ALONE = ("1|8192 page=64", "1|131072 page=64")
# What one rank of eight holds.
_RANKS = ("gla:16:1", "mla:16")
_RANK = tuple(f"{_BATCH} page=64 queries={count}" for count in (1, 2))
_LATENT_TREES = tuple(
    f"{text} page=64"
    for text in ("1,16|120000,2048", "1,64|120000,2048", "1,256|8192,256", "32,256|2048,512")
)


def _for_each(specs: Iterable[str], texts: Iterable[str]) -> tuple[str, ...]:
    """Write the same cases for several specs, spec by spec."""
    return tuple(f"{text} spec={spec}" for spec, text in product(specs, texts))


# Every kind of stored row in fp8, where memory is the limit in 16 bits: alone and shared, grouped,
# tied, and what one rank of eight holds of latents.
_FP8 = (
    *(f"{batch}|4096" for batch in (64, 128, 256)),
    "256|1024",
    "256|1024 page=1 shuffled",
    *(f"1,{batch}|120000,2048" for batch in (16, 64)),
    "1,256|256,32",
    "1,4,16,512|1024,256,128,32",
    *_for_each(["gta:32:8:128"], ["128|8192", "1,64|120000,2048"]),
    *_for_each([*_RANKS, "gla:128:2"], [f"{_BATCH} page=64"]),
)
# A step without drafts, then 16 newest tokens in a row, then trees below the newest token.
_DRAFT_STEPS = ("", " queries=16", *(f" queries={num} drafts" for num in (16, 32, 64)))
_DRAFTS = tuple(
    f"{text}{step} page=64" for text, step in product(("1|8192", "8|8192", "64|8192"), _DRAFT_STEPS)
)
_CPU = (
    "1,16|8192,128",
    "16|2048",
    "16|2048 shuffled",
    "1,4,16|2048,512,128",
    "1,8|4096,512",
    "1,64|1024,32",
    "1,8|4000,16",
    "1|4096",
)
# Tied against untied keys and values of as many stored heads.
_TIED = ("128|8192", "64|8192", "128|2048")


def _in_whole_pages(text: str) -> str:
    """Give a forest pages that its inner nodes fill: peers read page tables, which need that."""
    *inner, _ = (int(tokens) for tokens in text.partition("|")[2].split(","))
    page_size = gcd(_PAGE_SIZE, *inner)
    return text if page_size == _PAGE_SIZE else f"{text} page={page_size}"


SUITES: dict[str, tuple[str, ...]] = {
    "cpu": _CPU,
    **{name: tuple(map(_in_whole_pages, texts)) for name, texts in FORESTS.items()},
    "no-loss": (
        *FORESTS["no-loss"],
        *(f"1,128|{prefix},3" for prefix in (512, 1024, 2048)),
        "1,8|4000,16 spec=gqa:8:1:128",
        *(f"{text} page={size} shuffled" for text in _PAGES for size in (16, 1)),
    ),
    "rollouts": _ROLLOUTS,
    "trees": _TREES,
    "wide": _for_each([_WIDE_SPEC], _WIDE),
    "latent": (*_for_each(_LATENTS, _LATENT), *_for_each(["mla:32"], _ALONE)),
    "latent-ranks": _for_each(_RANKS, _RANK),
    "latent-trees": _for_each([*_LATENTS, "gta:32:8:128"], _LATENT_TREES),
    "tied": _for_each(["gta:32:8:128", "gqa:32:8:128"], _TIED),
    "fp8": tuple(f"{text} kv=fp8" for text in _FP8),
    "drafts": _for_each(["gqa:32:8:128", "mla:128"], _DRAFTS),
    # A chunk of new tokens: alone, below a prefix, and four below one prefix.
    "prefill": tuple(
        f"{text} queries=2048" for text in ("1|2048", "1|34816", "1,1|30720,2048", "1,4|8192,2048")
    ),
}
# Rebuilt from a file of requests, not from names.
TRACE = "trace"


def read_cases(
    suite: str | None, workloads: list[str], *, query_len: int, is_shuffled: bool
) -> list[Case]:
    """Collect a suite's cases and those written by hand, each once.

    Args:
        suite: a key of `SUITES`, or None.
        workloads: further cases, as `Case.parse` reads them.
        query_len: queries of each request where a case says nothing.
        is_shuffled: whether each case is also measured with its pages shuffled.

    Raises:
        ValueError: no suite has that name, or a case cannot be read.
    """
    names = ", ".join([*SUITES, TRACE])
    expect(suite is None or suite in SUITES, "suite", f"one of {names}", repr(suite))
    texts = [*(SUITES[suite] if suite else ()), *workloads]
    return parse_cases(texts, query_len=query_len, is_shuffled=is_shuffled)
