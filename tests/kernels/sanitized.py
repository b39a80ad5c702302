"""A step of each family of kernels on a small forest, to be run under compute-sanitizer.

Run as a script with a family's name: the tool follows a process of its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from bough.attend import attend
from bough.device import PAIRED_TILING, Device
from bough.kv import KV
from bough.plan import make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.forests import quantized
from tests.kernels.on_hopper import problem

# A root of several blocks above leaves of a few tokens, in tiles of all heights where they fit.
FOREST = "1,3,21|150,40,9"
FEW_QUERIES = "1,2|150,40"
# Spec, backend, whether rows are stored in fp8, and the forest.
FAMILIES = {
    "grouped": ("gqa:8:2:128", "gluon", False, FOREST),
    "tied": ("gta:8:2:128", "gluon", False, FOREST),
    "narrow": ("gla:16:1", "gluon", False, FOREST),
    "wide": ("mla:16", "gluon", False, FOREST),
    "grouped-fp8": ("gqa:8:2:128", "gluon", True, FOREST),
    "tied-fp8": ("gta:8:2:128", "gluon", True, FOREST),
    "latent-fp8": ("gla:128:2", "gluon", True, FOREST),
    "latent-few-fp8": ("gla:16:1", "gluon", True, FEW_QUERIES),
    "wide-few-fp8": ("mla:16", "gluon", True, FEW_QUERIES),
    "portable": ("gqa:8:2:128", "triton", False, FOREST),
    "portable-fp8": ("gqa:8:2:128", "triton", True, FOREST),
}


def main(family: str) -> None:
    """Take the same step twice and compare its bits."""
    text, backend, is_fp8, tree = FAMILIES[family]
    spec = AttentionSpec.parse(text)
    forest = forest_from_text(tree, shuffle_seed=0)
    tiling = PAIRED_TILING if backend == "gluon" else None
    device = replace(Device.named("h100"), paired_tiling=tiling)
    q, plain, _ = problem(forest, spec)
    kv: KV = quantized(plain, spec, forest) if is_fp8 else plain
    plan = make_plan(forest, spec, device)
    first, second = (attend(q, kv, plan, backend=backend)[0] for _ in range(2))
    torch.cuda.synchronize()
    assert torch.equal(first, second)
    print("the same bits twice")


if __name__ == "__main__":
    main(sys.argv[1])
