"""What is found wrong with compiled kernels, and what may be recorded of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.kernels import budget
from tests.kernels.budget import Budget, Usage

pytest.importorskip("triton")
NAME = "base bf16, bias_gelu (encoder): bias_gelu._forward"
USAGE = Usage(64, 0, 1024, 8, barriers=2, per_byte=7.4)
COUNTS = {NAME: {"90": {"registers": 64, "barriers": 2, "per_byte": 7.4}}}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"registers": 4}, "there is nothing in it"),
        ({"shared": 232_449}, "232449 bytes of shared memory of 232448"),
        ({"error": "CompilationError: no"}, "does not compile: CompilationError: no"),
    ],
)
def test_what_is_wrong_whatever_was_recorded(changed, told):
    assert USAGE.problems(NAME, 90) == []
    (line,) = Usage(**{**vars(USAGE), **changed}).problems(NAME, 90)
    assert line.startswith(f"{NAME} sm_90: ")
    assert told in line


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"registers": 73}, "registers: 73, recorded 64"),
        ({"stack": 8}, "spills, bytes of stack per thread: 8, recorded 0"),
        ({"barriers": 3}, "barriers in a loop: 3, recorded 2"),
        ({"per_byte": 7.41}, "instructions per byte moved: 7.41, recorded 7.4"),
    ],
)
def test_what_has_grown_is_told(changed, told):
    kept = Budget("3.7.1", COUNTS, {})
    grown = Usage(**{**vars(USAGE), **changed})
    assert kept.exceeded([(NAME, 90, grown)]) == [f"{NAME} sm_90: {told}"]
    fewer = Usage(72, 0, 0, 8, barriers=0, per_byte=5.0)  # 72: within the assembler's eights
    assert kept.exceeded([(NAME, 90, fewer)], {}) == []


def test_what_has_no_record_and_what_is_gone():
    kept = Budget("3.7.1", COUNTS, {})
    assert "no recorded budget" in kept.exceeded([(NAME, 80, USAGE)])[0]
    assert kept.exceeded([], None) == []  # some binaries only
    assert kept.exceeded([], {}) == [f"{NAME}: has a budget and is launched no more"]


def test_what_is_known_is_that_of_the_same_binary():
    """What was recorded comes back by its key, and by no other."""
    known = {NAME: {"90": replace(USAGE, key="k").recorded()}}
    kept = Budget("3.7.1", known, {})
    assert kept.known(NAME, 90, "k") == replace(USAGE, key="k", shared=0)
    assert kept.known(NAME, 90, "other") is None
    assert kept.known(NAME, 80, "k") is None
    assert kept.known("new", 90, "k") is None
    assert Budget("3.6.0", COUNTS, {}).known(NAME, 90, "") is None
    grown = replace(USAGE, key="other", barriers=3)
    assert len(kept.exceeded([(NAME, 90, grown)])) == 1


def test_partial_waves():
    kept = Budget("3.7.1", {}, {"known": 1.5, "mended": 1.2})
    found = {"known": 1.49, "mended": 1.2}
    assert kept.exceeded([], found) == []
    assert (
        "known: fills a GPU 1.6 times, recorded 1.5"
        in kept.exceeded([], {**found, "known": 1.6})[0]
    )
    assert "new: fills a GPU 1.1 times: at most" in kept.exceeded([], {**found, "new": 1.1})[0]
    del found["mended"]
    assert kept.exceeded([], found) == ["mended: a partial wave is recorded, and is one no more"]


def test_a_record_may_fall_and_not_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "FILE", tmp_path / "budget.json")
    empty = Budget("3.7.1", {}, {})
    assert empty.record([(NAME, 90, USAGE)], {"a": 1.5}, allow_growth=False) == []
    written = json.loads(budget.FILE.read_text())
    assert written == {"3.7.1": {"binaries": COUNTS, "waves": {"a": 1.5}, "varied": {}}}

    spills = Usage(255, 8, 0, 1)
    assert empty.record([(NAME, 80, spills)], {}, allow_growth=False)[0].endswith(
        "sm_80: spills: 8 bytes of stack per thread"
    )
    kept = Budget("3.7.1", COUNTS, {"a": 1.5})
    grown = Usage(64, 0, 1024, 8, barriers=3, per_byte=7.4)
    refused = kept.record([(NAME, 90, grown)], {"a": 1.6}, allow_growth=False)
    assert len(refused) == 3
    assert "--allow-growth" in refused[-1]
    assert json.loads(budget.FILE.read_text()) == written
    assert kept.record([(NAME, 90, grown)], {}, allow_growth=True) == []
    other = Budget("3.6.0", {}, {})
    assert other.record([(NAME, 90, USAGE)], {}, allow_growth=False) == []
    found = json.loads(budget.FILE.read_text())
    assert found["3.6.0"]["binaries"] == COUNTS
    assert found["3.7.1"]["binaries"][NAME]["90"]["barriers"] == 3
    assert found["3.7.1"]["waves"] == {}


def test_what_is_wrong_is_never_known(tmp_path, monkeypatch):
    """It has its counts, but is compiled again for each check."""
    monkeypatch.setattr(budget, "FILE", tmp_path / "budget.json")
    right, large = (replace(USAGE, key="k", shared=shared) for shared in (1024, 232_449))
    kept = Budget("3.7.1", {}, {})
    for usage, known in ((right, True), (large, False)):
        assert kept.record([(NAME, 90, usage)], {}, {NAME: "v"}, allow_growth=False) == []
        found = json.loads(budget.FILE.read_text())["3.7.1"]
        assert (found["binaries"][NAME]["90"].get("key") == "k") == known
        assert found["varied"] == {NAME: "v"}


def test_the_records_hold_what_is_compared():
    """All have registers, bf16 on sm_90 has its machine code's counts too."""
    found = json.loads(budget.FILE.read_text())
    assert "3.7.1" in found
    for version in found.values():
        assert len(version["binaries"]) > 100
        for name, archs in version["binaries"].items():
            for arch, counts in archs.items():
                read = arch == "90" and " bf16, " in name
                more = {"barriers", "per_byte"} if read else set()
                beside = {"stack", "resident", "key"}
                assert counts.keys() - beside == {"registers"} | more
