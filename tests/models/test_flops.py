"""The analytic count, against the papers and against what torch counts while the models run."""

from __future__ import annotations

import argparse
import json
from copy import deepcopy
from functools import cache

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import videomae_fast.ops.flop_formulas  # noqa: F401
from benchmarks.official import model as transcription
from benchmarks.official.model import OfficialPretraining
from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec
from videomae_fast.cli.flops import add_arguments, run
from videomae_fast.errors import UsageError
from videomae_fast.models.flops import PARTS, flops, savings
from videomae_fast.ops.registry import forced

RATIOS = (0, 0.25, 0.5, 0.75)
# torch.utils.flop_counter on the official code, G multiply-adds by decoder mask ratio
COUNTED = {
    "small": (11.54, 10.02, 7.84, 6.13),
    "base": (35.44, 31.59, 25.84, 21.03),
    "large": (83.03, 77.17, 68.27, 60.63),
    "huge": (136.86, 130.99, 122.09, 114.45),
    "giant": (263.96, 255.00, 241.61, 230.38),
}
# VideoMAE V2 paper, tables 1 and 2
PUBLISHED = {
    ("base", 0): 35.48,
    ("base", 0.25): 31.63,
    ("base", 0.5): 25.87,
    ("base", 0.75): 21.06,
    ("giant", 0): 263.93,
    ("giant", 0.5): 241.61,
}
FIGURES = [(s, r, g) for s, row in COUNTED.items() for r, g in zip(RATIOS, row, strict=True)]


def spec_of(ratio: float, **options) -> MaskSpec:
    if ratio == 0:
        return MaskSpec(decoder="none", **options)
    return MaskSpec(decoder_ratio=ratio, **options)


def counted_parts(mode: FlopCounterMode) -> dict[str, int]:
    """What torch counted, in multiply-adds by part."""

    def under(*modules: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for module in modules:
            for op, n in mode.get_flop_counts().get(module, {}).items():
                is_attention = "bmm" in str(op) or "attention" in str(op)
                kind = "attention" if is_attention else "linear"
                found[kind] = found.get(kind, 0) + n // 2
        return found

    root = next(iter(m for m in mode.get_flop_counts() if m != "Global" and "." not in m))
    encoder, decoder = under(f"{root}.encoder"), under(f"{root}.decoder")
    patch = sum(under(f"{root}.encoder.patch_embed").values())
    head = sum(under(f"{root}.decoder.head").values())
    return {
        "patch_embed": patch,
        "encoder_linear": encoder["linear"] - patch,
        "encoder_attention": encoder["attention"],
        "encoder_to_decoder": sum(under(f"{root}.encoder_to_decoder").values()),
        "decoder_linear": decoder["linear"] - head,
        "decoder_attention": decoder["attention"],
        "head": head,
    }


@pytest.mark.parametrize(("size", "ratio", "figure"), FIGURES)
def test_every_counted_figure(size, ratio, figure):
    counted = sum(flops(MAEConfig.from_size(size), spec_of(ratio)).values())
    assert counted / 1e9 == pytest.approx(figure, rel=2e-3)


@pytest.mark.parametrize(("size", "ratio"), PUBLISHED)
def test_every_published_figure(size, ratio):
    counted = sum(flops(MAEConfig.from_size(size), spec_of(ratio)).values())
    assert counted / 1e9 == pytest.approx(PUBLISHED[size, ratio], rel=2e-3)


# Encoders of few blocks, otherwise the models': blocks count alike. Of one model all are counted.
FEW = {"depth": 3}


@pytest.mark.parametrize(
    ("size", "ratio", "depths"),
    [*((size, ratio, FEW) for size in COUNTED for ratio in RATIOS), ("giant", 0.5, {})],
)
def test_official_count_is_what_torch_counts(size, ratio, depths, monkeypatch):
    """On the meta device, where a boolean mask has no number of True: chosen by count instead."""
    config, spec = MAEConfig.from_size(size, **depths), spec_of(ratio)
    counts = spec.counts(config.grid)
    wanted = iter([counts.visible, counts.decoder, counts.visible])
    monkeypatch.setattr(transcription, "select", lambda x, _: x[:, : next(wanted)])
    with torch.device("meta"):
        model = OfficialPretraining(config, tables="repaired").to("meta")
        images = torch.empty(1, 3, config.frames, 224, 224)
        mask = torch.empty(1, config.grid.tokens, dtype=torch.bool)
    with FlopCounterMode(display=False, depth=None) as mode:
        model(images, mask, mask)
    assert next(wanted, None) is None
    assert counted_parts(mode) == flops(config, spec, "official")
    assert mode.get_total_flops() == 2 * sum(flops(config, spec, "official").values())


SPECS = [
    *(spec_of(ratio) for ratio in RATIOS),
    spec_of(0.5, skip_seen=True),
    spec_of(0.5, loss_over="all"),
    MaskSpec(encoder="frame", encoder_ratio=0.875, decoder="frame"),
]
NUMBERS = range(len(SPECS))


@cache
def meta_model(config: MAEConfig) -> MaskedAutoencoder:
    with torch.device("meta"):
        return MaskedAutoencoder(config)


@pytest.mark.parametrize(
    ("number", "size", "depths"),
    [
        *((n, "small", {**FEW, "decoder_depth": depth}) for depth in (4, 1) for n in NUMBERS),
        *((n, "giant", {**FEW, "decoder_depth": 4}) for n in NUMBERS),
        (2, "giant", {}),
    ],
)
@pytest.mark.parametrize("impl", ["sdpa", "reference"])
def test_our_count_is_what_torch_counts(size, depths, number, impl):
    """Of two clips, which share what is computed once."""
    config, batch, spec = MAEConfig.from_size(size, **depths), 2, SPECS[number]
    counts = spec.counts(config.grid)
    model = deepcopy(meta_model(config))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        sizes = (counts.visible, counts.decoder, counts.loss, counts.loss)
        masks = Masks(config.grid, *(torch.empty(batch, n, dtype=torch.int32) for n in sizes))
        frames = torch.empty(batch, config.frames, 224, 224, 3, dtype=torch.uint8)
        # Our op's formula, whatever "auto" is here, and torch's of two batched matmuls (the counter
        # knows no CPU flash attention).
        with (
            forced("auto", attention=impl),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, depth=None) as mode,
        ):
            model(frames, masks)
    expected = {part: batch * n for part, n in flops(config, spec, "ours", batch=batch).items()}
    assert counted_parts(mode) == expected
    assert mode.get_total_flops() == 2 * sum(expected.values())


@pytest.mark.parametrize("spec", SPECS, ids=NUMBERS)
@pytest.mark.parametrize("size", COUNTED)
def test_savings_add_up(size, spec):
    config = MAEConfig.from_size(size)
    official, ours = flops(config, spec, "official"), flops(config, spec, "ours")
    assert tuple(official) == tuple(ours) == PARTS
    found = savings(config, spec)
    left_out = sum(saving.multiply_adds for saving in found)
    assert left_out == sum(official.values()) - sum(ours.values())
    names = ["R1", "R2", "R3", "R4"]
    assert [s.name for s in found] == names[: 4 if spec.skip_seen else 3]
    assert [s.exact for s in found] == [True, True, True, False][: len(found)]


@pytest.mark.parametrize(
    ("size", "patch_embed", "last_block", "first_block"),
    [
        ("small", 0.83, 0.20, 0.31),
        ("base", 1.66, 0.57, 0.79),
        ("large", 2.22, 0.92, 1.21),
        ("huge", 2.77, 0.92, 1.21),
        ("giant", 3.05, 1.33, 1.82),
    ],
)
def test_savings_of_dual_masking(size, patch_embed, last_block, first_block):
    """The sizes of R1, R2 and R3, worked out apart from this code, in G to two digits.

    R3's figure has the attention among mask tokens in it, which ours does not share, and is what
    remains when the clips of a batch of 128 share by 4 patterns.
    """
    config, spec = MAEConfig.from_size(size), MaskSpec()
    found = [s.multiply_adds / 1e9 for s in savings(config, spec, batch=10**9)]
    assert found[:2] == pytest.approx([patch_embed, last_block], abs=0.006)
    among = 2 * spec.counts(config.grid).decoder ** 2 * config.decoder_width / 1e9
    assert (found[2] + among) * (1 - 4 / 128) == pytest.approx(first_block, abs=0.006)


@pytest.mark.parametrize("batch", [1, 2, 3, 128])
def test_what_is_shared_counts_by_its_share(batch):
    config, spec = MAEConfig.from_size("base"), MaskSpec()
    saved = savings(config, spec, batch=batch)[2].multiply_adds
    row = 3 * config.decoder_width**2
    assert saved == 784 * row - -(-1568 * row // batch)
    assert (saved < 0) == (batch == 1)
    with pytest.raises(ValueError, match="batch of 0"):
        flops(config, spec, "ours", batch=0)


def test_an_unknown_implementation_is_an_error():
    with pytest.raises(ValueError, match="neither"):
        flops(MAEConfig(), MaskSpec(), "theirs")


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


def test_json(capsys):
    assert call("--size", "base", "--decoder-mask-ratio", "0.5", "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["tokens"] == {
        "grid": [8, 14, 14], "all": 1568, "visible": 160, "decoder": 784, "loss": 704
    }  # fmt: skip
    assert out["total"]["official"] / 1e9 == pytest.approx(25.84, rel=2e-4)
    for who in ("official", "ours"):
        assert sum(part[who] for part in out["parts"].values()) == out["total"][who]
    # The paper's 35.48 G over 25.87 G
    assert out["encoder_only"]["official_over_this"] == pytest.approx(1.371, abs=1e-3)
    assert sum(s["multiply_adds"] for s in out["savings"]) == (
        out["total"]["official"] - out["total"]["ours"]
    )


def test_table(capsys):
    assert call("--size", "giant") == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("  total"))
    assert row.split() == ["total", "241.614", "236.441", "5.173"]
    assert "208" in out
    assert "R1" in out
    assert "R4" not in out
    assert max(map(len, out.splitlines())) <= 110


def test_ratio_zero_is_no_decoder_mask(capsys):
    assert call("--decoder-mask-ratio", "0", "--json") == 0
    zero = json.loads(capsys.readouterr().out)
    assert call("--decoder-mask", "none", "--json") == 0
    assert zero == json.loads(capsys.readouterr().out)
    assert zero["total"]["official"] / 1e9 == pytest.approx(35.44, rel=2e-4)
    assert zero["encoder_only"]["ours_over_this"] == 1


def test_options_reach_the_count(capsys):
    base = {}
    for words in (
        ["--decoder-depth", "2"],
        ["--frames", "8"],
        ["--image-size", "96", "224"],
        ["--encoder-mask-ratio", "0.75"],
        ["--encoder-mask", "frame"],
        ["--decoder-mask", "random", "--decoder-mask-ratio", "0.6"],
        ["--decoder-mask-ratio", "0.75"],
        ["--loss-over", "all"],
        ["--skip-seen"],
        ["--batch", "8"],
        [],
    ):
        assert call(*words, "--json") == 0
        base[" ".join(words)] = json.loads(capsys.readouterr().out)["total"]["ours"]
    assert len(set(base.values())) == len(base), base


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--decoder-mask", "none", "--decoder-mask-ratio", "0.5"], "leave out"),
        (["--decoder-mask", "random", "--decoder-mask-ratio", "0"], "--decoder-mask none"),
        (["--decoder-mask-ratio", "0.6"], "0.25, 0.5 or 0.75"),
        (["--image-size", "225"], "multiple of patch_size"),
        (["--image-size", "1", "2", "3"], "one side"),
        (["--frames", "15"], "frames 15"),
        (["--batch", "0"], "batch of 0"),
    ],
)
def test_wrong_use(words, told):
    with pytest.raises(UsageError, match=told):
        call(*words)
