"""On which processors other code than torch's own multiplies matrices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videomae_fast.ops import _processor


@pytest.mark.parametrize(
    ("capability", "vendor", "reason"),
    [
        ("AVX512", "AuthenticAMD", None),
        ("AVX2", "AuthenticAMD", None),
        ("AVX512", "GenuineIntel", "made for Intel's"),
        ("AVX2", "GenuineIntel", "made for Intel's"),
        ("DEFAULT", "AuthenticAMD", "no AVX2"),
        ("SVE256", "", "no AVX2"),
        ("AVX2", None, "maker is unknown"),
    ],
)
def test_by_maker_and_instructions(capability, vendor, reason, monkeypatch):
    def text(self, **_):
        if vendor is None:
            raise FileNotFoundError
        return f"vendor_id\t: {vendor}\n"

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(Path, "read_text", text)
    found = _processor._why_no_gain()
    assert found is None if reason is None else reason in str(found)
