"""Kinds of training, a file each: data, model, the loss of a micro-batch, and what is told of it.

The engine that runs them is :mod:`videomae_fast.training`, which knows none of them.
"""

from __future__ import annotations
