"""What can be read off machine code as `nvdisasm` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_INSTRUCTION = re.compile(r"(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)\s+(.*?);")
_UNIFORM = re.compile(r"\bUR(\d+)\b")
# Instructions whose first operand, where it is a uniform register, is written.
_WRITERS = ("U", "R2UR", "S2UR", "CS2UR", "REDUX", "VOTEU", "LDCU")


def find_unwritten(machine_code: str) -> list[str]:
    """List uniform registers whose first mention reads them.

    ptxas has been seen to lose the instruction that writes one of the descriptors of a product.
    """
    mentioned: set[int] = set()
    unwritten = []
    for name, operands in _instructions(machine_code):
        target, _, sources = operands.partition(",")
        is_writer = name.startswith(_WRITERS) and target.strip().startswith("UR")
        for register in _reads(sources if is_writer else operands):
            if register not in mentioned:
                unwritten.append(f"UR{register}")
                mentioned.add(register)
        if is_writer:
            width = 2 if ".64" in name or ".WIDE" in name else 1
            first = int(_UNIFORM.findall(target)[0])
            mentioned.update(range(first, first + width))
    return unwritten


def find_stale_pairs(machine_code: str) -> list[str]:
    """List pairs of e4m3 numbers that are turned to fp16 out of a register which nothing before has
    written, or which comes from where registers are spilled.

    ptxas has been seen to keep a pair that is both stored and turned again in a copy which it makes
    too late: the pair of the former turn of a loop is read.
    """
    written: dict[int, str] = {}
    stale = []
    for name, operands in _instructions(machine_code):
        source = re.fullmatch(r"R\d+, R(\d+)(?:\.\w+)?", operands.strip())
        if name.startswith("F2FP.F16.E4M3.UNPACK") and source is not None:
            register = int(source.group(1))
            if written.get(register, "LDL").startswith("LDL"):
                stale.append(f"R{register}")
        target = re.match(r"R(\d+)\b", operands)
        if target is not None:
            width = 4 if ".128" in name else 2 if ".64" in name else 1
            first = int(target.group(1))
            written.update(dict.fromkeys(range(first, first + width), name))
    return stale


def _instructions(machine_code: str) -> Iterator[tuple[str, str]]:
    """Name and operands of each instruction."""
    for line in machine_code.splitlines():
        found = _INSTRUCTION.search(re.sub(r"/\*.*?\*/", "", line))
        if found is not None:
            name, operands = found.groups()
            yield name, operands


def _reads(operands: str) -> list[int]:
    """First registers of what an instruction reads.

    A product whose first operand lies in registers reads the second half of its descriptors.
    """
    found = [int(register) for register in _UNIFORM.findall(operands)]
    product = re.fullmatch(r"R\d+, R\d+, gdesc\[UR\d+\].*", operands.strip())
    return found if product is None else [found[0] + 2, *found[1:]]
