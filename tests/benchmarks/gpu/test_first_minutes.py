"""How the first command on a GPU runs its parts, with stand-ins for them."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from benchmarks.gpu import ceilings, first_minutes, kernel_profile, results
from benchmarks.gpu.parts import NAMES, PARTS, Call, Part
from benchmarks.gpu.running import environment
from benchmarks.ops import attention_choice, launch_choice
from benchmarks.ops import speed as op_speed
from benchmarks.reading import speed as data_speed
from benchmarks.studies import baselines, loss_curves
from videomae_fast.ops._attention.choice import VARIABLE


def script(text):
    return lambda call: [sys.executable, "-c", text]


@pytest.fixture
def ran(tmp_path):
    """A function that runs parts and returns the record, the summary and the packed files."""

    def run(*parts, seconds=60.0):
        args = argparse.Namespace(
            device="cpu", rehearse=True, batch=None, out=tmp_path / "out", seconds=seconds
        )
        record = {
            "device": "cpu", "date": "2026-01-01", "commit": "abc", "commit_from": "git",
            "versions": {"torch": "2", "triton": "3"}, "card": {}, "parts": [], "left_out": [],
        }  # fmt: skip
        first_minutes.run_all(parts, args, record)
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
    assert [p["outcome"] for p in parts] == ["failed", "timed out", "not here", "passed"]
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


def test_a_part_whose_program_is_missing(tmp_path):
    """On a GPU; a rehearsal goes without it."""
    part = Part("checked", script("print(1)"), 30, 0, program="no-such-sanitizer")
    for tiny, outcome in ((False, "not here"), (True, "passed")):
        call = Call("cpu", tiny, None, tmp_path / str(tiny), tmp_path, 20.0)
        call.out.mkdir()
        result = first_minutes.run_part(part, call)
        assert result.outcome == outcome
    assert (
        "no-such-sanitizer is not on this machine"
        in (tmp_path / "False" / "output.txt").read_text()
    )


def test_a_failure_is_printed_when_it_happens(ran, capfd):
    """Before the part's end, which is its limit here; other lines are not."""
    lines = "print('something'); print('FAILED NOW a::b: error 3', flush=True)"
    ran(Part("tests", script(f"{lines}\nimport time\nwhile True: time.sleep(1)"), 4, 0))
    told = capfd.readouterr().out.splitlines()
    assert told.index("FAILED NOW a::b: error 3") < told.index("tests: timed out, 4 s")
    assert "something" not in told


def test_later_parts_go_by_the_table_just_measured(ran):
    """Whatever became of the part that measures it."""
    say = f"import os; print('table', os.environ.get({VARIABLE!r}))"
    measure = f"{say}\nopen(%r, 'w').write('{{}}'); raise SystemExit(1)"
    parts, _, packed = ran(
        Part("attention", lambda call: script(measure % str(call.table))(call), 30, 0),
        Part("step", script(say), 30, 0),
    )
    assert parts[0]["told"] == ["table None"]
    assert parts[1]["told"][0].endswith("/shared/attention-table.json")
    assert "results/shared/attention-table.json" in packed


def test_environment_of_a_part(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "mine")
    found = environment(Call("cuda", False, None, tmp_path, tmp_path, 1.0))
    assert found["PYTORCH_ALLOC_CONF"] == "mine"
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    found = environment(Call("cuda", False, None, tmp_path, tmp_path, 1.0))
    assert found["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


KILLED = """
import argparse, pathlib, sys
from benchmarks.gpu import first_minutes
from benchmarks.gpu import running
from benchmarks.gpu.parts import Part

running.OFTEN = 0.5
say = "print('half', flush=True); open({!r}, 'w').write('x'); import time; time.sleep(100)"
parts = [
    Part("done", lambda call: [sys.executable, "-c", "print('whole')"], 30, 0),
    Part("half", lambda call: [sys.executable, "-c", say.format(str(call.out / "x"))], 99, 0),
]
first_minutes.PARTS = parts
for part in parts:
    object.__setattr__(part, "first", True)
first_minutes.main(["--rehearse", "--out", sys.argv[1]])
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_results_survive_a_kill(how, tmp_path):
    """Of the whole command, in the middle of a part: what is done, and what the part wrote.

    Where it is asked to end, its part ends, too.
    """
    out = tmp_path / "out"
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out)], cwd=root, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 200
        parts: list[dict] = []
        while time.monotonic() < deadline and not (len(parts) == 2 and parts[1]["told"]):
            time.sleep(0.2)
            path = out / "gpu-first.json"
            parts = json.loads(path.read_text())["parts"] if path.exists() else []
    finally:
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
        ).stdout.split()
        process.send_signal(how)
        process.wait()
        left = [child for child in children if Path(f"/proc/{child}").exists()]
        for child in left:  # a session of its own, as parts have
            os.kill(int(child), signal.SIGKILL)
    assert children
    assert bool(left) == (how == signal.SIGKILL)
    assert [(part["outcome"], part["told"]) for part in parts] == [
        ("passed", ["whole"]), ("running", ["half"]),
    ]  # fmt: skip
    assert "| half | running |" in (out / "summary.md").read_text()
    with tarfile.open(out / "results.tar.gz") as archive:
        assert "results/half/x" in archive.getnames()


def test_a_summary_takes_whatever_a_card_says(ran):
    parts, summary, _ = ran(Part("one", script(""), 30, 0))
    assert "As found: no card; torch 2" in summary
    record = {
        "device": "cuda", "date": "2026-01-01", "commit": None, "commit_from": "nowhere",
        "versions": {"torch": "2", "triton": None}, "parts": parts, "left_out": ["a"],
        "card": {"name": "NVIDIA H200", "sm_MHz": 345.0, "power_limit_W": "[N/A]"},
    }  # fmt: skip
    told = results.summary(record)
    assert told.startswith("# NVIDIA H200, 2026-01-01, commit None (from nowhere)")
    assert "sm_MHz 345.0, power_limit_W [N/A]" in told
    assert "too large: a" in told
    many = [{**parts[0], "told": [f"line {i}" for i in range(30)]}]
    assert "line 20" in results.summary({**record, "parts": many})
    short = results.summary({**record, "parts": many}, 3)
    assert "line 26" not in short
    assert "line 27\nline 28\nline 29" in short


def test_tests_that_are_not_written_whole(tmp_path):
    (tmp_path / "tests.xml").write_text("<testsuites><testsui")
    assert results.tested(tmp_path / "tests.xml") is None
    assert results.tested(tmp_path / "none.xml") is None


def test_an_archive_that_is_too_large_is_without_its_largest_files(tmp_path):
    (tmp_path / "part").mkdir()
    for name, size in (("small", 100), ("large", 50_000), ("larger", 60_000)):
        (tmp_path / "part" / name).write_bytes(os.urandom(size))
    packed, left_out = results.archived(tmp_path, 20_000)
    assert left_out == ["part/larger", "part/large"]
    assert len(packed) < 20_000
    assert results.archived(tmp_path)[1] == []


H100 = {"name": "NVIDIA H100 80GB HBM3", "memory_MiB": 81559.0}
H200 = {"name": "NVIDIA H200", "memory_MiB": 143771.0}


@pytest.mark.parametrize("card", [H100, H200, {}], ids=["H100", "H200", "unknown"])
def test_every_part_has_a_command(card, tmp_path):
    """That its module takes; with the batch that fits the card."""
    call = Call("cuda", False, None, tmp_path, tmp_path, 100.0, card)
    parsers = {
        "ceilings": ceilings, "reading": data_speed, "ops": op_speed,
        "kernel-profile": kernel_profile, "attention-choice": attention_choice,
        "loss-curves": loss_curves, "launch-choice": launch_choice,
    }  # fmt: skip
    roomy = card is H200
    batches = {
        "step-giant": 32 if roomy else 16, "profile-giant": 32 if roomy else 16,
        "compiled-giant": 32 if roomy else 16, "giant-full": 128 if roomy else 64,
        "small-batch-8": 8, "small-batch-32": 32, "step-base": 128, "profile-base": 128,
    }  # fmt: skip
    for part in PARTS:
        words = part.command(call)
        assert all(isinstance(word, str) for word in words)
        name = words[words.index("benchmarks") + 1] if "benchmarks" in words else None
        if name in parsers:
            args = parsers[name].arguments().parse_args(words[words.index("-m") + 3 :])
            assert args.device == "cuda"
            if part.name in batches:
                assert args.batch == batches[part.name], part.name
            if name == "ceilings" and "baselines" in args.parts:
                assert args.seconds == 70
                assert args.one_by_one
                assert set(args.variants) <= set(baselines.BASELINES)
        elif name in ("paper", "drop-in"):
            assert "--seconds 70" in " ".join(words)


def test_the_order_of_the_first_command():
    """Attention's and LayerNorm's tests first, profiles before ceilings, the build last."""
    first = [part.name for part in PARTS if part.first]
    assert first == [
        "environment", "tests-first", "profile-base", "profile-giant", "ceilings", "attention",
        "step-base", "step-giant", "racecheck", "memcheck", "tests", "build",
    ]  # fmt: skip
    call = Call("cuda", False, None, Path("out"), Path("shared"), 100.0)
    commands = {part.name: " ".join(part.command(call)) for part in PARTS}
    assert "--gpu" in commands["tests-first"]
    assert "test_attention.py tests/ops/test_add_layer_norm.py" in commands["tests-first"]
    assert "--ignore=tests/ops/test_attention.py" in commands["tests"]
    for tool in ("racecheck", "memcheck"):
        assert f"CUDA_MEMORY_CACHING=1 compute-sanitizer --tool {tool}" in commands[tool]
    assert "test_repeated_runs_are_equal and pass" in commands["racecheck"]


COLLECT = """
import json, sys
import pytest

class Names:
    def pytest_collection_finish(self, session):
        print("FOUND", json.dumps([item.nodeid for item in session.items]), flush=True)

for chosen in sys.argv[1:]:
    words = ["-q", "--collect-only", "-p", "no:cacheprovider", "-k", chosen]
    pytest.main([*words, "tests/ops/test_attention.py"], plugins=[Names()])
"""


def test_tests_under_the_sanitizer_are_there():
    """A name that no test has would be a part that always passes nothing."""
    call = Call("cuda", False, None, Path("out"), Path("shared"), 100.0)
    chosen = []
    for name in ("racecheck", "memcheck"):
        (part,) = (part for part in PARTS if part.name == name)
        words = part.command(call)
        assert "tests/ops/test_attention.py" in words
        chosen.append(words[words.index("-k") + 1])
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, *chosen],
        cwd=Path(__file__).parents[3], capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    races, bounds = (json.loads(line.removeprefix("FOUND ")) for line in lines)
    assert races
    assert not [name for name in races if "flash" in name]
    assert len([name for name in bounds if "native" not in name]) >= 15


def test_results_of_an_earlier_run_stay(tmp_path, capsys):
    assert first_minutes.free(tmp_path) == tmp_path
    (tmp_path / "summary.md").touch()
    assert first_minutes.free(tmp_path) == tmp_path / "2"
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "results.tar.gz").touch()
    assert first_minutes.free(tmp_path) == tmp_path / "3"
    assert "an earlier run" in capsys.readouterr().out


def test_parts_run_in_the_order_they_are_named(monkeypatch, tmp_path):
    seen: list[str] = []
    monkeypatch.setattr(
        first_minutes, "run_all", lambda parts, args, record: seen.extend(p.name for p in parts)
    )
    first_minutes.main(
        ["--rehearse", "--out", str(tmp_path), "--parts", "tests", "build", "ceilings"]
    )
    assert seen == ["tests", "build", "ceilings"]
    assert len(set(NAMES)) == len(NAMES)


def test_wrong_use(monkeypatch, capsys):
    monkeypatch.delenv("OUT", raising=False)
    with pytest.raises(SystemExit):
        first_minutes.main([])
    assert "--out" in capsys.readouterr().err
