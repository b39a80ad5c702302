"""Compile the Triton kernels for Hopper without a GPU and print what ptxas says of each, as JSON.

Run as a script: Triton's interpreter, which other tests ask for, must be off in its process.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bough.device import Device
from bough.kernels.triton.arguments import (
    AttentionShape,
    Plane,
    Queries,
    States,
    Stored,
    TileTables,
)
from bough.kernels.triton.attend_tiles import attend_tiles
from bough.kernels.triton.config import merge_block, tile_config
from bough.kernels.triton.join_states import join_states
from bough.kernels.triton.merge_states import merge_states
from bough.kernels.triton.padding import padded
from bough.plan.cost import CostModel
from bough.spec import NUM_SCALES, AttentionSpec
from tests.kernels.machine_code import find_stale_pairs, find_unwritten

SPECS = (
    "gqa:32:8:64",
    "gqa:32:8:80",
    "gqa:32:8:96",
    "gqa:32:8:128",
    "mha:16:192",
    "gqa:16:8:256",
    "mqa:64:128",
    "gta:32:8:128",
    "gla:32:2",
    "mla:16",
)
# Each of these stands for others in fp8.
FP8_SPECS = (
    "gqa:32:8:80",
    "gqa:32:8:128",
    "gqa:16:8:256",
    "gta:32:8:128",
    "gla:32:2",
    "gla:64:4:128:32",
    "mla:16",
)
ITEMSIZE = {"bf16": 2, "fp32": 4, "fp8e4nv": 1}


def tables_signature(has_drafts: bool) -> TileTables:
    hidden = "*i64" if has_drafts else "constexpr"
    names = {"segment_page_start": "*i64", "query_hidden": hidden}
    return TileTables(*(names.get(name, "*i32") for name in TileTables._fields))


def attend_source(
    text: str, dtype: str, has_drafts: bool
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    spec, is_fp8 = AttentionSpec.parse(text), dtype == "fp8e4nv"
    cost = CostModel(spec=spec, device=Device.named("h100"), itemsize=ITEMSIZE[dtype])
    most_rows = cost.tile_heights[-1]
    shape = tile_config(spec, most_rows, ITEMSIZE[dtype], has_drafts=has_drafts)
    names = ("fp8e4nv", "i16", "bf16", "i32") if is_fp8 else (dtype,) * 4
    signature = {
        "queries": Queries("*fp16" if is_fp8 else f"*{dtype}", "i32", "i32"),
        "kv": Stored(*(Plane(f"*{name}", "i32", "i32", "i32") for name in names)),
        "sinks_ptr": "*fp32",
        "tables": tables_signature(has_drafts),
        "states": States("*bf16" if is_fp8 else f"*{dtype}", "*fp32", "*fp32", "*fp32"),
        "scale": "fp32",
    }
    constants = {
        "SHAPE": AttentionShape(
            NUM_KV_HEADS=spec.num_kv_heads,
            GROUP_SIZE=spec.group_size,
            NOPE_DIM=spec.nope_dim,
            ROPE_DIM=spec.rope_dim,
            V_DIM=spec.v_dim,
            WINDOW=0,
            SOFTCAP=0.0,
            HAS_SINKS=False,
            HAS_DRAFTS=has_drafts,
            PAGE_SIZE=16,
            IS_FP8=is_fp8,
            VALUE_SCALE=0 if spec.tied else NUM_SCALES // 2,
        ),
        "SMALL": shape.small,
        "BLOCK": shape.block,
        "MOST_HEADS": cost.least_heads,
    }
    options = {"num_warps": shape.num_warps, "maxnreg": shape.max_registers}
    return attend_tiles, {**signature, **constants}, options


def merge_source(
    text: str, most: int, *, is_early: bool = False
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    spec, dtype = AttentionSpec.parse(text), "bf16"
    block = merge_block(most, spec.v_dim)
    arguments = {
        "states": States(f"*{dtype}", "*fp32", "*fp32", "*fp32"),
        "sinks_ptr": "*fp32",
        "merge_indptr_ptr": "*i32",
        "merge_indices_ptr": "*i32",
        "query_num_tiles_ptr": "*i32",
        "NUM_Q_HEADS": spec.num_q_heads,
        "V_DIM": spec.v_dim,
        "HAS_SINKS": False,
        "BLOCK": block,
        "ALL_COLUMNS": padded(spec.v_dim),
        "IS_EARLY": is_early,
    }
    return merge_states, arguments, {"num_warps": 4}


def leaves_of(kind: Any, path: tuple[int, ...]) -> list[tuple[tuple[int, ...], str]]:
    """Types of an argument's numbers and pointers, with their places in it."""
    if not isinstance(kind, tuple):
        return [(path, kind)]
    return [leaf for at, part in enumerate(kind) for leaf in leaves_of(part, (*path, at))]


def join_source() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    states = {}
    for state in ("above", "below"):
        for part, kind in (("out", "*bf16"), ("lse", "*fp32")):
            states[f"{state}_{part}"] = kind
            states |= {f"{state}_{part}_stride_{axis}": "i32" for axis in ("query", "head")}
    constants = {"NUM_HEADS": 128, "DIM": 128, "BLOCK_HEADS": 8, "BLOCK_DIM": 128}
    return join_states, {**states, "out": "*bf16", "lse": "*fp32", **constants}, {"num_warps": 4}


def compile_kernel(kernel: Any, arguments: dict[str, Any], options: dict[str, Any]) -> Any:
    """Compile as a launch would that finds every pointer and stride divisible by 16."""
    signature, constants, attributes = {}, {}, {}
    for index, (name, kind) in enumerate(arguments.items()):
        if name.isupper():
            signature[name] = "constexpr"
            constants[(index,)] = kind
        else:
            signature[name] = kind
            for path, leaf in leaves_of(kind, (index,)):
                if leaf == "constexpr":
                    constants[path] = None
                elif leaf == "i32" or leaf.startswith("*"):
                    attributes[path] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def assemble(compiled: Any) -> dict[str, int]:
    """Registers, spilled bytes and shared memory of a compiled kernel, and what it reads before
    anything has written it: uniform registers, and pairs of e4m3 numbers."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(compiled.asm["ptx"])
        said = _run("ptxas", "-v", "--gpu-name", "sm_90a", source, "-o", binary).stderr
        machine_code = _run("nvdisasm", "-c", binary).stdout
    return {
        "registers": int(re.findall(r"Used (\d+) registers", said)[0]),
        "spilled": sum(int(size) for size in re.findall(r"(\d+) bytes spill", said)),
        "shared": compiled.metadata.shared,
        "unwritten": len(find_unwritten(machine_code)),
        "stale": len(find_stale_pairs(machine_code)),
    }


def _run(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = Path(triton.__file__).parent / "backends/nvidia/bin" / tool
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True)


def main() -> None:
    jobs = {}
    for text in SPECS:
        for dtype in ("bf16", "fp32"):
            jobs[f"attend_tiles {text} {dtype}"] = attend_source(text, dtype, has_drafts=False)
    for text in FP8_SPECS:
        jobs[f"attend_tiles {text} fp8"] = attend_source(text, "fp8e4nv", has_drafts=False)
    for text in ("gqa:32:8:128", "gta:32:8:128", "gla:32:2", "mla:16"):
        jobs[f"attend_tiles {text} drafts"] = attend_source(text, "bf16", has_drafts=True)
        jobs[f"attend_tiles {text} fp8 drafts"] = attend_source(text, "fp8e4nv", has_drafts=True)
    for text, most in (("gqa:32:8:128", 2), ("gqa:32:8:128", 40), ("mla:16", 40)):
        jobs[f"merge_states {text} of {most}"] = merge_source(text, most)
    jobs["join_states"] = join_source()
    compiled = {name: compile_kernel(*job) for name, job in jobs.items()}
    with ThreadPoolExecutor(2) as pool:
        figures = dict(zip(compiled, pool.map(assemble, compiled.values()), strict=True))
    json.dump(figures, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
