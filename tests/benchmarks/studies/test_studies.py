"""The paper's table, the breakdown and the ablations: tiny runs, and tables of made-up figures."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.common.record import read
from benchmarks.common.workload import Workload
from benchmarks.contenders.build import build
from benchmarks.contenders.ours import Ours
from benchmarks.measure.cases import Case
from benchmarks.measure.checks import UncheckedError, check, truth
from benchmarks.official.savings import SAVINGS
from benchmarks.report import plots
from benchmarks.report import records as report
from benchmarks.report import studies as study_tables
from benchmarks.studies import ablation, breakdown, paper, study
from benchmarks.studies.study import TINY

WORDS = ["--tiny", "--batch", "2", "--repeats", "2", "--warmup", "0", "--threads", "1", "--out"]


def files(path):
    """The table and the plots beside a record come from it alone."""
    record, text = read(path), path.with_suffix(".md").read_text()
    assert record["machine"]["cpu"]
    assert record["command"].startswith(f"python -m benchmarks {record['kind']} ")
    assert study_tables.TABLES[record["kind"]](record) + "\n" == text
    assert path.with_suffix(".png").stat().st_size > 5000
    again = plots.PLOTS[record["kind"]](record, path.with_name("again.svg"))
    assert again.stat().st_size > 5000
    return record


@pytest.fixture
def ran(tmp_path, capsys):
    """A function (main, words) -> the record of a run that ends well, with its files."""

    def run(main, *words):
        assert main([*words, *WORDS, str(tmp_path)]) == 0
        (path,) = tmp_path.glob("*.json")
        assert path.with_suffix(".md").read_text() in capsys.readouterr().out
        return files(path)

    return run


@pytest.fixture(scope="module")
def paper_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    assert paper.main(["--sizes", "base", "small", "--no-memory", *WORDS, str(folder)]) == 0
    (path,) = folder.glob("*.json")
    return path


@pytest.fixture
def paper_record(paper_path):
    return read(paper_path)


def test_paper_files(paper_path):
    files(paper_path)


def test_paper(paper_record):
    assert [part["size"] for part in paper_record["parts"]] == ["base", "small"]
    for part in paper_record["parts"]:
        found = [(run["masking"], run["contender"]) for run in part["runs"]]
        assert found == [
            (masking, name)
            for masking in ("encoder-only", "dual")
            for name in ("official as shipped, eager", "ours, eager")
        ]
        assert all(run["variant"]["precision"] == "fp32" for run in part["runs"])
        assert all(check["passed"] for check in part["checks"])
        for run in part["runs"]:
            assert len(run["seconds"]["total"]) == 2


def test_papers_table(paper_record):
    """Speedups are ratios of the medians; the paper's rows are there, tagged."""
    base, small = paper_record["parts"]
    for run, seconds in zip(base["runs"], [8.0, 4.0, 2.0, 1.6], strict=True):
        run["summary"]["total"]["median"] = seconds
        run["step_peak_bytes_per_clip"] = 123e6
    text = study_tables.paper_table(paper_record)
    row = {tuple(c.strip() for c in line.split("|")[2:4]): line for line in text.splitlines()
           if line.startswith("| ViT-B")}  # fmt: skip
    assert row["official as shipped, eager", "dual"].endswith("|  | **4.00×** |")
    assert row["ours, eager", "encoder's mask only"].endswith("| **2.00×** |  |")
    assert row["ours, eager", "dual"].endswith("| **1.25×** | **2.50×** |")
    assert "| 123 | 800 | 1.25 |" in row["ours, eager", "dual"]  # 1.6 s for 2 clips
    assert "*25.87* | *328* | *15.9 h* " in row["*the paper's*", "*dual*"]
    assert "*1.79×*" in row["*the paper's*", "*dual*"]
    assert "the paper's figures" in text
    assert "TINY SHAPES" in text
    assert not [line for line in text.splitlines() if "ViT-S" in line and "paper's" in line]
    paper_record["parts"] = [{**small, "size": "giant"}]
    assert "| *241.61* | *1,050* | *241 h* " in study_tables.paper_table(paper_record)


def test_mfu_on_a_known_gpu(paper_record):
    paper_record["machine"]["device"] = "NVIDIA H200"
    paper_record["parts"][0]["runs"][0]["official_flop_per_second"] = 0.25 * 989e12
    text = study_tables.paper_table(paper_record)
    assert "| MFU |" in text
    assert "| 25.0% |" in text


def test_no_table_of_what_differs(paper_record, tmp_path):
    paper_record["parts"][1]["checks"][0]["passed"] = False
    for make in (
        lambda: study_tables.paper_table(paper_record),
        lambda: plots.plot_paper(paper_record, tmp_path / "no.png"),
    ):
        with pytest.raises(UncheckedError, match="differs from official in fp32"):
            make()


def test_what_differs_is_left_out_and_told(tmp_path, capsys, monkeypatch):
    right = Ours.loss
    monkeypatch.setattr(Ours, "loss", lambda self: right(self) * 1.001)
    words = ["--sizes", "small", "--no-memory", *WORDS, str(tmp_path)]
    assert paper.main(words) == 1
    out = capsys.readouterr().out
    assert "NOT EQUAL" in out
    (path,) = tmp_path.glob("*.json")
    record = read(path)
    assert {run["contender"] for run in record["parts"][0]["runs"]} == {
        "official as shipped, eager"
    }
    assert "* ViT-S, dual, ours, eager: not timed, differs from the reference" in out


@pytest.mark.skipif(not study.CLEAR.exists(), reason="peak memory is read as Linux has it")
def test_peak_memory_is_of_a_process_of_its_own(paper_record, capsys):
    part = paper_record["parts"][0]
    part["runs"] = part["runs"][:1]
    args = study.study_arguments("x", None).parse_args(["--threads", "1"])
    study.add_peaks(part, args, study.Budget(0.0))
    assert "no time was left" in capsys.readouterr().out
    assert study_tables.memory_per_clip(part["runs"][0]) is None
    study.add_peaks(part, args, study.Budget())
    assert study_tables.memory_per_clip(part["runs"][0]) > 0


def names(steps):
    return [step.name for step in steps]


def test_chain_on_a_cpu():
    steps = breakdown.chain("small", gpu=False, compiled=False)
    assert steps[0].masking == "encoder-only"
    assert {step.masking for step in steps[1:]} == {"dual"}
    assert steps[0].variant == steps[1].variant  # masking alone
    saved = [step.variant.savings for step in steps if step.variant.savings]
    assert saved[:4] == [SAVINGS[: i + 1] for i in range(4)]
    assert len(set(names(steps))) == len(steps)
    assert not any(step.variant.compiled or step.variant.captured for step in steps)
    assert {step.variant.precision for step in steps} == {"fp32"}
    last = steps[-1].variant
    assert (last.kind, last.backend, last.op_backends) == ("ours", "auto", {})
    assert breakdown.chain("small", gpu=False, compiled=True)[-1].variant.compiled


def test_chain_on_a_gpu():
    for size in ("base", "giant"):
        steps = breakdown.chain(size, gpu=True, compiled=True)
        assert steps[0].variant.checkpointing == (size == "giant")
        assert ("no activation checkpointing" in names(steps)) == (size == "giant")
        assert steps[0].variant.precision == "fp16"
        assert all(step.variant.from_host for step in steps)
        assert "oneDNN" not in " ".join(names(steps))
        assert steps[-1].variant.captured
        assert steps[-2].variant.compiled
        assert not steps[-3].variant.compiled


@pytest.mark.parametrize("i", range(len(breakdown.chain("small", gpu=False, compiled=False))))
def test_every_link_is_the_same_computation(i):
    step = breakdown.chain("small", gpu=False, compiled=False)[i]
    workload = Workload(TINY, 2)
    against = truth(build("official", breakdown.Variant("official"), workload, step.masking))
    found = check(build(step.name, step.variant, workload, step.masking), against)
    assert found.passed, found.told()


def test_a_link_uses_the_backends_it_names(monkeypatch):
    """In both directions, and nowhere else."""
    from videomae_fast.ops import registry

    chosen = {}
    right = registry.Op.pick

    def pick(self, impl, args):
        found = right(self, impl, args)
        if not self.backends[found].composite:
            chosen[self.name] = found
        return found

    monkeypatch.setattr(registry.Op, "pick", pick)
    for step in breakdown.chain("small", gpu=False, compiled=False):
        if step.variant.kind != "ours":
            continue
        chosen.clear()
        contender = build(step.name, step.variant, Workload(TINY, 2), step.masking)
        contender.backward(contender.loss())
        plain = {name: impl for name, impl in chosen.items() if "linear" not in name}
        assert {"pixel_mse", "pixel_mse_backward", "patch_gather"} & set(plain)
        if step.variant.backend == "reference":
            assert set(plain.values()) == {"reference"}
        elif registry.native_missing() is None:
            assert "native" in plain.values()
        if step.variant.op_backends:
            assert "linear" not in chosen  # torch's own


def test_breakdown(ran):
    record = ran(breakdown.main, "--size", "small")
    (part,) = record["parts"]
    assert len(part["runs"]) == len(part["chain"])
    for i, run in enumerate(part["runs"]):
        run["summary"]["total"]["median"] = 10.0 - (0 if i == 0 else 4 if i == 1 else 5)
    text = study_tables.breakdown_table(record)
    rows = [line for line in text.splitlines() if " (" in line and line.startswith("|")]
    assert rows[1].endswith("| **1.67×** | 80% | **1.67×** |")
    assert rows[2].endswith("| **1.20×** | 20% | **2.00×** |")
    assert rows[3].endswith("| **1.00×** | 0% | **2.00×** |")
    assert "ours: uint8 clips, seeds" in text
    # A link that could not be timed: the next is compared with the one before it
    part["runs"] = [part["runs"][0], *part["runs"][2:]]
    text = study_tables.breakdown_table(record)
    rows = [line for line in text.splitlines() if " (" in line and line.startswith("|")]
    assert rows[1].endswith("| **2.00×** | 100% | **2.00×** |")


def test_ablation_of_masks(ran):
    record = ran(ablation.main, "masks")
    values = [part["value"] for part in record["parts"]]
    assert values[0] == "none"
    assert len(values) == 10
    assert {"running-cell 0.25", "random 0.5", "frame 0.75"} <= set(values)
    adds = {part["value"]: part["runs"][1]["forward_multiply_adds_per_clip"]
            for part in record["parts"]}  # fmt: skip
    assert adds["none"] > adds["running-cell 0.25"] > adds["running-cell 0.75"]
    assert all(len(part["runs"]) == 2 for part in record["parts"])


@pytest.mark.parametrize(
    ("what", "values", "field"),
    [
        ("batch", (1, 2), None),
        ("frames", (8, 16), "frames"),
        ("resolution", (32, 64), "image_size"),
    ],
)
def test_ablation_of_shapes(ran, what, values, field):
    record = ran(ablation.main, what, "--values", *map(str, values))
    assert [part["value"] for part in record["parts"]] == list(values)
    for part, value in zip(record["parts"], values, strict=True):
        work = part["workload"]
        assert (work["config"][field] if field else work["batch"]) == value
    first, second = record["parts"]
    for run, seconds in zip(first["runs"] + second["runs"], [2.0, 1.0, 8.0, 2.0], strict=True):
        run["summary"]["total"]["median"] = seconds
    text = study_tables.ablation_table(record)
    grown = 4.0 * first["workload"]["batch"] / second["workload"]["batch"]
    assert f"| {grown:.2f} |" in text
    assert "**4.00×**" in text


def test_sizes_and_wrong_values(capsys, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # of this process
    args = study.study_arguments("x", None).parse_args([])
    args.values, args.size, args.tiny = None, "small", False
    assert [p.size for p in ablation.points("size", args)] == ["small", "base"]
    for words, told in (
        (["masks", "--values", "3"], "every decoder mask"),
        (["resolution", "--values", "100"], "image height 100 is not"),
        (["size", "--values", "colossal"], "unknown model size 'colossal'"),
        (["batch", "--contenders", "fastest"], "unknown baselines ['fastest']"),
        (["batch", "--official-checkout", "/nowhere"], "no checkout of"),
    ):
        with pytest.raises(SystemExit):
            ablation.main(words)
        assert told in capsys.readouterr().err


def test_no_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for main in (paper.main, breakdown.main):
        with pytest.raises(SystemExit):
            main(["--device", "cuda"])
        assert "no GPU here" in capsys.readouterr().err


def test_defaults_by_device():
    args = study.study_arguments("x", None).parse_args(["--device", "cuda"])
    args.contenders = args.official_checkout = None
    assert study.default_contenders(args) == ["official as shipped, eager", "ours, eager"]
    assert study.workload_of("giant", args).batch == study.GPU_BATCH["giant"]
    args.contenders = ["strong"]
    assert study.study_cases("base", args, ["dual"])[0].variant.precision == "bf16"
    args.device = "cpu"
    assert study.study_cases("base", args, ["dual"])[0].variant.precision == "fp32"
    assert isinstance(study.study_cases("base", args, ["dual"])[0], Case)


def test_tables_and_plots_by_command(paper_path, capsys):
    assert report.main([str(paper_path)]) == 0
    assert capsys.readouterr().out.strip() == paper_path.with_suffix(".md").read_text().strip()
    assert plots.main([str(paper_path), "--suffix", ".svg"]) == 0
    assert paper_path.with_suffix(".svg").stat().st_size > 5000


def test_tables_of_another_kind(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"kind": "copy"}))
    for main in (report.main, plots.main):
        with pytest.raises(SystemExit):
            main([str(path)])
        assert "is of 'copy'" in capsys.readouterr().err
