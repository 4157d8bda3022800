"""The command that runs checkouts: its pairs, endings and stand-ins, on a checkout of stand-ins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.checkouts import forks, hugging_face, pairs, training_packages
from benchmarks.checkouts import run as command
from benchmarks.checkouts.child import Job, Result
from benchmarks.checkouts.pairs import ScriptError, checkpoints, features, pair, relative
from benchmarks.checkouts.rows import Row, table
from benchmarks.common.record import read
from benchmarks.official import timm_stand_in
from tests.support import stand_ins
from videomae_fast import accelerate
from videomae_fast.errors import AccelerationError
from videomae_fast.interop.acceleration import code

SCRIPT = """
import argparse
from pathlib import Path

import torch
from timm.models import create_model
from timm.data.constants import IMAGENET_DEFAULT_MEAN
import modeling
import utils
from videomae_fast.interop.acceleration import code

# The stand-in counts as the official code
for name, digest in code.digests(Path(modeling.__file__).read_text()):
    code.known_code().setdefault(name, {})[digest] = "a stand-in"

def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir")
    return parser.parse_args()

def get_model(args):
    return create_model("pretrain_small", drop_path_rate=0.3, drop_block_rate=None)

def main(args):
    torch.manual_seed(0)
    model = get_model(args).train()
    assert model.encoder.blocks[0].norm1.weight.numel() == 32, "other sizes were asked for"
    model.cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    meters = utils.MetricLogger()
    mask = (torch.arange(16) % 4 > 0).expand(2, 16)
    for step in range(3):
        with torch.cuda.amp.autocast():
            loss = model(torch.randn(2, 3, 8, 32, 32), mask).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        meters.update(loss=loss.item(), grad_norm=1.0)
    torch.save({"model": model.state_dict()}, Path(args.output_dir) / "checkpoint-0.pth")
"""
MODELING = """
from timm.models.layers import drop_path
from timm.models.registry import register_model
{stand_ins}

@register_model
def pretrain_small(pretrained=False, drop_path_rate=0.0, **settings):
    return PretrainVisionTransformer(width=384, drop_path=drop_path_rate, **settings)
"""
UTILS = """
class MetricLogger:
    def update(self, **values):
        self.values = values
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    source = Path(stand_ins.__file__).read_text().replace("from __future__", "# from __future__")
    (folder / "run_mae_pretraining.py").write_text(SCRIPT)
    (folder / "modeling.py").write_text(MODELING.format(stand_ins=source))
    (folder / "utils.py").write_text(UTILS)
    return folder


def test_a_script_runs_as_it_is_and_with_the_two_lines(checkout, tmp_path):
    sizes = {"PretrainVisionTransformer": {"width": 32}}

    def make(folder: Path) -> Job:
        words = ["--output_dir", str(folder)]
        return Job(
            str(checkout), "run_mae_pretraining", words, "get_model", False, "cpu", sizes,
            later_timm=True,
        )  # fmt: skip

    row = pair("a script", make, tmp_path / "runs", checkpoints)
    assert row.ending == "equal", row
    assert row.numbers["losses"] == 3
    assert row.numbers["weights"] < 1e-5
    kept = [json.loads((tmp_path / "runs" / way / "result.json").read_text())
            for way in ("as-it-is", "two-lines")]  # fmt: skip
    assert "accelerated" not in kept[0]["report"]
    assert "the official pre-training model, accelerated" in kept[1]["report"]
    assert "timm.models" in kept[1]["stand_ins"]


def job(folder: Path) -> Job:
    return Job("nowhere", "script", [], "get_model", False)


GOOD = Result(losses=[1.0, 2.0], report="accelerated")
ENDINGS = {
    "equal": (GOOD, "equal", ""),
    "other losses": (replace(GOOD, losses=[1.0, 2.1]), "FAILED", "too far: apart by"),
    "no number": (replace(GOOD, losses=[1.0, float("nan")]), "FAILED", "too far: apart by"),
    "fewer steps": (replace(GOOD, losses=[1.0]), "FAILED", "2 losses as it is, 1 accelerated"),
    "refused": (Result(refused="has an adapter"), "refused", "has an adapter"),
    "never accelerated": (replace(GOOD, report=""), "FAILED", "the two lines were not run"),
    "crashed": (ScriptError("exit status 1: boom"), "FAILED", "exit status 1: boom"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_is_told(name, tmp_path, monkeypatch):
    found, ending, told = ENDINGS[name]

    def run(asked: Job, folder: Path) -> Result:
        if not asked.accelerated:
            return replace(GOOD, report="")
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(pairs, "run", run)
    row = pair("a script", job, tmp_path, lambda original, ours: {"weights": 0.0})
    assert (row.ending, row.told) == (ending, told)


def test_a_script_that_fails_by_itself_is_told_as_such(tmp_path, monkeypatch):
    def run(asked: Job, folder: Path) -> Result:
        raise ScriptError("exit status 1: no data")

    monkeypatch.setattr(pairs, "run", run)
    row = pair("a script", job, tmp_path, checkpoints)
    assert row.ending == "FAILED"
    assert row.told == "as it is, without the two lines: exit status 1: no data"


def test_files_that_differ_are_seen(tmp_path):
    import numpy as np

    one, other = tmp_path / "one", tmp_path / "other"
    for folder, scale in ((one, 1.0), (other, 1.1)):
        (folder / "features").mkdir(parents=True)
        np.save(folder / "features" / "clip.npy", scale * np.ones(3))
        state = {"weight": scale * torch.ones(2)}
        torch.save({"model": state, "model_ema": state}, folder / "checkpoint-1.pth")
    assert features(one, other)["features apart by"] == pytest.approx(0.1)
    found = checkpoints(one, other)
    assert found == {"weights": pytest.approx(0.1), "averaged weights": pytest.approx(0.1)}
    torch.save({"model": {"_orig_mod.weight": torch.ones(2)}}, other / "checkpoint-1.pth")
    with pytest.raises(ValueError, match="other keys"):
        checkpoints(one, other)
    (other / "features" / "clip.npy").unlink()
    with pytest.raises(ValueError, match="other files"):
        features(one, other)
    assert relative([2.0], [1.0]) == 0.5
    assert relative([1.0], [float("nan")]) == float("inf")


@pytest.fixture
def _stand_ins_are_known():
    for name, digest in code.digests(Path(stand_ins.__file__).read_text()):
        code.known_code().setdefault(name, {})[digest] = "tests/support/stand_ins.py"


def doubled(model: nn.Module) -> None:
    model.head.register_forward_hook(lambda module, inputs, out: 2 * out)


def refuse(model: nn.Module) -> None:
    raise AccelerationError("blocks.0 has an adapter")


@pytest.mark.usefixtures("_stand_ins_are_known")
@pytest.mark.parametrize(
    ("does", "ending"), [(accelerate, "equal"), (doubled, "FAILED"), (refuse, "refused")]
)
def test_forks_are_compared(does, ending, monkeypatch):
    monkeypatch.setattr(forks, "accelerate", does)
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    model = stand_ins.VisionTransformer()
    row = forks.compared("a classifier", model, lambda m: m(clips).square().mean())
    assert row.ending == ending, row
    assert row.ending != "refused" or row.told == "blocks.0 has an adapter"


def answers(**changed: dict[str, str]):
    """A `run` of Hugging Face's tests with other outcomes where accelerated."""
    tests = {"test_config": "passed", "test_model": "passed", "test_gpu": "skipped"}

    def run(words: list[str], checkout: Path, folder: Path):
        ours = "accelerated" in words
        return {
            "tests": {**tests, **(changed.get("tests", {}) if ours else {})},
            "models": changed.get("models", {"accelerated": 3}) if ours else {},
            "refused": changed.get("refused", []),
        }

    return run


@pytest.mark.parametrize(
    ("changed", "ending", "told"),
    [
        ({}, "equal", "the same tests pass"),
        ({"tests": {"test_gpu": "passed"}}, "equal", "the same tests pass"),
        ({"tests": {"test_model": "failed"}}, "FAILED", "no longer pass: test_model"),
        ({"models": {"refused": 3}, "refused": ["has dropout"]}, "refused", "has dropout"),
        ({"models": {}}, "FAILED", "no model was made"),
    ],
)
def test_hugging_faces_tests(changed, ending, told, tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face, "run", answers(**changed))
    (tmp_path / hugging_face.TESTS).parent.mkdir(parents=True)
    (tmp_path / hugging_face.TESTS).touch()
    row = hugging_face.row(tmp_path, tmp_path / "out", dropout=True)
    assert (row.ending, row.told) == (ending, told)


def test_a_folder_without_the_tests_is_not_run(tmp_path):
    row = hugging_face.row(tmp_path, tmp_path / "out", dropout=False)
    assert row.ending == "not run"
    assert hugging_face.TESTS in row.told


def test_the_command_writes_a_record_and_tells_failures(tmp_path, monkeypatch, capsys):
    rows = [Row("one", "equal", "", {"losses": 4, "apart by": 1.5e-7}), Row("two", "FAILED", "no")]
    found = [("saving", lambda row=row: row) for row in rows]
    monkeypatch.setattr(command, "checks", lambda args, folder: iter([*found, ("forks", None)]))
    assert command.main(["--parts", "saving", "--out", str(tmp_path)]) == 1
    record = read(next(tmp_path.glob("checkouts-cpu-*.json")))
    assert [row["ending"] for row in record["rows"]] == ["equal", "FAILED"]
    assert record["study"] == "checkouts"
    text = capsys.readouterr().out
    assert "equal    one: losses 4, apart by 1.5e-07" in text
    assert table(rows) in text
    with pytest.raises(SystemExit):
        command.main(["--official-v2", str(tmp_path / "missing")])
    assert "is no folder" in capsys.readouterr().err


def test_checks_follow_the_checkouts(tmp_path):
    args = command.arguments().parse_args([])
    assert [part for part, _ in command.checks(args, tmp_path)] == ["saving"]
    words = ["--official-v1", "a", "--official-v2", "b", "--ava", "c", "--transformers", "d"]
    parts = [part for part, _ in command.checks(command.arguments().parse_args(words), tmp_path)]
    assert parts.count("saving") == 3
    assert parts.count("pre-training") == 6
    assert parts.count("fine-tuning") == 2
    assert parts.count("transformers") == 2
    assert {"features", "forks"} <= set(parts)


def test_training_stand_ins():
    clips = torch.randn(4, 3, 8, 8)
    mixed, labels = training_packages.Mixup(0.8, 1.0, num_classes=5)(
        clips.clone(), torch.tensor([0, 1, 2, 3])
    )
    assert mixed.shape == clips.shape
    torch.testing.assert_close(labels.sum(1), torch.ones(4))
    logits = torch.randn(4, 5)
    target = torch.tensor([0, 1, 2, 3])
    smooth = training_packages.LabelSmoothingCrossEntropy(0.1)(logits, target)
    expected = nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(smooth, expected)
    soft = training_packages.SoftTargetCrossEntropy()(logits, labels)
    torch.testing.assert_close(soft, nn.functional.cross_entropy(logits, labels))
    assert training_packages.accuracy(torch.eye(5)[:4], target, (1, 5))[0] == 100
    model = nn.Linear(2, 2)
    average = training_packages.ModelEma(model, 0.5)
    before = model.weight.detach().clone()
    model.weight.data.add_(1.0)
    average.update(model)
    torch.testing.assert_close(average.ema.weight, before + 0.5)
    assert list(training_packages.get_state_dict(average)) == ["weight", "bias"]
    with pytest.raises(RuntimeError, match="unknown model"):
        training_packages.create_model("nothing")


@pytest.mark.parametrize("form", [timm_stand_in.drop_path, timm_stand_in.drop_path_since_0_5])
def test_drop_path_keeps_the_mean(form):
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3)
    dropped = form(x, 0.25, True)
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0, 1 / 0.75])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)
    assert form(x, 0.25, False) is x
    assert form(x, 0.0, True) is x
