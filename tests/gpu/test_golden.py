"""The official values on a GPU, as ops choose their backends there: in fp32, and in bf16.

Matmuls may not add up in reduced precision here: tests/conftest.py sees to that with --gpu.
"""

from __future__ import annotations

import pytest
import torch

from tests.gpu.conftest import ON_GPU
from tests.models.test_golden import (  # noqa: F401  (pytest finds them here)
    case,
    relative,
    test_classifier,
    test_loss_and_every_gradient,
    test_predictions_and_targets,
)

pytestmark = ON_GPU


@pytest.fixture
def device() -> str:
    return "cuda"


@pytest.fixture
def impl() -> str:
    return "auto"


def test_nothing_is_added_up_in_less_than_fp32():
    matmul = torch.backends.cuda.matmul
    assert not matmul.allow_bf16_reduced_precision_reduction
    assert not matmul.allow_fp16_reduced_precision_reduction
    assert not matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_loss_and_gradients_in_bf16(case):  # noqa: F811
    data, model, masks = case
    with torch.autocast("cuda", torch.bfloat16):
        output = model(data["frames"], masks, gradient_scale=1 / masks.loss_index.numel())
    output.backward()
    assert float(output.loss) == pytest.approx(float(data["loss"]), rel=2e-3)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    known = data.under("grad/")
    assert known
    apart = sum(float((gradients[k] - v).square().sum()) for k, v in known.items())
    size = sum(float(v.square().sum()) for v in known.values())
    assert (apart / size) ** 0.5 < 5e-2
