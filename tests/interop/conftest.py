"""The stand-ins for the official code count as it."""

from __future__ import annotations

import pytest

from tests.interop import stand_ins
from videomae_fast.interop.acceleration.code import accept

STAND_INS = (
    "Attention", "Block", "DropPath", "Mlp", "PatchEmbed", "PretrainVisionTransformer",
    "PretrainVisionTransformerDecoder", "PretrainVisionTransformerEncoder", "VisionTransformer",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _stand_ins_are_known():
    for role in STAND_INS:
        accept(role, getattr(stand_ins, role))
