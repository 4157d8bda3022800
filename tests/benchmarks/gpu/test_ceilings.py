"""The GPU script's logic, on the CPU with tiny shapes."""

from __future__ import annotations

import gc
import weakref
from copy import deepcopy

import pytest
import torch

from benchmarks.common.record import read
from benchmarks.common.workload import Workload
from benchmarks.contenders.base import Variant
from benchmarks.contenders.build import build
from benchmarks.contenders.official import Official
from benchmarks.contenders.ours import Ours
from benchmarks.gpu import ceilings
from benchmarks.measure import cases as measuring
from benchmarks.measure import timing
from benchmarks.measure.checks import truth
from benchmarks.measure.timing import Budget
from benchmarks.report import records as report
from benchmarks.report import tables
from benchmarks.studies import baselines

TINY = ["--device", "cpu", "--tiny", "--batch", "2", "--repeats", "2", "--warmup", "1"]
EAGER = ["official as shipped, eager", "official repaired, eager", "ours, eager"]


def test_operations(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert ceilings.main([*TINY, "--parts", "copy", "matmul"]) == 0
    copy, matmul = (read(tmp_path / f"{part}.json")["results"] for part in ("copy", "matmul"))
    assert copy[0]["TB/s"] > 0
    assert [row["layer"] for row in matmul] == ["qkv", "proj", "fc1", "fc2"]
    assert all(row["TFLOP/s"] > 0 for row in matmul)


def test_rates_count_the_work(monkeypatch):
    """With every call taking one second, the rate is the work."""
    for module in (ceilings, timing):
        monkeypatch.setattr(module, "times", lambda run, *_, **__: [1.0])
    cpu = torch.device("cpu")
    assert timing.copy_bandwidth(cpu, 1000, 1, 0)["TB/s"] == pytest.approx(2000e-12)
    fc1 = ceilings.matmul_rates(cpu, [16], 8, 1, 0)[2]
    assert fc1["TFLOP/s"] == pytest.approx(2 * 8 * 16 * 64 / 1e12)


def test_a_gpu_is_busy_before_each_timed_call(monkeypatch):
    """With stand-ins for what needs one: else events would time the host's launching."""
    done: list[str] = []

    class Event:
        count = 0

        def __init__(self, **_):
            Event.count += 1
            self.name = "before" if Event.count % 2 else "after"

        def record(self):
            done.append(self.name)

        def elapsed_time(self, other):
            return 2.0

    class Scratch:
        def __init__(self, size):
            self.size = size

        def zero_(self):
            done.append(f"{self.size} bytes")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda ticks: done.append("sleep"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: done.append("wait"))
    monkeypatch.setattr(torch, "empty", lambda size, **_: Scratch(size))
    gpu = torch.device("cuda")
    seconds = timing.times(lambda: done.append("run"), gpu, 2, 1, cold=True)
    assert seconds == [2e-3, 2e-3]
    call = ["sleep", f"{timing.SCRATCH} bytes", "before", "run", "after"]
    assert done == ["run", "wait", *call, *call, "wait"]
    done.clear()
    timing.times(lambda: None, gpu, 1, 0)
    assert "0 bytes" in done


def test_baselines_and_their_table(tmp_path, capsys):
    words = [*TINY, "--parts", "baselines", "--masking", "dual", "encoder-only"]
    names = [*EAGER, "Hugging Face as shipped"]
    assert ceilings.main([*words, "--out", str(tmp_path), "--variants", *names]) == 0
    record = read(tmp_path / "baselines-base-batch2.json")
    for masking in ("dual", "encoder-only"):
        ran = [r["contender"] for r in record["runs"] if r["masking"] == masking]
        assert ran[:2] == EAGER[:2]
        assert "ours, eager" in ran
        there = "Hugging Face as shipped" in ran
        missing = "Hugging Face as shipped" in record["failed"][masking]
        assert there + missing == 1
        assert missing or masking == "encoder-only"  # it has no decoder mask
    for run in record["runs"]:
        run["summary"]["total"]["median"] = 3.0 if run["contender"] in EAGER[:2] else 2.0
    record["machine"]["device"] = "NVIDIA H200"
    table = tables.baseline_table(record, "ours, eager")
    assert table.count("**1.50×**") == 4
    assert "%" in table
    assert report.main([str(tmp_path / "baselines-base-batch2.json")]) == 0


def test_mfu_is_of_the_official_work():
    record = {"machine": {"device": "NVIDIA H200"}}
    run = {"official_flop_per_second": 0.5 * 989e12}
    assert tables.mfu(record, run) == pytest.approx(0.5)
    assert tables.mfu({"machine": {"device": "cpu"}}, run) is None


@pytest.fixture
def measured():
    """Tiny baselines, measured."""

    def run(**options):
        cases = baselines.cases("base", "dual", options.pop("names", EAGER))
        options = {"repeats": 1, "warmup": 1, "tell": lambda _: None, **options}
        return measuring.measure(Workload(ceilings.TINY, 2), cases, **options)

    return run


def test_what_differs_is_not_timed(measured, monkeypatch):
    right = Ours.loss
    monkeypatch.setattr(Ours, "loss", lambda self: right(self) * 1.1)
    found = measured()
    assert [run["contender"] for run in found["runs"]] == EAGER[:2]
    assert "NOT EQUAL" in found["failed"]["dual"]["ours, eager"]


def test_out_of_memory_is_told_and_the_others_go_on(measured, monkeypatch):
    right = measuring.build

    def build(name, *rest):
        if name == EAGER[0]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried much")
        return right(name, *rest)

    monkeypatch.setattr(measuring, "build", build)
    found = measured()
    assert [run["contender"] for run in found["runs"]] == EAGER[1:]
    assert "out of memory" in found["failed"]["dual"][EAGER[0]]


def test_out_of_memory_in_the_first_steps(measured, monkeypatch):
    """The optimizer's state comes with the first update."""
    right = Ours.update

    def update(self):
        if self.name == EAGER[2]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried much")
        right(self)

    monkeypatch.setattr(Ours, "update", update)
    found = measured()
    assert [run["contender"] for run in found["runs"]] == EAGER[:2]
    assert [check["contender"] for check in found["checks"]] == EAGER[:2]
    assert "out of memory" in found["failed"]["dual"][EAGER[2]]


def test_what_crashes_is_told_and_the_others_go_on(measured, monkeypatch):
    """A compiler's error in the first check, another in the first step."""
    check, update = measuring.check, Ours.update

    def crash(contender, against):
        if contender.name == EAGER[0]:
            raise RuntimeError("no kernel\nfor this")
        return check(contender, against)

    def fail(self):
        raise TypeError("")

    monkeypatch.setattr(measuring, "check", crash)
    monkeypatch.setattr(Ours, "update", fail)
    found = measured()
    assert [run["contender"] for run in found["runs"]] == EAGER[1:2]
    assert found["failed"]["dual"] == {
        EAGER[0]: "crashed: RuntimeError: no kernel",
        EAGER[2]: "crashed: TypeError: ",
    }
    monkeypatch.setattr(Ours, "update", update)


def test_convolutions_of_the_reference_are_fp32(monkeypatch):
    """A GPU's default is TF32; a contender in less is timed, and so checked, as it comes."""
    seen = []
    right = Official.loss

    def loss(self):
        seen.append(torch.backends.cudnn.allow_tf32)
        return right(self)

    monkeypatch.setattr(Official, "loss", loss)
    workload = Workload(ceilings.TINY, 1)
    for precision in ("fp32", "bf16"):
        truth(build("x", Variant("official", precision=precision), workload, "dual"))
    assert seen == [False, True]
    assert torch.backends.cudnn.allow_tf32


def test_what_is_done_is_kept(measured):
    """After the checks and after each round: a command may be killed at any time."""
    kept = []
    found = measured(keep=lambda one: kept.append(deepcopy(one)), repeats=2)
    assert [len(one["checks"]) for one in kept] == [3, 3, 3]
    assert [[len(run["seconds"]["total"]) for run in one["runs"]] for one in kept] == [
        [],
        [1, 1, 1],
        [2, 2, 2],
    ]
    assert kept[-1] == found


def test_one_by_one_each_is_built_when_the_one_before_is_gone(monkeypatch):
    right, built = measuring.build, []

    def build(name, *rest):
        gc.collect()
        alive = [of.name for of in (reference() for reference in built) if of is not None]
        assert alive == [], f"{name} is built beside {alive}"
        made = right(name, *rest)
        built.append(weakref.ref(made))
        return made

    monkeypatch.setattr(measuring, "build", build)
    cases, kept = baselines.cases("base", "dual", [*EAGER, "ours, captured"]), []
    found = measuring.one_by_one(
        Workload(ceilings.TINY, 2), cases, repeats=2, warmup=1, tell=lambda _: None,
        keep=lambda one: kept.append([run["contender"] for run in one["runs"]]),
    )  # fmt: skip
    assert len(built) == 4  # the reference once
    assert [run["contender"] for run in found["runs"]] == EAGER == kept[-1]
    assert [check["contender"] for check in found["checks"]] == EAGER
    assert EAGER[:1] in kept  # what is done stays
    assert "needs a CUDA device" in found["failed"]["dual"]["ours, captured"]
    for run in found["runs"]:
        assert run["yardstick"]["before"] > 0
        assert run["yardstick"]["after"] > 0


def test_a_table_says_how_its_rows_were_timed(tmp_path):
    words = [*TINY, "--parts", "baselines", "--variants", *EAGER, "--out", str(tmp_path)]
    path = tmp_path / "baselines-base-batch2.json"
    for option, how in (("--one-by-one", "one after another"), ("--no-one-by-one", "interleaved")):
        assert ceilings.main([*words, option]) == 0
        table = tables.baseline_table(read(path), "ours, eager")
        assert f"2 steps each, {how};" in table
        assert ("A fixed product" in table) == (option == "--one-by-one")


def test_named_baselines_come_in_that_order():
    names = ["ours, compiled", "strong", "official as shipped, eager"]
    assert list(baselines.variants("giant", names)) == names


def test_no_time_left(measured):
    found = measured(budget=Budget(0.0))
    assert found["runs"] == []
    assert found["failed"]["dual"] == dict.fromkeys(EAGER, "no time was left")


def test_a_captured_step_says_why_it_is_not_here(measured):
    found = measured(names=[EAGER[2], "ours, captured"])
    assert [run["contender"] for run in found["runs"]] == [EAGER[2]]
    assert "needs a CUDA device, not cpu" in found["failed"]["dual"]["ours, captured"]


def test_sizes_that_the_official_scripts_checkpoint():
    assert baselines.variants("giant")["official as shipped, compiled"].checkpointing
    assert not baselines.variants("giant")["strong"].checkpointing
    assert not baselines.variants("giant")["ours, eager"].checkpointing
    assert not any(v.checkpointing for v in baselines.variants("base").values())
    with pytest.raises(ValueError, match="unknown baselines"):
        baselines.variants("base", ["fastest"])


def test_wrong_use(capsys, monkeypatch):
    monkeypatch.delenv("OUT", raising=False)
    with pytest.raises(SystemExit):
        ceilings.main(TINY)
    assert "--out" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        ceilings.main(["--out", "x"])
    assert "no GPU here" in capsys.readouterr().err
