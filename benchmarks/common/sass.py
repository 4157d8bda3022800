"""What the machine code of a compiled kernel says: resources, instructions, loops."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

WARP = 32


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor of an architecture has for its programs, in bytes and numbers."""

    registers: int = 65_536
    warps: int = 64
    programs: int = 32
    shared: int = 233_472
    reserved: int = 1024  # bytes of shared memory that each program costs besides its own

    @property
    def most_shared(self) -> int:
        """Bytes of shared memory that one program may have."""
        return self.shared - self.reserved


MULTIPROCESSORS = {80: Multiprocessor(shared=167_936), 90: Multiprocessor(), 100: Multiprocessor()}


def resident_warps(registers: int, shared: int, warps: int, arch: int) -> int:
    """The most warps of a kernel that a multiprocessor holds at once."""
    sm = MULTIPROCESSORS[arch]
    per_warp = -(-registers * WARP // 256) * 256  # registers are allotted to warps in 256s
    by_registers = sm.registers // per_warp // warps if per_warp else sm.programs
    by_shared = sm.shared // (shared + sm.reserved)
    return min(sm.warps // warps, sm.programs, by_registers, by_shared) * warps


# Of an H100 or H200: what launchers count on where there is no GPU.
COUNT = 132


def waves(programs: int, resident: int) -> float:
    """How often programs fill a GPU of which each multiprocessor holds `resident` at once."""
    return programs / (COUNT * max(1, resident))


@dataclass(frozen=True)
class Instruction:
    """One line of machine code.

    Attributes:
        address: in bytes.
        name: with its modifiers: "LDG.E.128".
        conditional: whether it has a predicate.
        operands: the rest of the line.
    """

    address: int
    name: str
    conditional: bool
    operands: str

    @property
    def kind(self) -> str:
        """The name without modifiers: "LDG"."""
        return self.name.partition(".")[0]

    @property
    def target(self) -> int | None:
        """Where a branch leads to; None for everything else."""
        found = re.search(r"0x([0-9a-f]+)", self.operands) if self.kind == "BRA" else None
        return int(found[1], 16) if found else None

    @property
    def width(self) -> int:
        """Bytes that one thread moves with a memory instruction."""
        parts = self.name.split(".")
        for bits in (256, 128, 64):
            if str(bits) in parts or f"BYPASS{bits}" in parts:
                return bits // 8
        for part in parts:
            if part in ("U8", "S8"):
                return 1
            if part in ("U16", "S16"):
                return 2
        return 4


_LINE = re.compile(
    r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.a-z]*)([^;]*);"
)  # fmt: skip


def instructions(text: str) -> list[Instruction]:
    """Of the text that cuobjdump writes."""
    return [
        Instruction(int(address, 16), name, bool(predicate), operands)
        for address, predicate, name, operands in _LINE.findall(text)
    ]


def accesses(code: Sequence[Instruction], *kinds: str) -> dict[str, int]:
    """Memory instructions of these kinds by the bytes that each thread moves: {"16": 12, ...}."""
    by_width = Counter(each.width for each in code if each.kind in kinds)
    return {str(size): by_width[size] for size in sorted(by_width, reverse=True)}


def barriers(code: Sequence[Instruction]) -> int:
    """How often the warps of a program wait for one another."""
    return sum(each.kind == "BAR" for each in code)


def moved(code: Sequence[Instruction]) -> int:
    """Bytes that a thread loads from and stores to global memory, if it runs each line once."""
    return sum(each.width for each in code if each.kind in ("LDG", "STG", "LDGSTS"))


def loops(code: Sequence[Instruction]) -> list[list[Instruction]]:
    """The natural loops: a branch back to a block that every way to the branch leads through.

    A block that the compiler puts behind the end and lets jump back is none. Loops that share
    their first block are one.
    """
    blocks = _blocks(code)
    before: list[set[int]] = [set() for _ in blocks]
    for number, (_, after) in enumerate(blocks):
        for other in after:
            before[other].add(number)
    dominators = _dominators(before)
    bodies: dict[int, set[int]] = {}
    for number, (_, after) in enumerate(blocks):
        for first in after & dominators[number]:
            body = bodies.setdefault(first, {first})
            waiting = [number]
            while waiting:
                block = waiting.pop()
                if block not in body:
                    body.add(block)
                    waiting += before[block]
    return [[each for i in sorted(body) for each in blocks[i][0]] for body in bodies.values()]


def _blocks(code: Sequence[Instruction]) -> list[tuple[list[Instruction], set[int]]]:
    """(lines, blocks that may follow) of each block that has no branch but its last line."""
    starts = {code[0].address} if code else set()
    for each, following in pairwise(code):
        if each.target is not None:
            starts |= {each.target, following.address}
        elif each.kind in ("EXIT", "RET", "BRX"):
            starts.add(following.address)
    blocks: list[tuple[list[Instruction], set[int]]] = []
    number: dict[int, int] = {}
    for each in code:
        if each.address in starts:
            number[each.address] = len(blocks)
            blocks.append(([], set()))
        blocks[-1][0].append(each)
    for i, (lines, after) in enumerate(blocks):
        last = lines[-1]
        ends = last.kind in ("EXIT", "RET", "BRX") and not last.conditional
        if last.target is not None:
            # "BRA P1, 0x80" has its condition among the operands
            ends = not last.conditional and "," not in last.operands
            if last.target in number and last.target != last.address:  # the trap behind the end
                after.add(number[last.target])
        if not ends and i + 1 < len(blocks):
            after.add(i + 1)
    return blocks


def _dominators(before: Sequence[set[int]]) -> list[set[int]]:
    """Of each block those that every way from the first block leads through, itself included."""
    everything = set(range(len(before)))
    found = [{0}, *(set(everything) for _ in before[1:])]
    changed = True
    while changed:
        changed = False
        for block in range(1, len(before)):
            new = {block} | set.intersection(*(found[i] for i in before[block]), everything)
            changed |= new != found[block]
            found[block] = new
    return found


@dataclass(frozen=True)
class Binary:
    """A compiled kernel.

    Attributes:
        cubin: as Triton's compiler wrote it.
        registers: per thread.
        stack: bytes per thread; where spilled registers go.
        shared: bytes of shared memory of a program.
        warps: of a program.
        arch: 90 for an H100 or H200.
    """

    cubin: bytes
    registers: int
    stack: int
    shared: int
    warps: int
    arch: int

    @cached_property
    def text(self) -> str:
        """Its machine code, as cuobjdump writes it; some 0.3 seconds of its time."""
        return _told("--dump-sass", self.cubin)

    @cached_property
    def code(self) -> list[Instruction]:
        return instructions(self.text)

    @cached_property
    def loops(self) -> list[list[Instruction]]:
        return loops(self.code)

    @property
    def loop_barriers(self) -> int:
        """Barriers in the loop that has most of them."""
        return max((barriers(loop) for loop in self.loops), default=0)

    @property
    def per_byte(self) -> float:
        """Instructions of a thread for each byte that it moves from or to global memory.

        Of the loop that moves most, where that is half of all or more; else of everything. A
        multiprocessor issues instructions of 128 threads a cycle, so that this says whether a
        kernel is bound by memory. By model, an H200 can issue 6.9 a byte while it copies: of 132
        multiprocessors at 1.755 GHz, beside 4.3 TB/s.
        """
        most = max(self.loops, key=lambda loop: (moved(loop), -len(loop)), default=[])
        region = most if 2 * moved(most) >= moved(self.code) and most else self.code
        return len(region) / max(1, moved(region))

    @property
    def resident_warps(self) -> int:
        return resident_warps(self.registers, self.shared, self.warps, self.arch)

    @property
    def resident_programs(self) -> int:
        """Programs that a multiprocessor holds at once."""
        return self.resident_warps // self.warps


def binary(compiled: Any, arch: int) -> Binary:
    """Reads a kernel that Triton compiled."""
    cubin = compiled.asm["cubin"]
    usage = re.search(r"REG:(\d+) STACK:(\d+)", _told("--dump-resource-usage", cubin))
    assert usage is not None, "cuobjdump's report has changed"
    shared, warps = compiled.metadata.shared, compiled.metadata.num_warps
    return Binary(cubin, int(usage[1]), int(usage[2]), shared, warps, arch)


def _told(option: str, cubin: bytes) -> str:
    """What the cuobjdump that comes with Triton says; kept in Triton's cache, by the binary."""
    import triton
    from triton.runtime.cache import get_cache_manager

    key = hashlib.sha256(f"{triton.__version__} {option} ".encode() + cubin)
    kept = get_cache_manager(key.hexdigest())
    if path := kept.get_file("cuobjdump.txt"):
        return Path(path).read_text(encoding="utf-8")
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        # It starts nvdisasm, which lies beside it
        path = f"{tool.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        text = subprocess.run(
            [str(tool), option, file.name],
            check=True, capture_output=True, text=True, env={**os.environ, "PATH": path},
        ).stdout  # fmt: skip
    kept.put(text, "cuobjdump.txt", binary=False)
    return text
