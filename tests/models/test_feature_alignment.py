"""Features of two classifiers against each other."""

from __future__ import annotations

import math

import pytest
import torch

from videomae_fast import MAEConfig, VideoClassifier
from videomae_fast.models.feature_alignment import (
    ALIGNMENT,
    AlignedClassifier,
    Features,
    aligned_layers,
    alignment_terms,
    at_places,
    features_of,
)
from videomae_fast.models.frozen import FrozenFeatures

SHAPE = {"image_size": 32, "frames": 4, "heads": 2, "mlp_ratio": 2.0}
STUDENT = MAEConfig(width=16, depth=3, **SHAPE)


def student() -> AlignedClassifier:
    torch.manual_seed(0)
    return AlignedClassifier(STUDENT, 5, layers=(3, 1), width=24, init_scale=1.0).eval()


def test_layers_are_as_far_from_the_end_in_proportion() -> None:
    assert aligned_layers(12, 40, 6) == [(12, 40), (11, 37), (10, 34), (9, 30), (8, 27), (7, 24)]
    assert aligned_layers(2, 2, 2) == [(2, 2), (1, 1)]
    assert aligned_layers(6, 2, 6)[-1] == (1, 1)
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"{count} layers of 2"):
            aligned_layers(2, 8, count)


def test_features_are_those_of_the_classifier_and_its_frozen_layers() -> None:
    model, frames = student(), torch.randn(2, 4, 32, 32, 3)
    with torch.no_grad():
        found = features_of(model, frames, (1, 3))
        torch.testing.assert_close(found.pooled, model.features(frames))
    for layer, tokens in zip((1, 3), found.layers, strict=True):
        frozen = FrozenFeatures(model, "tokens", layer, final_norm=False)
        torch.testing.assert_close(tokens, frozen(frames))


def test_a_student_with_projections_is_the_classifier_without_them() -> None:
    model, frames = student(), torch.randn(2, 4, 32, 32, 3)
    plain = VideoClassifier(STUDENT, 5).eval()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(ALIGNMENT)}
    plain.load_state_dict(state)
    with model.without_alignment():
        model.load_state_dict(plain.state_dict())
    logits, streams, pooled = model(frames, aligned=True)
    torch.testing.assert_close(logits, plain(frames))
    torch.testing.assert_close(model(frames), plain(frames))
    assert [list(each.shape) for each in streams] == [[2, 2, 2, 2, 24]] * 2
    assert list(pooled.shape) == [2, 24]


def test_the_distance_of_known_vectors() -> None:
    """One layer at a right angle, one at 60 degrees, the pooled opposite: (2 + 1) / 2 + 4."""

    def tokens(*vector: float) -> torch.Tensor:
        return torch.tensor(vector).expand(1, 2, 1, 1, 2).clone()

    layers = [tokens(3.0, 0.0), tokens(2.0, 0.0)]
    teacher = Features(
        (tokens(0.0, 7.0), tokens(0.5, math.sqrt(0.75))), torch.tensor([[-5.0, 0.0]])
    )
    found = alignment_terms(layers, torch.tensor([[1.0, 0.0]]), teacher)
    torch.testing.assert_close(found, torch.tensor([1.5 + 4.0]))
    same = alignment_terms(layers, teacher.pooled * 9, Features(tuple(layers), teacher.pooled))
    torch.testing.assert_close(same, torch.zeros(1), atol=1e-6, rtol=0)


def test_no_gradient_goes_to_the_teacher() -> None:
    theirs = torch.randn(2, 1, 3, 3, 4, requires_grad=True)
    pooled, mine = torch.randn(2, 4, requires_grad=True), torch.randn(2, 1, 2, 2, 4)
    mine.requires_grad_(True)
    alignment_terms([mine], torch.randn(2, 4), Features((theirs,), pooled)).sum().backward()
    assert theirs.grad is None
    assert pooled.grad is None
    assert mine.grad is not None


def test_tokens_of_other_patches_come_to_the_students_places() -> None:
    """A plane that rises evenly still does: 4 places to 2, whose centres lie between."""
    ramp = torch.arange(4.0)[None, None, None, :, None].expand(1, 2, 4, 4, 1)
    moved = at_places(ramp, (2, 2, 2))
    torch.testing.assert_close(moved[0, 1, :, :, 0], torch.tensor([[0.5, 2.5], [0.5, 2.5]]))
    assert at_places(ramp, (2, 4, 4)) is ramp
    with pytest.raises(ValueError, match="2 time slots and the student 4"):
        at_places(ramp, (4, 4, 4))
    with pytest.raises(ValueError, match="1 layers of the student, 2 of"):
        alignment_terms([ramp], torch.zeros(1, 1), Features((ramp, ramp), torch.zeros(1, 1)))
