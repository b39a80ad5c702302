"""Which forests are measured: named suites, and cases written by hand."""

from __future__ import annotations

from dataclasses import dataclass

from bough.forest import Forest
from bough.workloads import SUITES as FORESTS
from bough.workloads import forest_from_text

# The order in which shuffled pages are scattered.
_SHUFFLE_SEED = 0
_SHUFFLED = " shuffled"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A forest to measure.

    Args:
        workload: `nodes per level | tokens per node`, as `bough.workloads` reads it.
        is_shuffled: whether the pages are scattered over the pool; else they follow each other,
            node by node, as an empty pool allocates them.
        query_len: the newest tokens of each request that are queries.
    """

    workload: str
    is_shuffled: bool = False
    query_len: int = 1

    @classmethod
    def parse(cls, text: str, query_len: int = 1) -> Case:
        """Read a workload, with ` shuffled` behind it where its pages are."""
        workload = text.removesuffix(_SHUFFLED)
        return cls(workload=workload, is_shuffled=workload != text, query_len=query_len)

    @property
    def name(self) -> str:
        return self.workload + _SHUFFLED * self.is_shuffled

    def forest(self, page_size: int) -> Forest:
        """Build the forest.

        Raises:
            ValueError: the workload cannot be read.
        """
        seed = _SHUFFLE_SEED if self.is_shuffled else None
        return forest_from_text(
            self.workload, page_size, query_len=self.query_len, shuffle_seed=seed
        )


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
SUITES: dict[str, tuple[str, ...]] = {
    "cpu": (
        "1,16|8192,128",
        "16|2048",
        "16|2048 shuffled",
        "1,4,16|2048,512,128",
        "1,8|4096,512",
        "1,64|1024,32",
        "1,8|4000,16",
        "1|4096",
    ),
    **FORESTS,
    "rollouts": _ROLLOUTS,
    "trees": _TREES,
}


def read_cases(
    suite: str | None, workloads: list[str], *, query_len: int, is_shuffled: bool
) -> list[Case]:
    """Collect a suite's cases and those written by hand, each once.

    Args:
        suite: a key of `SUITES`, or None.
        workloads: further cases, as `Case.parse` reads them.
        query_len: queries of each request.
        is_shuffled: whether each case is also measured with its pages shuffled.

    Raises:
        ValueError: no suite has that name.
    """
    if suite is not None and suite not in SUITES:
        raise ValueError(f"suite must be one of {', '.join(SUITES)}, got {suite!r}")
    texts = [*(SUITES[suite] if suite else ()), *workloads]
    if is_shuffled:
        plain = [text.removesuffix(_SHUFFLED) for text in texts]
        texts = [version for text in plain for version in (text, text + _SHUFFLED)]
    return [Case.parse(text, query_len) for text in dict.fromkeys(texts)]
