"""What is read out of machine code."""

from __future__ import annotations

import pytest

from benchmarks.common import sass

CODE = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;                /* 0x00 */
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;      /* 0x01 */
        /*0020*/               @P1 LDG.E.U8.CONSTANT R8, desc[UR4][R2.64] ;
        /*0030*/                   LDG.E.U16 R8, desc[UR4][R2.64] ;
        /*0040*/                   LDG.E R8, desc[UR4][R2.64] ;
        /*0050*/                   LDGSTS.E.BYPASS.128 [R12], desc[UR4][R2.64] ;
        /*0060*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24 ;
        /*0070*/                   STG.E.64 desc[UR4][R2.64], R4 ;
        /*0080*/             @UP0  STL [R1], R4 ;
"""


def test_instructions_and_widths():
    code = sass.instructions(CODE)
    names = [each.name for each in code]
    assert names.count("HGMMA.64x64x16.F32.BF16") == 1
    assert names.count("LDG.E.128") == names.count("STL") == 1
    assert [each.conditional for each in code[:3]] == [False, True, True]
    assert sass.accesses(code, "LDG") == {"16": 1, "4": 1, "2": 1, "1": 1}
    assert sass.accesses(code, "LDGSTS") == {"16": 1}
    assert sass.accesses(code, "STG") == {"8": 1}
    assert sass.accesses([], "STG") == {}
    assert sass.moved(code) == 16 + 1 + 2 + 4 + 16 + 8
    assert sass.loops(code) == []


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "resident"),
    [
        (32, 0, 4, 64),  # the most warps
        (64, 0, 4, 32),
        (168, 0, 4, 12),  # three programs
        (32, 100_000, 4, 8),  # two programs' shared memory
        (16, 0, 1, 32),  # the most programs
        (255, 0, 16, 0),  # does not fit at all
    ],
)
def test_how_many_warps_fit(registers, shared, warps, resident):
    assert sass.resident_warps(registers, shared, warps, 90) == resident


def test_waves():
    assert sass.waves(396, 3) == 1.0
    assert sass.waves(396, 2) == 1.5
    assert sass.waves(132, 0) == 1.0


def code(*lines: str) -> str:
    """Lines with addresses: the first is 0000, each next 10 further."""
    return "\n".join(f"        /*{16 * i:04x}*/   {line} ;" for i, line in enumerate(lines))


def binary(*lines: str, monkeypatch: pytest.MonkeyPatch) -> sass.Binary:
    found = sass.Binary(b"", registers=32, stack=0, shared=0, warps=4, arch=90)
    monkeypatch.setattr(sass, "_told", lambda option, cubin: code(*lines))
    return found


def test_a_loop_in_a_loop(monkeypatch):
    found = binary(
        "BAR.SYNC.DEFER_BLOCKING 0x0",  # 0000
        "LDG.E R0, desc[UR4][R2.64]",  # 0010, the outer loop's first
        "BAR.SYNC.DEFER_BLOCKING 0x0",
        "LDG.E.128 R0, desc[UR4][R2.64]",  # 0030, the inner loop's
        "FADD R0, R0, R1",
        "@P0 BRA 0x30",
        "BAR.SYNC.DEFER_BLOCKING 0x0",
        "@!P1 BRA 0x10",
        "STG.E desc[UR4][R2.64], R0",
        "EXIT",
        "BRA 0xa0",  # the trap behind the end
        monkeypatch=monkeypatch,
    )
    assert sorted(len(loop) for loop in found.loops) == [3, 7]
    assert found.loop_barriers == 2
    assert sass.barriers(found.code) == 3
    assert found.per_byte == 7 / 20  # of the outer loop, which moves 4 + 16 bytes of all 24


def test_code_behind_the_end_is_no_loop(monkeypatch):
    """A rare case that the compiler moved away, with a barrier, and a jump back."""
    found = binary(
        "LDG.E R0, desc[UR4][R2.64]",
        "@P0 BRA 0x50",
        "BAR.SYNC.DEFER_BLOCKING 0x0",  # 0020, where it comes back to
        "STG.E desc[UR4][R2.64], R0",
        "EXIT",
        "FADD R0, R0, R1",  # 0050
        "BRA 0x20",
        monkeypatch=monkeypatch,
    )
    assert found.loops == []
    assert found.loop_barriers == 0
    assert found.per_byte == 7 / 8  # of everything


def test_a_condition_among_the_operands(monkeypatch):
    """BRA P1 may go on: the loop's last line is then no end."""
    found = binary(
        "LDG.E R0, desc[UR4][R2.64]",
        "BRA P1, 0x40",
        "FADD R0, R0, R1",
        "BRA 0x0",
        "EXIT",
        monkeypatch=monkeypatch,
    )
    assert [len(loop) for loop in found.loops] == [4]


def test_a_loop_that_moves_little_is_not_what_counts(monkeypatch):
    found = binary(
        "LDG.E.128 R0, desc[UR4][R2.64]",
        "LDG.E.U8 R8, desc[UR4][R2.64]",  # 0010
        "@P0 BRA 0x10",
        "STG.E.128 desc[UR4][R2.64], R0",
        "EXIT",
        monkeypatch=monkeypatch,
    )
    assert [len(loop) for loop in found.loops] == [2]
    assert found.per_byte == 5 / 33
