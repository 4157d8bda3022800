"""bf16 on a processor that does not multiply it is asked for by name, and said to be slow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.steps import CPU
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import Reconstruction, build_model, settings_of
from videomae_fast.training import precision, step_mode
from videomae_fast.training.step import uses_bf16


@pytest.mark.parametrize(
    ("flags", "slow"),
    [
        ("fpu avx2", True),
        ("fpu avx2 avx512f", True),
        ("fpu avx2 avx512f avx512_bf16", False),
        ("fpu avx2 avx512f amx_tile amx_bf16", False),
        ("", False),
    ],
)
def test_by_flags(flags: str, slow: bool, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"vendor_id\t: any\nflags\t\t: {flags}\n\nflags\t: none\n")
    assert (precision.why_bf16_is_slow(path) is not None) == slow
    assert precision.why_bf16_is_slow(tmp_path / "none") is None


def test_it_is_said_and_never_chosen(
    tiny: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow, asked in ((None, "bf16"), ("emulated", "auto"), ("emulated", "bf16")):
        monkeypatch.setattr(step_mode, "why_bf16_is_slow", lambda slow=slow: slow)
        config, told = tiny(precision=asked), list[str]()
        settings = settings_of(config)
        made = step_mode.make_step(
            Reconstruction(config), build_model(config), settings, CPU, told.append
        )
        assert made.autocast == uses_bf16(settings, CPU.device) == (asked == "bf16")
        warned = ["precision bf16 will be slower than fp32: emulated"]
        assert [line for line in told if "bf16" in line] == (
            warned if slow and asked == "bf16" else []
        )
