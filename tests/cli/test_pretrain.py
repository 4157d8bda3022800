"""``videomae-fast pretrain``: options from fields, and what it says to mistakes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from videomae_fast import cli
from videomae_fast.cli import pretrain
from videomae_fast.data import ListError, Source
from videomae_fast.data.lists.sources import load_sources
from videomae_fast.errors import UsageError
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plain import changed
from videomae_fast.recipes.schema import PretrainConfig


@pytest.fixture
def tiny_list(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.csv"
    path.write_text("0.mp4 0 -1\n", encoding="utf-8")
    return path


def config(*words: str) -> PretrainConfig:
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    return pretrain.config_from(parser.parse_args(words))


def value(config: PretrainConfig, name: str) -> object:
    section, _, field = name.partition(".")
    return getattr(getattr(config, section), field)


def test_a_recipe_alone_is_the_recipe(tiny_list: Path) -> None:
    for name in names("pretrain"):
        found = config("--recipe", name, "--data", str(tiny_list))
        assert changed(found, {"data.lists": ()}) == load(PretrainConfig, name)


def test_every_field_has_an_option(tiny_list: Path) -> None:
    data = ("--data", str(tiny_list))
    base = load(PretrainConfig, "vit_b_hybrid")
    words = {
        "size": "large", "image_size": "96x64", "learned_positions": None, "precision": "bf16",
        "decoder": "decord", "device": "cpu", "loss_over": "all", "encoder_mask": "random",
        "decoder_mask": "none", "betas": "0.8 0.99", "data_format": "plain",
        "drop_path": "0.5", "patch_size": "8", "tubelet_size": "4", "width": "128", "heads": "4",
        "decoder_width": "64", "decoder_heads": "2", "decoder_mask_ratio": "0.75",
        "encoder_mask_ratio": "0.8", "max_failed_share": "0.3", "base_lr": "0.5", "seed": "3",
        "device_decoder": "dali", "cache": "here", "crop_on": "device", "optimizer": "apex",
        "layer_scale": "0.1", "min_lr": "0.002", "frames": "8", "mlp_ratio": "2.5",
        "step_mode": "captured", "order": "table", "shard": "all", "reshard": "yes",
        "crop_scales": "0.75 0.875",
    }  # fmt: skip
    for one in settings(PretrainConfig).values():
        if one.flat == "data":
            continue
        before = value(base, one.name)
        if isinstance(before, bool):
            given = [f"--no-{one.flag[2:]}" if before else one.flag]
            text = str(not before).lower()
        else:
            text = words.get(one.flat, "7")
            given = [one.flag, *text.split()]
        extra = {
            "min_lr": ["--base-lr", "1"],
            "epochs": ["--warmup-epochs", "1"],
            "reshard": ["--shard", "all"],
        }.get(one.flat, [])
        found = value(config(*data, *given, *extra), one.name)
        assert found != before, one.flag
        assert type(found) is type(before) or before is None or one.flat == "image_size"
        # the same by its dotted name
        assert value(config(*data, "--set", f"{one.name}={text}", *extra), one.name) == found


def test_dotted_names_that_cannot_be(tiny_list: Path) -> None:
    for given, message in (
        ("optim.base_lrr=1", "--set optim.base_lrr=1: unknown field 'optim.base_lrr'; did you mean "
         "optim.base_lr?"),
        ("base_lr=1", "did you mean optim.base_lr?"),
        ("schedule.base_lr=1", "did you mean optim.base_lr?"),
        ("optim.base_lr", "'optim.base_lr' has no value: write NAME=VALUE"),
        ("optim.base_lr=x", "optim.base_lr must be a number, not 'x'"),
        ("model.image_size=1x2x3", r"model.image_size must be a whole number or 2 whole numbers"),
        ("schedule.epochs=0", "schedule.epochs must be at least 1, not 0"),
        ("run.compile=1", "run.compile must be true or false, not '1'"),
        ("masks.encoder=tub", "masks.encoder 'tub' is none of tube, random, frame"),
        ("data.lists=a.csv", "data.lists is given with --data LIST"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            config("--data", str(tiny_list), "--set", given)
        assert message in str(caught.value)
    with pytest.raises(UsageError, match="--epochs are the same field: give one of them"):
        config("--data", str(tiny_list), "--set", "schedule.epochs=3", "--epochs", "3")


def test_options_go_before_the_file_and_the_file_before_the_defaults(
    tiny_list: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(f"""
[model]
size = "small"
width = "none"
[optim]
base_lr = 3e-4
betas = [0.9, 0.99]
[[data.lists]]
path = "{tiny_list}"
stride = 2
""")
    found = config("--recipe", str(mine), "--base-lr", "5e-4", "--set", "optim.clip_grad=1")
    assert (found.model.size, found.model.width, found.model.frames) == ("small", None, 16)
    assert (found.optim.base_lr, found.optim.betas, found.optim.clip_grad) == (5e-4, (0.9, 0.99), 1)
    assert found.data.lists == (Source(tiny_list, stride=2),)
    other = tmp_path / "other.csv"
    other.write_text("1.mp4 0 -1\n")
    assert config("--recipe", str(mine), "--data", str(other)).data.lists == (Source(other),)
    tiny_list.unlink()
    with pytest.raises(UsageError, match=rf"{mine}: data.lists: no such list file"):
        config("--recipe", str(mine))


def test_none_returns_to_the_sizes_value(tiny_list: Path) -> None:
    assert config("--data", str(tiny_list), "--width", "none").model.width is None


def test_lists_with_options(tiny_list: Path, tmp_path: Path) -> None:
    comma = tmp_path / "a,b.csv"
    comma.write_text("x 0 -1\n")
    found = config(
        "--data", f"{tiny_list},weight=2.5,stride=2,root={tmp_path}",
        "--data", f"{comma},pattern=image_{{:06}}.jpg,contains=AVA,weight=1,only=folders",
        "--data-format", "plain",
    ).data.lists  # fmt: skip
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
    ).data.lists  # fmt: skip
    videos, folders = (source.entries for source in load_sources(found))
    assert [videos[index].path for index in range(2)] == ["x.mp4", "y z.mp4"]
    assert (folders[0].start, folders[0].total) == (0, 30)
    with pytest.raises(ListError, match="--data LIST,format=labels"):
        load_sources([pretrain.parse_source(f"{tmp_path}/a.csv")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{list},format=label", "format 'label' is none of pretrain, labels, folder-labels"),
        ("{list},first=-1", "first_frame must be at least 0, not -1"),
        ("{list},wieght=2", "unknown option 'wieght=2'; did you mean weight?"),
        ("{list},stride=x", "stride must be a whole number, not 'x'"),
        ("{list},weight=-1", "weight must be above 0, not -1.0"),
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
        (["--recipe", "mine.toml", "--data", "{list}"], "recipes show NAME > mine.toml makes one"),
        (["--data", "{list}", "--output", "o", "--image-size", "30"], "patch_size 16"),
        ([], "--data is missing"),
        (["--data", "{list}"], "--output is missing"),
        (["--data", "{list}", "--output", "{list}"], "is a file: name a folder"),
        (["--data", "{list}", "--output", "o", "--resume", "/no"], "no such checkpoint folder"),
        (["--data", "{list}", "--output", "o", "--epoch", "3"], "did you mean --epochs?"),
        (
            ["--data", "{list}", "--output", "o", "--epochs", "x"],
            "--epochs: must be a whole number, not 'x'",
        ),
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
    told = capsys.readouterr()
    assert "64 GPUs" in told.out
    assert "clip_grad = 0.02" in told.out
    assert "videomae-fast recipes show vit_g_hybrid" in told.err
