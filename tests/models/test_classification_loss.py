"""Losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from videomae_fast.models.classification_loss import distillation_loss, soft_cross_entropy


def test_soft_cross_entropy_of_known_logits() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)
    target = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert soft_cross_entropy(logits, target).item() == pytest.approx(entropy)


def test_distillation_of_two_known_distributions() -> None:
    teacher, student = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[0.0, 0.0]])
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert distillation_loss(student, teacher).item() == pytest.approx(divergence, rel=1e-6)
    warm = distillation_loss(2 * student, 2 * teacher, temperature=2.0).item()
    assert warm == pytest.approx(4 * divergence, rel=1e-6)


def test_gradients_go_to_the_student_alone() -> None:
    teacher = torch.randn(3, 5, requires_grad=True)
    student = torch.randn(3, 5, requires_grad=True)
    distillation_loss(student, teacher, 2.0).backward()
    assert teacher.grad is None
    assert student.grad is not None
    # t² · (softmax(student / t) − softmax(teacher / t)) / t, over the batch
    exact = 2.0 * ((student / 2).softmax(-1) - (teacher / 2).softmax(-1)) / 3
    torch.testing.assert_close(student.grad, exact.detach())


def test_equal_logits_cost_nothing() -> None:
    logits = torch.randn(4, 7)
    assert distillation_loss(logits, logits.clone(), 3.0).abs() < 1e-6


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one number of classes"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="temperature"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)
    with pytest.raises(ValueError, match="classes"):
        soft_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 4))
