"""A checkout of the official code as a contender: with a stand-in of its structure.

The stand-in has the official files, names, arguments and shapes; its computation is the
transcription's.
"""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.common.record import read
from benchmarks.common.workload import Workload
from benchmarks.contenders.base import UnavailableError, Variant
from benchmarks.contenders.build import build
from benchmarks.contenders.checkout import Checkout
from benchmarks.gpu import ceilings
from benchmarks.measure.checks import check, truth
from benchmarks.official import timm_stand_in
from videomae_fast import MAEConfig

SHAPE = {
    "image_size": 64, "frames": 16, "width": 32, "depth": 2, "heads": 2, "decoder_width": 16,
    "decoder_heads": 1, "decoder_depth": 2,
}  # fmt: skip
CONFIG = MAEConfig(**SHAPE)

FINETUNE = """
from timm.models.layers import drop_path, to_2tuple, trunc_normal_
from timm.models.registry import register_model
from benchmarks.official.model import sinusoid

@register_model
def some_model():
    return to_2tuple(3)
"""
PRETRAIN = """
from {neighbour} import some_model, sinusoid
from timm.models.layers import trunc_normal_ as truncated
from benchmarks.official.model import OfficialPretraining
from videomae_fast import MAEConfig

class PretrainVisionTransformer(OfficialPretraining):
    def __init__(self, img_size=224, patch_size=16, encoder_embed_dim=768, encoder_depth=12,
                 encoder_num_heads=12, decoder_num_classes=1536, decoder_embed_dim=512,
                 decoder_depth=8, decoder_num_heads=8, mlp_ratio=4.0, qkv_bias=False,
                 norm_layer=None, tubelet_size=2{options}):
        assert qkv_bias and norm_layer(4).eps == 1e-6
        config = MAEConfig(
            image_size=img_size, patch_size=patch_size, tubelet_size=tubelet_size,
            frames={frames}, width=encoder_embed_dim, depth=encoder_depth,
            heads=encoder_num_heads, mlp_ratio=mlp_ratio, decoder_width=decoder_embed_dim,
            decoder_depth=decoder_depth, decoder_heads=decoder_num_heads)
        assert decoder_num_classes == config.patch_values
        super().__init__(config, checkpointing={checkpointing})
        truncated(self.mask_token, std=0.02)
        for module, width in ((self, config.decoder_width), (self.encoder, config.width)):
            module.pos_embed = sinusoid(config.grid.tokens, width)
            del module.positions
            module.positions = lambda like, module=module: (
                module.pos_embed.expand(len(like), -1, -1).type_as(like).to(like.device))

    def forward(self, x, mask{second}):
        return super().forward(x, mask{second_value})
"""
V1 = {
    "neighbour": "modeling_finetune", "options": ", use_checkpoint=False", "frames": "16",
    "checkpointing": "use_checkpoint", "second": "", "second_value": "",
}  # fmt: skip
V2 = {
    "neighbour": ".modeling_finetune", "options": ", with_cp=False, all_frames=16",
    "frames": "all_frames", "checkpointing": "with_cp", "second": ", decode_mask=None",
    "second_value": ", decode_mask",
}  # fmt: skip


@pytest.fixture
def official(tmp_path):
    """A function version -> folder with a stand-in checkout."""

    def make(version):
        folder = tmp_path / version / ("models" if version == "V2" else ".")
        folder.mkdir(parents=True)
        text = PRETRAIN.format(**(V2 if version == "V2" else V1))
        (folder / "modeling_finetune.py").write_text(FINETUNE)
        (folder / "modeling_pretrain.py").write_text(text)
        return tmp_path / version

    return make


@pytest.mark.parametrize(
    ("version", "masking"), [("V2", "dual"), ("V2", "encoder-only"), ("V1", "encoder-only")]
)
def test_it_is_checked_like_any_other(official, version, masking):
    folder = official(version)
    workload = Workload(CONFIG, 2)
    against = truth(build("official", Variant("official"), workload, masking))
    for options in ({}, {"tables": "repaired"}, {"checkpointing": True}):
        variant = Variant("checkout", checkout=str(folder), **options)
        contender = build("the code", variant, workload, masking)
        found = check(contender, against)
        assert found.passed, found.told()
        tables = {name for name, _ in contender.model.named_buffers()}
        assert ("encoder.pos_embed" in tables) == ("tables" in options)
        assert ("pos_embed" in tables) == ("tables" in options)
        assert type(contender.model).__module__.startswith("official_checkout_")


def test_what_is_wrong_in_it_is_found(official):
    folder = official("V2")
    path = folder / "models" / "modeling_pretrain.py"
    path.write_text(path.read_text().replace("return super()", "return 1.1 * super()"))
    workload = Workload(CONFIG, 2)
    against = truth(build("official", Variant("official"), workload, "encoder-only"))
    variant = Variant("checkout", checkout=str(folder))
    assert not check(build("the code", variant, workload, "encoder-only"), against).passed


def test_nothing_is_left_behind(official):
    before = {name: module for name, module in sys.modules.items() if "." not in name}
    marker = sys.modules["timm"] = type(sys)("timm")
    mine = sys.modules["modeling_finetune"] = type(sys)("modeling_finetune")
    try:
        module = Checkout.at(official("V1")).module()
        assert Checkout.at(official("V2")).module() is not module
        assert sys.modules["timm"] is marker
        assert sys.modules["modeling_finetune"] is mine
        assert not {"timm.models", "modeling_pretrain", "models"} & set(sys.modules) - set(before)
        # The compiler imports a module again by its name
        assert __import__(module.__name__, fromlist=["x"]) is module
    finally:
        del sys.modules["timm"], sys.modules["modeling_finetune"]


def test_a_file_that_fails_leaves_nothing(official):
    folder = official("V1")
    (folder / "modeling_pretrain.py").write_text("from timm.models.layers import Mlp\n")
    before = set(sys.modules)
    for _ in range(2):
        with pytest.raises(ImportError, match="Mlp"):
            Checkout.at(folder).module()
    left = {name.split(".")[0] for name in set(sys.modules) - before}
    assert not {name for name in left if name.startswith(("timm", "model", "official"))}


def test_wrong_use(official, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkout of OpenGVLab/VideoMAEv2 \(models/"):
        Checkout.at(tmp_path)
    variant = Variant("checkout", checkout=str(official("V1")))
    with pytest.raises(UnavailableError, match="no decoder mask"):
        build("V1", variant, Workload(CONFIG, 1), "dual")
    eight = Workload(MAEConfig(**{**SHAPE, "frames": 8}), 1)
    with pytest.raises(UnavailableError, match="16 frames, not 8"):
        build("V1", variant, eight, "encoder-only")
    with pytest.raises(UnavailableError, match="needs a checkout"):
        build("none", Variant("checkout"), Workload(CONFIG, 1), "dual")


def test_the_stand_ins():
    torch.manual_seed(0)
    x = torch.ones(1000, 2, 3)
    assert timm_stand_in.drop_path(x, 0.5, training=False) is x
    dropped = timm_stand_in.drop_path(x, 0.25, training=True)
    per_clip = dropped.flatten(1)
    assert (per_clip == per_clip[:, :1]).all()
    torch.testing.assert_close(per_clip.unique(), torch.tensor([0.0, 4 / 3]))
    assert dropped.mean() == pytest.approx(1, abs=0.1)
    assert timm_stand_in.to_2tuple(3) == (3, 3)
    assert timm_stand_in.to_2tuple([3, 4]) == (3, 4)
    values = timm_stand_in.trunc_normal_(torch.empty(1000), std=0.02, a=-0.02, b=0.02)
    assert values.abs().max() <= 0.02


def test_baselines_with_a_checkout(official, tmp_path, capsys):
    folder = official("V1")
    (tmp_path / "out").mkdir()
    words = (
        "--device cpu --tiny --batch 2 --repeats 1 --warmup 0 --parts baselines "
        f"--masking dual encoder-only --official-checkout {folder} --out {tmp_path / 'out'}"
    ).split()
    names = ["official repaired, eager", "official code repaired, eager"]
    assert ceilings.main([*words, "--variants", *names]) == 0
    record = read(tmp_path / "out" / "baselines-base-batch2.json")
    assert record["official_checkout"]["version"] == "V1"
    assert "drop_path" in record["official_checkout"]["stand_ins_for_timm"]
    assert "no decoder mask" in record["failed"]["dual"][names[1]]
    assert "V1's model takes 16 frames" in record["failed"]["encoder-only"][names[1]]
    assert "stand_ins_for_timm" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        ceilings.main([*words[:-1], str(tmp_path), "--official-checkout", str(tmp_path)])
    assert "no checkout of" in capsys.readouterr().err
