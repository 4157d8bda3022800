"""Every command and every piece of Python in the README and the guide runs.

Long ones run with options appended that make them short (`SHORT`); what is not run is named here,
with who runs it instead (`ELSEWHERE`). A command that is neither fails the test.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.run import get_args_parser

from benchmarks.official.step import normalized_images, pretraining_loss
from tests.support import stand_ins
from tests.support.boxed import write_boxed
from tests.support.documents import GUIDE, ROOT, blocks, commands
from tests.support.known import know_the_stand_ins
from tests.support.launches import COMMAND, Host
from videomae_fast import Grid, MAEConfig, Masks, MaskSpec, VideoClassifier, masked_pixel_loss
from videomae_fast.cli import main
from videomae_fast.demo.videos import render_videos, write_list
from videomae_fast.interop.acceleration.retype import original_class

DOCUMENTS = ("README.md", "docs/README.md", *GUIDE)

TINY_MODEL = (
    "--image-size 32 --patch-size 16 --frames 4 --width 32 --depth 1 --heads 2 --decoder-width 32 "
    "--decoder-depth 1 --decoder-heads 2 --encoder-mask-ratio 0.75"
)
TINY_RUN = "--videos-per-step 2 --epoch-size 2 --epochs 1 --warmup-epochs 0 --workers 0 --stride 1"
SHORT = {
    "pretrain": f"{TINY_MODEL} {TINY_RUN} --device cpu --precision fp32",
    "finetune": "--image-size 32 --patch-size 16 --frames 4 --width 32 --depth 1 --heads 2 "
    f"{TINY_RUN} --device cpu --precision fp32",
    "distill": "--image-size 32 --patch-size 16 --frames 4 --width 32 --depth 1 --heads 2 "
    f"{TINY_RUN} --device cpu --precision fp32",
    "test": "--workers 0 --device cpu",
    "train": "--image-size 32 --patch-size 16 --frames 4 --width 32 --depth 1 --heads 2 "
    f"--short-side 32 {TINY_RUN} --device cpu --precision fp32",
    "reconstruct": "--mask-ratio 0.75 --stride 1",
    "demo": "--steps 20",
    "plan": "--depth 2",
}
TINY_FIELDS = {
    "model.image_size": 32, "model.patch_size": 16, "model.frames": 4, "model.width": 32,
    "model.depth": 1, "model.heads": 2, "model.decoder_width": 32, "model.decoder_depth": 1,
    "model.decoder_heads": 2, "masks.encoder_ratio": 0.75, "optim.videos_per_step": 2,
    "data.epoch_size": 2, "data.workers": 0, "data.stride": 1, "schedule.epochs": 1,
    "schedule.warmup_epochs": 0, "run.device": "cpu", "run.precision": "fp32",
}  # fmt: skip
SHORT["progressive"] = " ".join(f"--set {name}={value}" for name, value in TINY_FIELDS.items())
PROCESSES = 2  # instead of 8: each takes seconds to begin, and the layouts have tests of their own
ELSEWHERE = {
    "make demo": "CI's own run of the demo",
    "make test": "this run",
    "videomae-fast prepare train.csv --output spread": "tests/cli/test_ray.py",
    "pip install": ".ci/run installs wheel, sdist and editable",
    "VIDEOMAE_FAST_NATIVE=0 pip install": ".ci/run installs without the library",
}


ALL = [(document, command) for document in DOCUMENTS for command in commands(document)]
RUN = [(d, c) for d, c in ALL if not c.startswith(tuple(ELSEWHERE))]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the documents speak of: lists, clips, a Kinetics-710 classifier."""
    folder = tmp_path_factory.mktemp("readme")
    videos = render_videos(folder / "clips", 4, size=48, seconds=0.5)
    write_list(folder / "train.csv", videos)
    write_list(folder / "more.csv", videos[:2])
    (folder / "clip.mp4").write_bytes(videos[0].read_bytes())
    for number, place in enumerate(("train/jump", "train/run", "val/jump", "val/run")):
        (folder / "actions" / place).mkdir(parents=True)
        (folder / "actions" / place / "0.mp4").write_bytes(videos[number].read_bytes())
    write_ava(folder / "ava")
    for number, place in enumerate(("jump", "swim")):
        (folder / "sports" / place).mkdir(parents=True)
        (folder / "sports" / place / "0.mp4").write_bytes(videos[number].read_bytes())
    (plan,) = blocks("docs/guide/progressive.md", "toml")
    (folder / "plan.toml").write_text(plan)
    wide = VideoClassifier(MAEConfig(width=384, depth=1, heads=6), num_classes=710)
    torch.save({"module": wide.state_dict()}, folder / "vit_s_k710_dl_from_giant.pth")
    (folder / "label_710to400.json").write_text(str(list(range(709, 309, -1))))
    return folder


def write_ava(folder: Path) -> None:
    """Lists, videos and detected persons as of AVA, whose videos begin at second 900."""
    folder.mkdir()
    write_boxed(folder, 4, 2, videos=True)
    (folder / "frames").rename(folder / "videos")
    for name in ("train.csv", "val.csv"):
        rows = [line.split(",", 2) for line in (folder / name).read_text().splitlines()]
        (folder / name).write_text("".join(f"{video},0901,{rest}\n" for video, _, rest in rows))
    persons = [f"{video},901,{rest.rpartition(',')[0]},,0.9\n" for video, _, rest in rows]
    (folder / "persons.csv").write_text("".join(persons))


def test_documents_have_commands() -> None:
    told = {command.split()[1] for _, command in RUN if command.startswith("videomae-fast ")}
    assert told >= {
        "pretrain",
        "finetune",
        "distill",
        "test",
        "detect",
        "progressive",
        "list",
        "labels",
        "probe",
        "prepare",
        "store",
        "cache",
        "reconstruct",
        "features",
        "probe-features",
        "convert",
        "flops",
        "doctor",
    }
    assert {"make demo", "make test"} <= {command for _, command in ALL}


def test_every_command_runs_in_the_order_of_its_document(
    workplace: Path, host: Host, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    launches = 0
    for document, command in RUN:
        words = shlex.split(command)
        name = next((word for word in words if word in SHORT), None)
        words += shlex.split(SHORT[name]) if name else []
        if "--steps" in words and "demo" not in words:  # thousands of them there, a few here
            words += ["--steps", str(int(words[words.index("--steps") + 1]) // 10_000)]
        if words[0] == "videomae-fast" and words[-2] == ">":
            code, printed = main(words[1:-2]), capfd.readouterr()
            Path(words[-1]).write_text(printed.out)
        elif words[0] == "videomae-fast":
            code = main(words[1:])
        elif words[0] == "torchrun":
            code = torchrun(words[1:]) if launches == 0 else forked(words[1:], host)
            launches += 1
        elif words[:3] == ["python", "-m", "benchmarks"]:
            code = benchmarks(words[3:])
        else:
            pytest.fail(f"{document}: no rule how to run `{command}`")
        told = capfd.readouterr()
        assert code == 0, f"{document}: {command}\n{told.out}\n{told.err}"
    assert list((workplace / "pictures").glob("*.png"))
    assert list((workplace / "runs").glob("*/checkpoints/*/model.safetensors"))
    for page in GUIDE:  # each by itself; they read what the commands wrote
        run_python(page)


def benchmarks(words: list[str]) -> int:
    from benchmarks.__main__ import main as run

    return run(words)


def torchrun(words: list[str]) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    count = words.index("--nproc-per-node") + 1
    words = [*words[:count], str(min(int(words[count]), PROCESSES)), *words[count + 1 :]]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words]
    return subprocess.run(command, env=environment, timeout=300).returncode


def forked(words: list[str], host: Host) -> int:
    """The same without its imports: torchrun's own parser reads what is for torchrun."""
    given = get_args_parser().parse_args(words)
    assert given.module, words
    assert given.training_script == "videomae_fast", words
    count, log = min(int(given.nproc_per_node), PROCESSES), Path("launch.log").resolve()
    print(host.start(count, COMMAND, given.training_script_args, log, folder=Path.cwd()).finish())
    log.unlink()
    return 0


def run_python(document: str) -> None:
    names: dict[str, object] = {}
    for code in blocks(document, "python"):
        exec(compile(code, document, "exec"), names)


def test_the_readmes_python_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    run_python("README.md")


def test_the_replacements_give_the_loss_of_the_official_formula() -> None:
    """The `+` lines of the README's diffs, on a model with the official names."""
    two_lines, the_rest = (
        [line[1:] for line in diff.splitlines() if not line.startswith("-")]
        for diff in blocks("README.md", "diff")
    )
    know_the_stand_ins()
    official = stand_ins.PretrainVisionTransformer(img_size=224, patch_size=16, all_frames=16)
    names: dict[str, Any] = {"get_model": lambda _: official, "args": None}
    exec("\n".join(two_lines), names)
    assert original_class(official) is stand_ins.PretrainVisionTransformer

    frames = torch.randint(0, 256, (2, 16, 224, 224, 3), dtype=torch.uint8)
    names |= {"frames": frames, "Masks": Masks, "MaskSpec": MaskSpec, "Grid": Grid}
    names["masked_pixel_loss"] = masked_pixel_loss
    exec("\n".join(the_rest), names)
    encoder_mask, decoder_mask = names["masks"].to_bool()
    expected = pretraining_loss(
        official, normalized_images(frames), encoder_mask, decoder_mask,
        tubelet=2, patch=16, autocast=None,
    )  # fmt: skip
    torch.testing.assert_close(names["loss"], expected)


def test_the_first_screen_shows_one_number_one_picture_and_what_to_type() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    assert len(first.splitlines()) < 40
    assert first.count("×**") == first.count("<!-- headline: begin -->") == first.count("![") == 1
    assert re.findall(r"^make \w+", first, re.MULTILINE) == ["make demo", "make test"]
    assert re.findall(r"^\+(.*?)(?:  #.*)?$", first, re.MULTILINE) == [
        "import videomae_fast",
        "videomae_fast.accelerate(model)",
    ]


def test_links_lead_somewhere() -> None:
    """On a code host, which shows the files as they lie; `make site` follows those of the site."""
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"):
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\((?!https?://)([^)#\s]+)", text):
            assert path.parent.joinpath(target).exists(), f"{path.relative_to(ROOT)}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_block_escapes(document: str) -> None:
    """Other languages than these are run by nothing."""
    text = (ROOT / document).read_text(encoding="utf-8")
    languages = re.findall(r"^```(\w*)", text, re.MULTILINE)[::2]
    assert set(languages) <= {"shell", "python", "diff", "toml", "yaml", "text"}
    assert text.count("\n```") % 2 == 0
