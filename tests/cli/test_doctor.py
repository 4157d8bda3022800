"""The doctor: says what is missing and why, and never dies of it."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from videomae_fast import cli, doctor
from videomae_fast.ops import _native
from videomae_fast.ops.registry import REGISTRY, triton_missing


def section(report: doctor.Report, title: str) -> dict[str, doctor.Check]:
    return {check.name: check for check in report[title]}


def test_report_is_healthy_here_and_names_every_op_and_decoder() -> None:
    report = doctor.examine()
    broken = [c for checks in report.values() for c in checks if c.state == "broken"]
    assert broken == []
    assert set(section(report, "ops on cpu")) == set(REGISTRY)
    assert section(report, "video decoders")["pyav"].state == "ok"
    assert all(check.detail for checks in report.values() for check in checks)


def test_json_holds_the_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is True
    versions = {check["name"]: check["detail"] for check in told["versions"]}
    assert versions["torch"] == __import__("torch").__version__
    assert versions["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_text_says_why_the_native_library_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_native, "library", lambda: None)
    monkeypatch.setattr(_native, "why_missing", lambda: "it fell behind the sofa; look there")
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "- cpu library  it fell behind the sofa; look there" in shown
    assert "native no (it fell behind the sofa; look there), then reference" in shown


@pytest.mark.parametrize("reason", [None, "torch's own matmul is as good"])
def test_the_order_told_is_the_one_taken(
    reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the linear layer and of attention, where the processor decides."""
    for module in ("linear", "_attention.choice"):
        monkeypatch.setattr(import_module(f"videomae_fast.ops.{module}"), "WHY_NO_GAIN", reason)
    told = section({"ops": doctor._ops("cpu")}, "ops")
    x = torch.zeros(1, 2, 3, 4)
    arguments = {"linear": (x, torch.zeros(5, 4), None), "attention": (x, x, x, None)}
    for name, args in arguments.items():
        first = told[name].detail.split(", then ")
        assert REGISTRY[name].pick("auto", args) == next(n for n in first if " no (" not in n)
        assert (reason is None) or f"no ({reason})" in first[0]
    assert told["attention_backward"].detail == "the backend that attention took"


def test_the_order_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert doctor._ops("cuda") == [doctor.Check("cuda", "missing", "no CUDA device")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    told = section({"ops": doctor._ops("cuda")}, "ops")
    reason = triton_missing()
    first = "triton" if reason is None else f"triton no ({reason})"
    assert told["bias_gelu"].detail == f"{first}, then reference"
    assert told["attention"].detail.startswith("by attention_table.json for ")
    assert told["attention"].detail.endswith("then sdpa")


def test_missing_optional_package_says_what_for_and_how_to_get_it() -> None:
    package = doctor.OptionalPackage("no_such_package", "no-such", "wonders", "pip install no-such")
    check = doctor._optional(package)
    assert check.state == "missing"
    assert check.detail == "for wonders: not installed; pip install no-such"
    dotted = doctor.OptionalPackage("no_such.package", "no-such", "wonders", "pip install no-such")
    assert doctor._optional(dotted).state == "missing"


def test_package_that_does_not_import_is_broken_and_so_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_package.py").write_text("raise OSError('libfoo.so.1: not found')")
    monkeypatch.syspath_prepend(tmp_path)
    package = doctor.OptionalPackage("broken_package", "broken", "wonders", "pip install broken")
    monkeypatch.setattr(doctor, "OPTIONAL", (package,))
    assert cli.main(["doctor"]) == 1
    assert "libfoo.so.1: not found" in capsys.readouterr().out


def test_a_check_that_raises_is_a_line_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode() -> list[doctor.Check]:
        raise RuntimeError("boom")

    monkeypatch.setattr(doctor, "_torchs_attention", explode)
    report = doctor.examine()
    assert report["sdpa"] == [doctor.Check("sdpa", "broken", "RuntimeError: boom")]
    assert not doctor.healthy(report)


def test_required_package_that_is_missing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", ("not-a-distribution",))
    check = section({"versions": doctor._versions()}, "versions")["not-a-distribution"]
    assert check.state == "broken"
    assert "pip install not-a-distribution" in check.detail
