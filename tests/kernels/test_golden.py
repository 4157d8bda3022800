"""The official values, with every op that has a Triton kernel forced to it: tests/models' tests.

Its test of predictions is left out: loss and gradients hold them, and the interpreter takes long
(most of it for the loss, a program per token).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.models.test_golden import (  # noqa: F401  (pytest finds them here)
    case,
    test_classifier,
    test_loss_and_every_gradient,
)
from videomae_fast.ops.registry import forced

pytestmark = pytest.mark.slow


@pytest.fixture
def impl() -> Iterator[str]:
    with forced("triton"):
        yield "triton"
