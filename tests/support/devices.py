"""What runs on a GPU only."""

from __future__ import annotations

import pytest
import torch

missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
NEEDS_GPU = [pytest.mark.gpu, missing]
