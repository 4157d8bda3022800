"""The compiled CPU library (``csrc/``) behind ctypes: one function per op.

Contract, names and types of what a function takes and gives are its op's, in
``videomae_fast/ops/<op>.py``: CPU tensors of the dtypes that the declaration names, in shapes that
the contract has checked; nothing else may call it. What only the values show, a token position out
of range, the library itself refuses. All give the same bits for any thread count.
"""

from __future__ import annotations

from videomae_fast.ops._native.calls import in_fp32
from videomae_fast.ops._native.loader import instruction_set, library, library_path, why_missing

__all__ = ["in_fp32", "instruction_set", "library", "library_path", "why_missing"]
