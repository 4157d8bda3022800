"""``videomae-fast pretrain``: options from fields, and what it says to mistakes."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

import pytest

from videomae_fast import cli
from videomae_fast.cli import pretrain
from videomae_fast.data import ListError, Source
from videomae_fast.data.sources import load_sources
from videomae_fast.errors import UsageError
from videomae_fast.training import RECIPES, PretrainConfig


@pytest.fixture
def tiny_list(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.csv"
    path.write_text("0.mp4 0 -1\n", encoding="utf-8")
    return path


def config(*words: str) -> PretrainConfig:
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    return pretrain.config_from(parser.parse_args(words))


def test_a_recipe_alone_is_the_recipe(tiny_list: Path) -> None:
    for name, recipe in RECIPES.items():
        found = config("--recipe", name, "--data", str(tiny_list))
        assert replace(found, data=()) == recipe()


def test_every_field_has_an_option(tiny_list: Path) -> None:
    data = ("--data", str(tiny_list))
    base = RECIPES["vit_b_hybrid"]()
    words = {
        "size": "large", "image_size": "96x64", "learned_positions": None, "precision": "bf16",
        "decoder": "decord", "device": "cpu", "loss_over": "all", "encoder_mask": "random",
        "decoder_mask": "none", "betas": "0.8 0.99", "data_format": "plain",
        "drop_path": "0.5", "patch_size": "8", "tubelet_size": "4", "width": "128", "heads": "4",
        "decoder_width": "64", "decoder_heads": "2", "decoder_mask_ratio": "0.75",
        "encoder_mask_ratio": "0.8", "max_failed_share": "0.3", "base_lr": "0.5", "seed": "3",
        "device_decoder": "dali", "cache": "here", "crop_on": "device", "optimizer": "apex",
        "layer_scale": "0.1", "min_lr": "0.002", "frames": "8", "mlp_ratio": "2.5",
        "step_mode": "captured",
    }  # fmt: skip
    for one in fields(PretrainConfig):
        if one.name == "data":
            continue
        option = f"--{one.name.replace('_', '-')}"
        before = getattr(base, one.name)
        if one.metadata["kind"] is bool:
            given = [f"--no-{option[2:]}" if before else option]
        else:
            given = [option, *words.get(one.name, "7").split()]
        extra = {"width": ["--heads", "4"], "min_lr": ["--base-lr", "1"],
                 "layer_scale": [], "decoder_width": ["--decoder-heads", "2"],
                 "epochs": ["--warmup-epochs", "1"]}.get(one.name, [])  # fmt: skip
        assert getattr(config(*data, *given, *extra), one.name) != before, option


def test_none_returns_to_the_sizes_value(tiny_list: Path) -> None:
    assert config("--data", str(tiny_list), "--width", "none").width is None


def test_lists_with_options(tiny_list: Path, tmp_path: Path) -> None:
    comma = tmp_path / "a,b.csv"
    comma.write_text("x 0 -1\n")
    found = config(
        "--data", f"{tiny_list},weight=2.5,stride=2,root={tmp_path}",
        "--data", f"{comma},pattern=image_{{:06}}.jpg,contains=AVA,weight=1,only=folders",
        "--data-format", "plain",
    ).data  # fmt: skip
    assert found[0] == Source(tiny_list, tmp_path, weight=2.5, stride=2)
    assert found[1] == Source(
        comma, weight=1.0, name_pattern="image_{:06}.jpg", contains="AVA", only="folders"
    )


def test_lists_with_labels(tmp_path: Path) -> None:
    """Those of VideoMAE, the first: ``path label``, and ``folder total label``."""
    (tmp_path / "a.csv").write_text("x.mp4 3\ny z.mp4 4\n")
    (tmp_path / "b.csv").write_text("frames 30 7\n")
    found = config(
        "--data", f"{tmp_path}/a.csv,format=labels",
        "--data", f"{tmp_path}/b.csv,format=folder-labels,first=0",
        "--data-format", "plain",
    ).data  # fmt: skip
    videos, folders = (source.entries for source in load_sources(found))
    assert [videos[index].path for index in range(2)] == ["x.mp4", "y z.mp4"]
    assert (folders[0].start, folders[0].total) == (0, 30)
    with pytest.raises(ListError, match="--data LIST,format=labels"):
        load_sources([pretrain.parse_source(f"{tmp_path}/a.csv")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{list},format=label", "format 'label' is not one of pretrain, labels, folder-labels"),
        ("{list},first=-1", "first frame -1 must be at least 0"),
        ("{list},wieght=2", "unknown option 'wieght=2'; did you mean weight?"),
        ("{list},stride=x", "stride must be a number, not 'x'"),
        ("{list},weight=-1", "weight -1.0 must be above 0"),
        ("{list},root=/no/such", "root /no/such is no folder"),
        ("missing.csv", "no such list file: missing.csv"),
    ],
)
def test_mistakes_in_lists(tiny_list: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        pretrain.parse_source(text.format(list=tiny_list))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "vit_b_hybird", "--data", "{list}"], "did you mean vit_b_hybrid?"),
        ([], "--data is missing"),
        (["--data", "{list}"], "--output is missing"),
        (["--data", "{list}", "--output", "{list}"], "is a file: name a folder"),
        (["--data", "{list}", "--output", "o", "--resume", "/no"], "no such checkpoint folder"),
        (["--data", "{list}", "--output", "o", "--epoch", "3"], "did you mean --epochs?"),
        (["--data", "{list}", "--output", "o", "--epochs", "x"], "invalid int value: 'x'"),
    ],
)
def test_mistakes_say_what_to_do(
    tiny_list: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    given = ["pretrain", *(word.format(list=tiny_list) for word in words)]
    try:
        code = cli.main(given)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err


def test_a_recipe_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "--show-recipe", "--recipe", "vit_g_hybrid"]) == 0
    out = capsys.readouterr().out
    assert "64 GPUs" in out
    assert "clip_grad" in out
