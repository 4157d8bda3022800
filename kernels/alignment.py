"""What strides are multiples of, told to the compiler.

Triton knows of an integer argument only whether it is a multiple of 16. Heads of 88 values and
cubes of 1176 are multiples of 8, which is all that a 16-byte access of 16-bit values needs; without
a hint their loads and stores are made value by value.
"""

from __future__ import annotations

MOST = 16


def alignment(*strides: int) -> int:
    """The largest power of two up to 16 that all strides are multiples of."""
    found = MOST
    for stride in strides:
        while stride % found:
            found //= 2
    return found
