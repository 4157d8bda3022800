"""Other code's models under `accelerate` as contenders, and the table made of them."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from benchmarks.common.record import read
from benchmarks.common.workload import MASKINGS, Workload
from benchmarks.contenders import accelerated
from benchmarks.contenders.base import UnavailableError, Variant
from benchmarks.contenders.build import build
from benchmarks.measure.checks import UncheckedError, check, truth
from benchmarks.report import plots
from benchmarks.report import studies as study_tables
from benchmarks.studies import drop_in
from benchmarks.studies.baselines import BASELINES, CHECKOUTS
from benchmarks.studies.study import TINY
from videomae_fast import MAEConfig
from videomae_fast.interop.acceleration.retype import original_class
from videomae_fast.models.flops import flops, savings

# Models that accelerate recognises, with the arguments of the official ones
PRETRAIN = """
from modeling_finetune import stand_ins

def PretrainVisionTransformer(
    img_size, patch_size, tubelet_size, encoder_embed_dim, encoder_depth, encoder_num_heads,
    decoder_num_classes, decoder_embed_dim, decoder_depth, decoder_num_heads, mlp_ratio, qkv_bias,
    norm_layer, {options},
):
    return stand_ins.PretrainVisionTransformer(
        img_size, patch_size, encoder_embed_dim, encoder_depth, encoder_num_heads,
        decoder_embed_dim, decoder_depth, decoder_num_heads, {frames}, tubelet_size, {checkpoint},
        mlp_ratio,
    )
"""
V1 = {"options": "use_checkpoint", "frames": "16", "checkpoint": "use_checkpoint"}
V2 = {"options": "with_cp, all_frames", "frames": "all_frames", "checkpoint": "with_cp"}
WORDS = ["--tiny", "--batch", "2", "--repeats", "2", "--warmup", "0", "--threads", "1", "--out"]
LINES = ["two lines", "all lines"]
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A function version -> folder with a checkout."""

    def make(version):
        root = tmp_path_factory.mktemp(version)
        folder = root / ("models" if version == "V2" else ".")
        folder.mkdir(exist_ok=True)
        (folder / "modeling_finetune.py").write_text("from tests.support import stand_ins\n")
        text = PRETRAIN.format(**(V2 if version == "V2" else V1))
        (folder / "modeling_pretrain.py").write_text(text)
        return str(root)

    return make


def against(workload, masking):
    return truth(build("official", Variant("official"), workload, masking))


@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("version", ["V2", "V1"])
def test_the_official_code_computes_the_same(official, version, masking, lines):
    workload = Workload(TINY, 2)
    for options in ({}, {"checkpointing": True}):
        variant = Variant("checkout", checkout=official(version), accelerated=lines, **options)
        if (version, masking, lines) == ("V1", "dual", "two lines"):
            with pytest.raises(UnavailableError, match="no decoder mask"):
                build("accelerated", variant, workload, masking)
            return
        contender = build("accelerated", variant, workload, masking)
        found = check(contender, against(workload, masking))
        assert found.passed, found.told()
        assert original_class(contender.model) is not None
        frames = "frames" in contender.inputs
        assert frames == (lines == "all lines")
        assert frames != ("images" in contender.inputs)


@needs_transformers
@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("masking", MASKINGS)
def test_hugging_face_computes_the_same(masking, lines):
    """With Masks it has dual masking, too."""
    workload = Workload(TINY, 2)
    variant = Variant("hugging-face", accelerated=lines)
    if (masking, lines) == ("dual", "two lines"):
        with pytest.raises(UnavailableError, match="no decoder mask"):
            build("accelerated", variant, workload, masking)
        return
    contender = build("accelerated", variant, workload, masking)
    found = check(contender, against(workload, masking))
    assert found.passed, found.told()
    assert original_class(contender.model) is not None
    assert ("frames" in contender.inputs) == (lines == "all lines")


def test_what_is_wrong_is_found(official, monkeypatch):
    workload = Workload(TINY, 2)
    variant = Variant("checkout", checkout=official("V2"), accelerated="all lines")
    right = accelerated.masked_pixel_loss
    monkeypatch.setattr(accelerated, "masked_pixel_loss", lambda *a, **k: 1.001 * right(*a, **k))
    contender = build("accelerated", variant, workload, "dual")
    assert not check(contender, against(workload, "dual")).passed


def test_accelerated_before_compiled(official):
    variant = Variant("checkout", checkout=official("V2"), accelerated="two lines", compiled=True)
    contender = build("accelerated", variant, Workload(TINY, 2), "dual")
    assert original_class(contender.call._orig_mod) is not None


def test_a_model_that_is_not_known(tmp_path):
    (tmp_path / "modeling_finetune.py").touch()
    (tmp_path / "modeling_pretrain.py").write_text(
        "from benchmarks.official.model import OfficialPretraining\n"
        "from benchmarks.studies.study import TINY\n"
        "def PretrainVisionTransformer(**options):\n"
        "    return OfficialPretraining(TINY)\n"
    )
    variant = Variant("checkout", checkout=str(tmp_path), accelerated="two lines")
    with pytest.raises(UnavailableError, match="not a model that accelerate knows"):
        build("accelerated", variant, Workload(TINY, 2), "encoder-only")
    with pytest.raises(ValueError, match="accelerated is an option of checkout, hugging-face"):
        build(
            "ours", Variant("ours", lean=True, accelerated="all lines"), Workload(TINY, 1), "dual"
        )


@pytest.mark.parametrize("size", ["small", "giant"])
def test_multiply_adds(size):
    """Ours, and the last block and the head for tokens that are decoded but not in the loss."""
    config = MAEConfig.from_size(size)
    for masking in MASKINGS:
        spec = Workload(config, 4).spec(masking)
        found = accelerated.multiply_adds(config, spec, 4)
        ours, official = (
            sum(flops(config, spec, who, batch=4).values()) for who in ("ours", "official")
        )
        if masking == "encoder-only":
            assert found == ours
            continue
        counts, saved = (
            spec.counts(config.grid),
            {s.name: s for s in savings(config, spec, batch=4)},
        )
        more = counts.decoder - counts.loss
        head = more * config.decoder_width * config.patch_values
        # R2 leaves the last block to those in the loss, and the head, of all that are decoded
        block = (saved["R2"].multiply_adds - head) / (counts.visible + more)
        assert ours < found < official
        assert found == pytest.approx(ours + more * block + head, rel=1e-12)


@pytest.fixture(scope="module")
def path(official, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drop-in")
    words = ["--official-checkout", official("V2"), *WORDS, str(folder)]
    assert drop_in.main(words) == 0
    (found,) = folder.glob("*.json")
    return found


@pytest.fixture
def record(path):
    return read(path)


def runs_of(record):
    return {(run["contender"], run["masking"]): run for run in record["parts"][0]["runs"]}


def test_files(path, record):
    text = path.with_suffix(".md").read_text()
    assert study_tables.TABLES["drop-in"](record) + "\n" == text
    assert plots.PLOTS["drop-in"](record, path.with_name("again.svg")).stat().st_size > 5000
    assert path.with_suffix(".png").stat().st_size > 5000
    assert record["official_checkout"]["version"] == "V2"
    assert record["command"].startswith("python -m benchmarks drop-in --official-checkout ")


@needs_transformers
def test_who_is_in_it(record):
    names = {name for chain in drop_in.CHAINS.values() for name in chain}
    assert names <= set(BASELINES) | set(CHECKOUTS)
    found = runs_of(record)
    assert {name for name, masking in found if masking == "encoder-only"} == names
    missing = names - {name for name, masking in found if masking == "dual"}
    assert missing == {"Hugging Face as shipped", "Hugging Face accelerated, two lines"}
    assert all(check["passed"] for check in record["parts"][0]["checks"])
    kept = {run["variant"]["accelerated"] for run in found.values()}
    assert kept == {"no", "two lines", "all lines"}
    assert {run["variant"]["precision"] for run in found.values()} == {"fp32"}


def test_speedups(record):
    seconds = {"shipped": 6.0, "two lines": 3.0, "all lines": 2.0, "ours": 1.5}
    for (name, masking), run in runs_of(record).items():
        of = next(value for word, value in seconds.items() if word in name)
        run["summary"]["total"]["median"] = of if masking == "dual" else 10 * of
    text = study_tables.drop_in_table(record)
    rows = [line for line in text.splitlines() if " | official code " in line]
    assert [row.split("|")[-3:-1] for row in rows] == [
        ["  ", " **4.00×** "], ["  ", " **4.00×** "],
        [" **2.00×** ", " **2.00×** "], [" **2.00×** ", " **2.00×** "],
        [" **3.00×** ", " **1.33×** "], [" **3.00×** ", " **1.33×** "],
    ]  # fmt: skip
    (row,) = [line for line in text.splitlines() if "ours, eager | dual" in line]
    assert row.endswith("|  |  |")


def test_no_table_of_what_differs(record, tmp_path):
    record["parts"][0]["checks"][0]["passed"] = False
    for make in (study_tables.drop_in_table, lambda r: plots.plot_drop_in(r, tmp_path / "no.png")):
        with pytest.raises(UncheckedError, match="differs from official in fp32"):
            make(record)


def test_without_a_checkout(tmp_path, capsys):
    assert drop_in.main(["--masking", "dual", *WORDS, str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name in drop_in.CHAINS["official code"][:-1]:
        assert f"* dual, {name}: not timed, UnavailableError: it needs a checkout" in out
    assert "| ours, eager | dual |" in out
    with pytest.raises(SystemExit):
        drop_in.main(["--official-checkout", str(tmp_path)])
    assert "no checkout of" in capsys.readouterr().err
