"""The README's figures are those of the newest results."""

from __future__ import annotations

import re

import pytest

from benchmarks.common.record import write
from benchmarks.measure.checks import UncheckedError
from benchmarks.report import newest, readme


def test_the_readme_says_what_was_measured():
    assert readme.main(["--check"]) == 0, "run: python -m benchmarks readme"


def test_documents_link_records_that_are_there():
    """Wherever a record is moved to, such as the archive, its links go along."""
    root = readme.ROOT
    documents = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    links = [
        (path.name, path.parent / link)
        for path in documents
        for link in re.findall(
            r"\]\(([^)\s]*benchmarks/results/[^)\s]+)\)", path.read_text("utf-8")
        )
    ]
    assert len(links) > 20
    assert [(name, link.name) for name, link in links if not link.exists()] == []


def test_a_changed_figure_is_noticed(monkeypatch, tmp_path):
    text = readme.README.read_text(encoding="utf-8")
    changed = tmp_path / "README.md"
    changed.write_text(text.replace(" ms |", " s |"), encoding="utf-8")
    monkeypatch.setattr(readme, "README", changed)
    assert readme.main(["--check"]) == 1


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results, empty."""
    monkeypatch.setattr(newest, "ROOT", tmp_path)
    return tmp_path / "results"


def run(contender, masking, milliseconds, **more):
    return {
        "contender": contender,
        "masking": masking,
        "summary": {"total": {"median": milliseconds / 1e3}},
        "forward_multiply_adds_per_clip": 35.48e9 if masking == "encoder-only" else 25.87e9,
        **more,
    }


def record(runs, *, size="small", batch=4, device="cpu", **more):
    checks = [
        {"contender": r["contender"], "masking": r["masking"], "passed": True, "reference": "it",
         "loss_error": 0.0, "gradient_error": 0.0} for r in runs
    ]  # fmt: skip
    part = {"size": size, "workload": {"batch": batch}, "runs": runs, "checks": checks, **more}
    return {
        "machine": {"device": device, "cpu": "a CPU", "threads": 2},
        "settings": {"tiny": False},
        "parts": [part],
    }


def rows(name, folder):
    lines = readme.block(name, folder).splitlines()
    return [line for line in lines if line.startswith("|")][2:]


@pytest.mark.parametrize("name", readme.BLOCKS)
def test_what_is_absent_says_how_to_make_it(name, results):
    told = readme.block(name, results)
    assert readme.MAKE[name] in told
    assert "Not measured yet" in told


def test_the_headline_is_of_the_largest_size_and_of_a_gpu_if_there_is_one(results):
    for size, device, ms in (("small", "cpu", 1000), ("base", "cpu", 2000)):
        found = record([run("official", "dual", ms), run("ours", "dual", 500)], size=size)
        write(found, results / f"step-{size}-batch4-{device}-20260102-000000.json")
    first, second = readme.block("headline", results).splitlines()
    assert first.startswith("**4.00×** the speed of the official computation")
    assert first.endswith(" in a training step of our model, dual masking,")
    assert "equal first; ViT-B, batch 4, on one processor so far: 2,000 ms → 500 ms on " in second
    assert "on a CPU, 2 threads ([data](results/step-base-" in second
    assert second.endswith("Not yet measured on a GPU.")

    found = record([run("official", "dual", 900), run("ours", "dual", 300)], device="H200")
    write(found, results / "step-small-batch4-cuda-20260101-000000.json")
    first, second = readme.block("headline", results).splitlines()
    assert first.startswith("**3.00×**")
    assert "ViT-S, batch 4, on one card so far: 900 ms → 300 ms on H200 ([data]" in second
    assert "Not yet" not in second


def on(model, milliseconds, *, name="an EPYC", rates=None):
    """A record of a processor of this model; of None: from before models were recorded."""
    found = record([run("official", "dual", 1000), run("ours", "dual", milliseconds)])
    found["machine"]["cpu"] = name
    if model is not None:
        found["machine"] |= {
            "processor": {"name": name, "family": 25, "model": model, "instructions": ["AVX2"]},
            "matmul_GFLOP/s": {"fp32": 50.0, "fp32, linear": 99.6, "bf16": 7.0},
        }
    return found


def test_a_range_over_processors_and_not_the_best_one(results):
    for day, (model, ms) in enumerate(((17, 400), (33, 250), (17, 500), (97, 800)), 1):
        write(on(model, ms), results / f"step-small-batch4-cpu-2026010{day}-000000.json")
    first, second = readme.block("headline", results).splitlines()
    assert first.startswith("**1.25× to 4.00×** the speed of the official computation")
    assert "ViT-S, batch 4, on 3 processors: 1,000 ms → " in second
    assert "1,000 ms → 500 ms on an EPYC (family 25, model 17), 2 threads ([data]" in second
    found = rows("benchmarks", results)
    assert len(found) == 4
    assert found[-1] == "| ViT-S, batch 4, 3 processors | dual | | | **1.25× to 4.00×** |"
    told = readme.block("benchmarks", results)
    assert (
        "an EPYC (family 25, model 97), 2 threads: AVX2; matmuls at 50 GFLOP/s in fp32 (100 by "
        in told
    )
    assert "7 in bf16." in told
    assert "One processor so far" not in told


def test_a_record_without_the_model_gives_way_to_any_of_that_name(results):
    write(on(None, 250), results / "step-small-batch4-cpu-20260101-000000.json")
    write(on(None, 200, name="other"), results / "step-small-batch4-cpu-20260102-000000.json")
    first, _ = readme.block("headline", results).splitlines()
    assert first.startswith("**4.00× to 5.00×**")
    write(on(17, 500), results / "step-small-batch4-cpu-20260103-000000.json")
    first, second = readme.block("headline", results).splitlines()
    assert first.startswith("**2.00× to 5.00×**")
    assert "on 2 processors" in second
    assert "instructions and matmul rate were not recorded" in readme.block("benchmarks", results)


def test_drop_in(results):
    chains = {
        "official code": ["as shipped", "two lines", "all lines", "ours"],
        "Hugging Face": ["HF", "HF two", "HF all", "ours"],
    }
    runs = [
        run(name, "encoder-only", ms)
        for name, ms in zip(chains["official code"], (4000, 2000, 1600, 1000), strict=True)
    ]
    runs += [run("HF all", "dual", 900), run("ours", "dual", 600)]
    found = record(runs, chains=chains) | {"official_checkout": {"version": "V2"}}
    write(found, results / "drop-in-small-cpu-20260102-000000.json")
    first, second = rows("drop-in", results)
    assert first.startswith("| ViT-S, batch 4, a CPU, 2 threads ([data](results/drop-in-small-")
    assert first.endswith(
        "| official code V2 | encoder-only | 4,000 ms | 2,000 ms **2.00×** | 1,600 ms **2.50×** "
        "| 1,000 ms **4.00×** |"
    )
    assert second == "|  | Hugging Face | dual |  |  | 900 ms | 600 ms |"


def test_paper(results):
    runs = [
        run(name, masking, ms, step_peak_bytes_per_clip=mb * 1e6)
        for name, masking, ms, mb in (
            ("official", "encoder-only", 800, 631), ("official", "dual", 400, 328),
            ("ours", "encoder-only", 400, 300), ("ours", "dual", 160, 100),
        )
    ]  # fmt: skip
    write(record(runs, size="base"), results / "paper-base-cpu-20260102-000000.json")
    official, ours, papers = rows("paper", results)
    assert official.endswith("| official | 35.48 → 25.87 | 631 → 328 | 200 → 100 ms | **2.00×** |")
    assert ours == "|  | ours | 35.48 → 25.87 | 300 → 100 | 100 → 40 ms | **2.50×** |"
    assert papers == (
        "| *ViT-B* | *the paper's* | *35.48 → 25.87* | *631 → 328* | *28.4 → 15.9 h* | *1.79×* |"
    )
    for one in runs:
        del one["step_peak_bytes_per_clip"]
    write(record(runs), results / "paper-small-cpu-20260102-000000.json")
    assert [row.split("|")[4] for row in rows("paper", results)[:2]] == ["  ", "  "]


def test_the_newest_of_each_size_batch_and_device(results):
    runs = [run("official", "dual", 2), run("ours", "dual", 1)]
    for name, options in {
        "paper-small-cpu-20260103-000000": {},
        "paper-base-small-cpu-20260102-000000": {},
        "paper-small-cpu-20260104-000000": {"batch": 8},
        "paper-small-cuda-20260101-000000": {"device": "H200"},
        "paper-base-cpu-20260101-000000": {"size": "base"},
    }.items():
        write(record(runs, **options), results / f"{name}.json")
    tiny = record(runs) | {"settings": {"tiny": True}}
    write(tiny, results / "paper-small-cpu-20260105-000000.json")
    assert [found.path.stem.split("-", 1)[1] for found in newest.newest("paper", results)] == [
        "small-cuda-20260101-000000",
        "small-cpu-20260103-000000",
        "small-cpu-20260104-000000",
        "base-cpu-20260101-000000",
    ]


@pytest.mark.parametrize(
    ("name", "kind"), [("headline", "step"), ("drop-in", "drop-in"), ("paper", "paper")]
)
def test_nothing_is_said_of_what_differs(name, kind, results):
    found = record([run("ours", "dual", 1)], chains={})
    found["parts"][0]["checks"][0]["passed"] = False
    write(found, results / f"{kind}-small-cpu-20260102-000000.json")
    with pytest.raises(UncheckedError):
        readme.block(name, results)


def test_markers_that_are_missing():
    with pytest.raises(ValueError, match="paper: begin"):
        readme.filled("no markers", "paper", "content")
    text = "a\n<!-- paper: begin -->\nold\n<!-- paper: end -->\nb\n"
    wanted = "a\n<!-- paper: begin -->\nnew\n<!-- paper: end -->\nb\n"
    assert readme.filled(text, "paper", "new") == wanted


def reading_record(**more):
    def one(contender, form, views, place="core"):
        return {"contender": contender, "form": form, "place": place, "views_per_s": views}

    runs = [
        one("official", "raw", 30.0),
        one("ours, pyav", "raw", 120.0),
        one("ours, decord", "raw", 100.0),
        one("official", "prepared", 40.0),
        one("ours, pyav", "prepared", 315.0),
        one("ours, cache", "cached", 900.0),
        one("ours, dali", "prepared", 3000.0, place="cuda"),
    ]
    checks = [{**run, "passed": True} for run in runs]
    return {
        "source": "real",
        "machine": {"device": "NVIDIA H200", "cpu": "a CPU"},
        "settings": {"frames": 16, "stride": 4, "samples": 4},
        "runs": runs,
        "checks": checks,
        "pipeline": [
            {"form": "prepared", "crop_on": "worker", "workers": 2, "views_per_s": 532.4},
            {"form": "prepared", "device_decoder": "dali", "workers": 2, "views_per_s": 2000.0},
        ],
        **more,
    }


def test_reading(results):
    write(reading_record(), results / "data-speed-cuda-20260103-000000.json")
    older = reading_record(runs=[], machine={"device": "cpu", "cpu": "old"})
    write(older, results / "data-speed-cpu-20260104-000000.json")
    write(reading_record(source="rendered"), results / "data-speed-cuda-20260105-000000.json")
    found = rows("reading", results)
    assert found[0] == (
        "| NVIDIA H200, a CPU ([data](results/data-speed-cuda-20260103-000000.json)) "
        "| official: decord, PIL, files as they are | 30 | | |"
    )
    assert found[1:] == [
        "| | ours: files as they are | 120 | **4.0×** |  |",
        "| | ours: prepared | 315 | **10.5×** | 532 (2 processes) |",
        "| | ours: prepared and cached | 900 | **30.0×** |  |",
        "| | ours: prepared, dali | 3,000 | **100.0×** |  |",
    ]


@pytest.mark.parametrize("name", ["benchmarks", "drop-in", "paper", "reading"])
def test_an_h100_and_an_h200_never_share_a_row(name, results):
    """Of one capability and one kind of file; the newer one replaces nothing of the other."""
    runs = [run(who, masking, ms) for masking in ("dual", "encoder-only")
            for who, ms in (("official", 2), ("ours", 1))]  # fmt: skip
    chains = {"official code": ["official", "ours"]}
    kind = {"benchmarks": "step", "reading": "data-speed"}.get(name, name)
    cards = ("NVIDIA H100 80GB HBM3", "NVIDIA H200")
    for day, card in enumerate(cards, 1):
        made = record(runs, chains=chains, device=card)
        if name == "reading":
            made = reading_record(machine={"device": card, "cpu": "a CPU"})
        write(made, results / f"{kind}-small-cuda-2026010{day}-000000.json")
    found = rows(name, results)
    for day, card in enumerate(cards, 1):
        own = [row for row in found if f"2026010{day}" in row]
        assert own
        assert all(card in row for row in own)
        assert not any(other in row for other in cards if other != card for row in own)


def test_reading_that_differs_is_not_shown(results):
    wrong = reading_record()
    wrong["checks"][1] |= {"passed": False, "ids": True, "boxes": False, "most": 9, "mean": 1.0}
    write(wrong, results / "data-speed-cuda-20260103-000000.json")
    with pytest.raises(UncheckedError, match="ours, pyav, raw"):
        readme.block("reading", results)
