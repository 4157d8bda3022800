"""The stand-ins for the official code count as it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import stand_ins
from videomae_fast.interop.acceleration import code


@pytest.fixture(scope="session", autouse=True)
def _stand_ins_are_known():
    for name, found in code.digests(Path(stand_ins.__file__).read_text()):
        if not name.startswith("CosAttention"):
            code.known_code().setdefault(name, {})[found] = "tests/interop/stand_ins.py"
