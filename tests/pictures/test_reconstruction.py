"""Reconstruction pictures: what is shown as what, and that nothing hidden leaks into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import repeat
from PIL import Image
from torch import Tensor

from videomae_fast.errors import UsageError
from videomae_fast.masks import Masks, MaskSpec
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.masked_autoencoder import MAEOutput, MaskedAutoencoder
from videomae_fast.ops import pixel_target
from videomae_fast.pictures.reconstruction import HIDDEN_GREY, reconstruct
from videomae_fast.pictures.rendering import picture, rows_of, save_animation

CONFIG = MAEConfig(
    image_size=32, patch_size=8, frames=4, width=32, depth=1, heads=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
)  # fmt: skip
SPEC = MaskSpec(encoder_ratio=0.75)


class Stub(MaskedAutoencoder):
    """Predicts the target itself, or zeros, in the layout of the real model's prediction."""

    def __init__(self, *, perfect: bool, normalize_target: bool = True) -> None:
        super().__init__(CONFIG, normalize_target=normalize_target)
        self.perfect = perfect

    def forward(
        self, frames: Tensor, masks: Masks, *, return_prediction: bool = False
    ) -> MAEOutput:
        target = pixel_target(
            frames, masks.loss_index, tubelet_size=2, patch_size=8, normalize=self.normalize_target
        )
        one = torch.ones(())
        prediction = target if self.perfect else torch.zeros_like(target)
        return MAEOutput(one, one, one, prediction, masks.loss_index)


def clip(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=generator)


def hidden_pixels(frames: Tensor, spec: MaskSpec = SPEC, seed: int = 0) -> np.ndarray:
    """bool [T, H, W], from the mask that `reconstruct` must draw for this seed."""
    masks = Masks.from_seeds(torch.tensor([seed]), CONFIG.grid, spec)
    layout = "(t h w) -> (t p0) (h p1) (w p2)"
    return repeat(masks.to_bool()[0][0], layout, h=4, w=4, p0=2, p1=8, p2=8).numpy()


def test_perfect_prediction_with_the_truths_statistics_gives_the_original_back() -> None:
    frames = clip()
    result = reconstruct(Stub(perfect=True), frames, SPEC)
    assert result.with_statistics is not None
    difference = result.with_statistics.astype(int) - frames.numpy().astype(int)
    assert np.abs(difference).max() <= 1


def test_what_is_visible_is_shown_as_it_is_and_what_is_hidden_is_grey() -> None:
    frames = clip(1)
    result = reconstruct(MaskedAutoencoder(CONFIG), frames, SPEC, seed=5)
    hidden = hidden_pixels(frames, seed=5)
    assert hidden.mean() == 0.75 == result.hidden_share
    assert result.with_statistics is not None
    for shown in (result.masked, result.without_statistics, result.with_statistics):
        assert (shown[~hidden] == frames.numpy()[~hidden]).all()
    assert (result.masked[hidden] == round(255 * HIDDEN_GREY)).all()
    assert (result.original == frames.numpy()).all()


def test_without_the_truths_statistics_nothing_of_the_hidden_pixels_is_used() -> None:
    frames = clip(2)
    hidden = torch.from_numpy(hidden_pixels(frames))
    other = torch.where(hidden[..., None], 255 - frames // 2, frames)
    first, second = (reconstruct(Stub(perfect=False), f, SPEC) for f in (frames, other))
    assert (first.without_statistics == second.without_statistics).all()
    assert first.with_statistics is not None
    assert second.with_statistics is not None
    assert (first.with_statistics != second.with_statistics).any()


def test_guessed_brightness_follows_the_neighbours() -> None:
    """Left half dark, right half bright: so are the cubes that are guessed."""
    frames = torch.full((4, 32, 32, 3), 40, dtype=torch.uint8)
    frames[:, :, 16:] = 200
    # Random masks with some seed leave cubes visible on both sides.
    spec = MaskSpec(encoder="random", encoder_ratio=0.5)
    guess = reconstruct(Stub(perfect=False), frames, spec).without_statistics
    assert guess[:, :, :16].mean() < 80 < 160 < guess[:, :, 16:].mean()


def test_model_of_plain_pixels_has_one_reconstruction() -> None:
    frames = clip(3)
    result = reconstruct(Stub(perfect=True, normalize_target=False), frames, SPEC)
    assert result.with_statistics is None
    assert (result.without_statistics == frames.numpy()).all()
    assert [row.title for row in rows_of(result)] == ["original", "masked input", "reconstruction"]


def test_mask_depends_on_the_seed_alone_and_the_model_keeps_its_mode() -> None:
    model = MaskedAutoencoder(CONFIG).train()
    first, again, other = (reconstruct(model, clip(), SPEC, seed=s) for s in (7, 7, 8))
    assert (first.masked == again.masked).all()
    assert (first.masked != other.masked).any()
    assert model.training


def test_frames_that_do_not_divide_and_ratios_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="not a positive multiple of tubelet_size 2"):
        reconstruct(MaskedAutoencoder(CONFIG), clip()[:3], SPEC)
    with pytest.raises(UsageError, match="choose a ratio"):
        reconstruct(MaskedAutoencoder(CONFIG), clip(), MaskSpec(encoder_ratio=0.01))


def test_picture_has_the_frames_in_order_and_a_row_for_each_kind() -> None:
    result = reconstruct(Stub(perfect=False), clip(), SPEC)
    sheet = np.asarray(picture(result, title="a title", note="a note", columns=2))
    factor = 4  # 32 pixels are shown as 128
    for row in rows_of(result):
        for n in (0, 3):
            frame = row.clip[n].repeat(factor, 0).repeat(factor, 1)
            assert _place(sheet, frame) is not None
    at = [_place(sheet, row.clip[0].repeat(factor, 0).repeat(factor, 1)) for row in rows_of(result)]
    tops = [place[0] for place in at if place]
    assert tops == sorted(tops)


def test_what_was_made_before_training_is_a_row_between_input_and_result() -> None:
    before = reconstruct(Stub(perfect=False), clip(), SPEC)
    after = reconstruct(Stub(perfect=True), clip(), SPEC)
    rows = rows_of(after, before)
    assert [row.title for row in rows] == [
        "original", "masked input", "before training", "reconstruction", "reconstruction",
    ]  # fmt: skip
    assert before.with_statistics is not None
    assert (rows[2].clip == before.with_statistics).all()
    assert (rows[4].clip == after.with_statistics).all()
    sheet = picture(after, title="a title", before=before)
    assert sheet.height > picture(after, title="a title").height


def _place(sheet: np.ndarray, frame: np.ndarray) -> tuple[int, int] | None:
    """Where the frame is in the sheet, to the pixel."""
    h, w = frame.shape[:2]
    corner = (sheet[: -h + 1, : -w + 1] == frame[0, 0]).all(-1)
    for y, x in zip(*np.nonzero(corner), strict=True):
        if (sheet[y : y + h, x : x + w] == frame).all():
            return int(y), int(x)
    return None


def test_animation_has_every_frame_and_loops(tmp_path: Path) -> None:
    result = reconstruct(Stub(perfect=True), clip(), SPEC)
    save_animation(tmp_path / "a.gif", result, frame_seconds=0.25)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 4
        assert gif.info["loop"] == 0
        assert gif.info["duration"] == 250
        assert gif.width > 4 * 256
