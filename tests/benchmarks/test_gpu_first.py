"""The first minutes on a GPU, rehearsed on the CPU with tiny shapes and with stand-ins."""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import time

import pytest

from benchmarks import baselines, ceilings, data_speed, gpu_first, op_speed
from benchmarks.gpu_first import Part


def script(text):
    return lambda call: [sys.executable, "-c", text]


@pytest.fixture
def ran(tmp_path):
    """A function that runs parts and returns the record, the summary and the packed files."""

    def run(*parts, seconds=60.0):
        args = argparse.Namespace(
            device="cpu", tiny=True, batch=None, out=tmp_path / "out", seconds=seconds
        )
        record = {"device": "cpu", "date": "2026-01-01", "commit": "abc", "parts": []}
        gpu_first.run_all(parts, args, record)
        found = json.loads((tmp_path / "out" / "gpu-first.json").read_text())
        assert found == record
        with tarfile.open(tmp_path / "out" / "results.tar.gz") as archive:
            packed = set(archive.getnames())
        assert len(list((tmp_path / "out").iterdir())) == 3
        return found["parts"], (tmp_path / "out" / "summary.md").read_text(), packed

    return run


def test_one_that_fails_or_hangs_does_not_stop_the_others(ran):
    parts, summary, packed = ran(
        Part("broken", script("print('why'); raise SystemExit(3)"), 30, 0),
        Part("hanging", script("print('begun', flush=True)\nwhile True: pass"), 3, 0),
        Part("absent", lambda call: ["/no/such/program"], 30, 0),
        Part("good", lambda call: script(f"open({str(call.out / 'x.json')!r}, 'w')")(call), 30, 0),
    )
    assert [p["outcome"] for p in parts] == ["failed", "timed out", "failed", "passed"]
    assert [p["code"] for p in parts] == [3, None, None, 0]
    assert 3 <= parts[1]["seconds"] < 25
    assert parts[0]["told"] == ["why"]
    assert parts[1]["told"] == ["begun"]
    assert "/no/such/program" in parts[2]["told"][0]
    assert "| hanging | timed out |" in summary
    assert {"results/good/x.json", "results/broken/output.txt"} <= packed


def test_processes_of_a_part_end_with_it(ran, tmp_path):
    """One that a part started and left, as a test's worker may."""
    path = tmp_path / "alive"
    loop = f"import time, pathlib\nwhile True: pathlib.Path({str(path)!r}).touch(); time.sleep(.1)"
    ran(
        Part(
            "parent",
            script(
                "import subprocess, sys, time\n"
                f"subprocess.Popen([sys.executable, '-c', {loop!r}])\ntime.sleep(100)"
            ),
            5,
            0,
        )
    )
    path.unlink()  # it was begun
    time.sleep(0.5)
    assert not path.exists()


def test_what_there_is_no_time_for_is_named(ran):
    parts, summary, _ = ran(
        Part("first", script(""), 30, 0), Part("long", script(""), 300, 30), seconds=25.0
    )
    assert [p["outcome"] for p in parts] == ["passed", "passed"]  # a quarter of all would do
    parts, summary, _ = ran(Part("late", script(""), 300, 30), seconds=6.0)
    assert parts[0]["outcome"] == "no time was left"
    assert "| late | no time was left |" in summary


def test_failed_tests_are_named(ran):
    xml = (
        '<testsuites><testsuite><testcase classname="t" name="ok" time="1.5"/>'
        '<testcase classname="t" name="bad" time="1"><failure message="error 3&#10;more"/>'
        '</testcase><testcase classname="t" name="left"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    parts, summary, _ = ran(
        Part(
            "tests",
            lambda call: script(f"open({str(call.out / 'tests.xml')!r}, 'w').write({xml!r})")(call),
            30,
            0,
        )
    )
    assert parts[0]["tests"]["passed"] == parts[0]["tests"]["failed"] == 1
    assert "1 passed, 1 failed, 1 skipped" in summary
    assert "* t.bad: error 3" in summary


@pytest.mark.slow
def test_rehearsal(tmp_path, capfd, monkeypatch):
    """Every part by its own command, but for those that take long to begin on a CPU."""
    monkeypatch.setenv("OUT", str(tmp_path))
    parts = ["environment", "tests", "ceilings", "attention", "step-base", "ops-base"]
    words = ["--device", "cpu", "--tiny", "--batch", "2", "--seconds", "500"]
    code = gpu_first.main([*words, "--parts", *parts])
    told = (tmp_path / "summary.md").read_text()
    assert code == 0, told
    found = json.loads((tmp_path / "gpu-first.json").read_text())["parts"]
    assert [(p["name"], p["outcome"]) for p in found] == [(name, "passed") for name in parts]
    (tests,) = (p["tests"] for p in found if p["name"] == "tests")
    assert tests["passed"] == 12
    assert "is faster by" in told  # the table of steps
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        names = archive.getnames()
    for name in ("ceilings/copy.json", "attention/attention-choice.json"):
        assert f"results/{name}" in names
    assert any(n.startswith("results/step-base/baselines-base") for n in names)


def test_every_part_has_a_command(tmp_path):
    call = gpu_first.Call("cuda", False, None, tmp_path, 100.0)
    for part in gpu_first.PARTS:
        words = part.command(call)
        assert all(isinstance(word, str) for word in words)
        if "benchmarks.ceilings" in words:
            args = ceilings.arguments().parse_args(words[3:])
            assert args.device == "cuda"
            assert args.seconds == 70 or "baselines" not in args.parts
            assert set(args.variants or ()) <= set(baselines.BASELINES)
        if "benchmarks.data_speed" in words:
            assert data_speed.arguments().parse_args(words[3:]).device == "cuda"
        if "benchmarks.paper" in words:
            assert f"--seconds {70}" in " ".join(words)
        if "benchmarks.op_speed" in words:
            assert op_speed.arguments().parse_args(words[3:]).batch in (64, 128)
    (steps,) = (p for p in gpu_first.PARTS if p.name == "step-base")
    assert steps.command(call)[-4:] == list(gpu_first._EAGER)


def test_wrong_use(monkeypatch, capsys):
    monkeypatch.delenv("OUT", raising=False)
    with pytest.raises(SystemExit):
        gpu_first.main([])
    assert "--out" in capsys.readouterr().err
