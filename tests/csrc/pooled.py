"""What processes of a pool compute, to be imported by each: what is given with -c can't be."""

from __future__ import annotations

import numpy as np
import torch

from tests.support import library


def work(number: int) -> float:
    """A value of an op's result, made by three threads."""
    torch.set_num_threads(3)
    x = torch.from_numpy(np.full((3000, 200), number, np.float32))  # no op of torch's
    return library.bias_gelu(x, None)[0, 0].item()
