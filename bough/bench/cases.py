"""Which forests are measured: a case is a forest and how it is stored, on one line of text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bough.expect import expect
from bough.forest import Forest
from bough.workloads import beam_tree, forest_from_text

# The order in which shuffled pages are scattered.
SHUFFLE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """A forest to measure.

    Args:
        workload: `nodes per level | tokens per node`, as `bough.workloads` reads it.
        is_shuffled: whether the pages are scattered over the pool; else they follow each other,
            node by node, as an empty pool allocates them.
        query_len: the newest tokens of each request that are queries.
        page_size: slots per page; the run's when None.
        spec: the attention variant, such as `mha:32:128`; the run's when None.
        is_fp8: whether ours reads its KV in fp8; others read it in the run's dtype.
        has_drafts: whether all queries of a request but the first are a draft tree.
    """

    workload: str
    is_shuffled: bool = False
    query_len: int = 1
    page_size: int | None = None
    spec: str | None = None
    is_fp8: bool = False
    has_drafts: bool = False

    @classmethod
    def parse(cls, text: str, query_len: int = 1) -> Case:
        """Read a workload and the words behind it.

        They are `shuffled`, `drafts`, `kv=fp8`, `queries=2`, `page=1` and `spec=..`.

        Args:
            text: such as `1,16|4096,128 page=1 spec=mha:32:128 shuffled`, words in any order.
            query_len: queries of each request where the text says nothing.

        Raises:
            ValueError: a word is unknown, or its number cannot be read.
        """
        words = text.split()
        at = next((at for at, word in enumerate(words) if _is_option(word)), len(words))
        options: dict[str, str] = {}
        for word in words[at:]:
            name, _, value = word.partition("=")
            expect(_is_option(word), "case", "a forest, then known words", repr(text))
            options[name] = value
        return cls(
            workload=" ".join(words[:at]),
            is_shuffled="shuffled" in options,
            query_len=_number(options.get("queries"), text) or query_len,
            page_size=_number(options.get("page"), text),
            spec=options.get("spec"),
            is_fp8="kv" in options,
            has_drafts="drafts" in options,
        )

    @property
    def name(self) -> str:
        """The text that `parse` reads back, the count of queries only where it is not one."""
        words = [self.workload]
        words += [f"queries={self.query_len}"] * (self.query_len > 1)
        words += [f"page={self.page_size}"] * (self.page_size is not None)
        words += [f"spec={self.spec}"] * (self.spec is not None)
        words += ["kv=fp8"] * self.is_fp8
        words += ["drafts"] * self.has_drafts
        return " ".join([*words, *["shuffled"] * self.is_shuffled])

    def forest(self, page_size: int) -> Forest:
        """Build the forest.

        Args:
            page_size: slots per page; the case's own comes before it.

        Raises:
            ValueError: the workload cannot be read.
        """
        seed = SHUFFLE_SEED if self.is_shuffled else None
        forest = forest_from_text(
            self.workload,
            self.page_size or page_size,
            query_len=self.query_len,
            shuffle_seed=seed,
        )
        if not self.has_drafts:
            return forest
        return forest.with_drafts([beam_tree(self.query_len - 1)] * forest.num_requests)


def parse_cases(texts: Iterable[str], *, query_len: int, is_shuffled: bool) -> list[Case]:
    """Read cases, each once.

    Args:
        texts: as `Case.parse` reads them.
        query_len: queries of each request where a text says nothing.
        is_shuffled: whether each case is also measured with its pages shuffled.

    Raises:
        ValueError: a text cannot be read.
    """
    read = [Case.parse(text, query_len) for text in texts]
    if is_shuffled:
        read = [replace(case, is_shuffled=later) for case in read for later in (False, True)]
    return list(dict.fromkeys(read))


def _is_option(word: str) -> bool:
    is_word = word in ("shuffled", "drafts", "kv=fp8")
    return is_word or word.partition("=")[0] in ("queries", "page", "spec")


def _number(text: str | None, case: str) -> int | None:
    if text is None:
        return None
    expect(text.isdecimal() and int(text) >= 1, "case", "a forest and numbers of at least 1", case)
    return int(text)
