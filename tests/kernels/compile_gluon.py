"""Compile the Gluon kernels for Hopper without a GPU; print what ptxas says, as JSON.

Run as a script: Triton's interpreter, which other tests ask for, must be off in its process.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from bough.kernels.gluon.grouped.attend import attend_grouped
from bough.kernels.gluon.grouped.config import block_shape
from bough.kernels.gluon.latent.config import (
    BLOCK_KV,
    Kernel,
    choose_fp8_kernel,
    choose_kernel,
    latent_shape,
    merge_block,
)
from bough.kernels.gluon.latent.few import attend_few
from bough.kernels.gluon.latent.narrow import attend_narrow
from bough.kernels.gluon.latent.quantized import attend_quantized
from bough.kernels.gluon.latent.wide import attend_wide
from bough.kernels.gluon.quantized.attend import attend_quantized_heads
from bough.kernels.gluon.quantized.config import block_shape as quantized_block_shape
from bough.kernels.triton.arguments import AttentionShape, Plane, Queries, States, Stored
from bough.spec import NUM_SCALES, AttentionSpec
from tests.kernels.compile_sm90 import (
    assemble,
    compile_kernel,
    leaves_of,
    merge_source,
    tables_signature,
)

KERNELS = {
    "narrow": attend_narrow,
    "wide": attend_wide,
    "few": attend_few,
    "quantized": attend_quantized,
}
# Latents in fp8, the rows of their tallest tile, and whether there are drafts.
FP8_CASES = (
    ("gla:128:2", 128, False),
    ("gla:128:2", 64, False),
    ("gla:16:1", 32, False),
    ("gla:16:1", 32, True),
    ("gla:64:4:128:32", 16, False),
    ("mla:16", 16, False),
    ("mla:16", 32, True),
)
# Spec, whether pages hold whole blocks, dtype, whether there are sinks, and drafts.
CASES = (
    ("gla:128:2", True, "bf16", False, False),
    ("gla:16:1", False, "fp16", True, False),
    ("gla:64:4:128:32", True, "bf16", False, False),
    ("mla:128", True, "bf16", False, False),
    ("mla:16", True, "bf16", False, False),
    ("mla:32", False, "bf16", False, False),
    ("gla:128:2", False, "bf16", False, True),
    ("mla:128", True, "bf16", False, True),
    ("mla:32", False, "bf16", False, True),
)
# Spec, dtype, heights of the tiles, and tokens of a tall one.
GROUPED_CASES = (
    ("gqa:32:8:128", "bf16", (16, 64, 128), 0),
    ("gqa:32:8:128", "bf16", (16,), 0),
    ("gqa:32:8:128", "bf16", (16, 128), 4096),
    ("gqa:32:8:128", "bf16", (128,), 4096),
    ("gqa:32:8:128 window", "fp16", (16, 64, 128), 0),
    ("mha:16:64 sinks", "bf16", (16, 64, 128), 0),
    ("gqa:32:8:128 drafts", "bf16", (16, 64, 128), 0),
    ("gta:32:8:128", "bf16", (16, 64, 128), 0),
    ("gta:32:8:128", "bf16", (128,), 4096),
)
# Grouped heads in fp8: spec, and heights of the tiles.
FP8_GROUPED_CASES = (
    ("gqa:32:8:128", (16,)),
    ("gqa:32:8:128 drafts", (16,)),
    ("gqa:32:8:128", (128,)),
    ("gqa:32:8:128", (16, 64, 128)),
    ("gqa:32:8:128 window", (16, 64, 128)),
    ("gqa:32:8:128 softcap", (16, 64, 128)),
    ("mha:16:64 sinks", (16, 64, 128)),
    ("gta:32:8:128", (16,)),
    ("gta:32:8:128", (128,)),
    ("gta:32:8:128", (16, 64, 128)),
    ("gta:16:16:128", (16, 64, 128)),
    ("gta:32:4:128", (16, 64, 128)),
    ("gta:16:4:64", (16, 64, 128)),
)


def boxes(columns: int, dtype: str) -> str:
    """The type of a tensor descriptor, as Triton writes it."""
    layout = gl.NVMMASharedLayout(
        swizzle_byte_width=min(128, 2 * columns), element_bitwidth=16, rank=2
    )
    return f"tensordesc<{dtype}[{BLOCK_KV}, {columns}],{layout!r}>"


def compile_latent(
    text: str, has_boxes: bool, dtype: str, has_sinks: bool, has_drafts: bool
) -> Any:
    """Compile as a launch would that finds every pointer and stride divisible by 16."""
    spec = replace(AttentionSpec.parse(text), sinks=has_sinks)
    page_size = BLOCK_KV if has_boxes else 1
    rows = {
        "plane": Plane(f"*{dtype}", "i32", "i32", "i32"),
        "state_boxes": boxes(min(256, spec.v_dim), dtype),
        "rope_boxes": boxes(spec.rope_dim, dtype),
    }
    return compile_chosen(spec, choose_kernel(spec), rows, dtype, page_size, has_drafts)


def compile_fp8(text: str, most_rows: int, has_drafts: bool = False) -> Any:
    """Compile the kernel of latents in fp8, for pages of single slots."""
    spec = AttentionSpec.parse(text)
    chosen = choose_fp8_kernel(spec, most_rows)
    names = ("fp8e4nv", "i16", "bf16", "i32")
    stored = Stored(*(Plane(f"*{name}", "i32", "i32", "i32") for name in names))
    rows: dict[str, Any] = {"stored": stored}
    if chosen.name == "quantized":
        rows["NUM_STAGED"] = chosen.num_staged
    return compile_chosen(spec, chosen, rows, "bf16", 1, has_drafts)


def compile_chosen(
    spec: AttentionSpec,
    chosen: Kernel,
    rows: dict[str, Any],
    dtype: str,
    page_size: int,
    has_drafts: bool,
) -> Any:
    """Compile a kernel over some rows."""
    arguments: dict[str, Any] = {
        **rows,
        "queries": Queries(f"*{dtype}", "i32", "i32"),
        "sinks_ptr": "*fp32",
        "tables": tables_signature(has_drafts),
        "states": States(f"*{dtype}", "*fp32", "*fp32", "*fp32"),
        "scale": "fp32",
        "SHAPE": latent_shape(
            spec, chosen, page_size=page_size, is_contiguous=True, most_rows=2 * chosen.block_rows
        ),
        "REGISTERS": chosen.registers,
    }
    return compile_gluon(KERNELS[chosen.name], arguments, {})


def compile_grouped(text: str, dtype: str, heights: tuple[int, ...], tall_tokens: int) -> Any:
    """The same over grouped heads, for a plan of tiles of some heights."""
    spec, shape, arguments = grouped_arguments(text, dtype)
    block = block_shape(spec, frozenset(heights), tall_tokens)
    rows = {name: Plane(f"*{dtype}", "i32", "i32", "i32") for name in ("key", "value")}
    arguments |= {**rows, "SHAPE": shape, "BLOCK": block}
    return compile_gluon(attend_grouped, arguments, {"maxnreg": block.ENTRY_REGISTERS})


def compile_fp8_grouped(text: str, heights: tuple[int, ...]) -> Any:
    """The same over grouped heads in fp8."""
    spec, shape, arguments = grouped_arguments(text, "bf16")
    block = quantized_block_shape(spec, frozenset(heights))
    names = ("bf16" if spec.tied else "fp8e4nv", "fp8e4nv", "bf16", "i32")
    stored = Stored(*(Plane(f"*{name}", "i32", "i32", "i32") for name in names))
    value_scale = 0 if spec.tied else NUM_SCALES // 2
    shape = shape._replace(IS_FP8=True, VALUE_SCALE=value_scale)
    arguments |= {"kv": stored, "SHAPE": shape, "BLOCK": block}
    return compile_gluon(attend_quantized_heads, arguments, {"maxnreg": block.ENTRY_REGISTERS})


def grouped_arguments(
    text: str, dtype: str
) -> tuple[AttentionSpec, AttentionShape, dict[str, Any]]:
    """A spec, of which a word after it changes something, and what both kernels take."""
    text, _, change = text.partition(" ")
    fields = {"sinks": {"sinks": True}, "window": {"window": 128}, "softcap": {"softcap": 30.0}}
    changes: dict[str, Any] = fields.get(change, {})
    spec = replace(AttentionSpec.parse(text), **changes)
    shape = AttentionShape(
        NUM_KV_HEADS=spec.num_kv_heads,
        GROUP_SIZE=spec.group_size,
        NOPE_DIM=spec.nope_dim,
        ROPE_DIM=spec.rope_dim if spec.tied else 0,
        V_DIM=spec.v_dim,
        WINDOW=spec.window or 0,
        SOFTCAP=spec.softcap or 0.0,
        HAS_SINKS=spec.sinks,
        HAS_DRAFTS=change == "drafts",
        PAGE_SIZE=16,
        IS_FP8=False,
        VALUE_SCALE=0,
    )
    arguments = {
        "queries": Queries(f"*{dtype}", "i32", "i32"),
        "sinks_ptr": "*fp32",
        "tables": tables_signature(change == "drafts"),
        "states": States(f"*{dtype}", "*fp32", "*fp32", "*fp32"),
        "scale": "fp32",
    }
    return spec, shape, arguments


def compile_gluon(kernel: Any, arguments: dict[str, Any], options: dict[str, Any]) -> Any:
    """Compile for a card of compute capability 9, as a launch on one would."""
    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        kind = arguments[name]
        signature[name] = "constexpr" if name.isupper() else kind
        if name.isupper():
            constants[(index,)] = kind
            continue
        for path, leaf in leaves_of(kind, (index,)):
            if leaf == "constexpr":
                constants[path] = None
            elif leaf == "i32" or leaf.startswith("*"):
                attributes[path] = [["tt.divisibility", 16]]
    source = GluonASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    target = GPUTarget("cuda", 90, 32)
    return triton.compile(source, target=target, options={"num_warps": 4, **options})


def compile_merge(text: str, most_partials: int) -> Any:
    """Compile the merge at the blocks that latents choose."""
    kernel, arguments, options = merge_source(text, most_partials)
    block = merge_block(most_partials, 1, AttentionSpec.parse(text).v_dim)
    arguments["BLOCK"] = block
    return compile_kernel(kernel, arguments, options)


def main() -> None:
    compiled = {
        " ".join(map(str, case[:-1])) + " drafts" * case[-1]: compile_latent(*case)
        for case in CASES
    }
    for case in FP8_CASES:
        compiled[f"{case[0]} {case[1]} fp8" + " drafts" * case[2]] = compile_fp8(*case)
    for case in GROUPED_CASES:
        compiled[" ".join(map(str, case))] = compile_grouped(*case)
    for text, heights in FP8_GROUPED_CASES:
        compiled[f"{text} fp8 {heights}"] = compile_fp8_grouped(text, heights)
    for most in (2, 12, 128):
        compiled[f"merge of {most}"] = compile_merge("mla:128", most)
    for text, most in (("gqa:32:8:128", 8), ("gqa:32:8:256", 8)):
        source = merge_source(text, most, is_early=True)
        compiled[f"early merge {text} of {most}"] = compile_kernel(*source)
    with ThreadPoolExecutor(2) as pool:
        figures = dict(zip(compiled, pool.map(assemble, compiled.values()), strict=True))
    json.dump(figures, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
