"""The optimizer: AdamW by one of two fused kernels, its groups, and its state by name."""

from videomae_fast.training.optimizer.adamw import make_optimizer, set_weight_decay
from videomae_fast.training.optimizer.groups import has_no_decay, parameter_groups
from videomae_fast.training.optimizer.state import (
    load_optimizer_state,
    optimizer_state,
    read_optimizer_state,
)

__all__ = [
    "has_no_decay",
    "load_optimizer_state",
    "make_optimizer",
    "optimizer_state",
    "parameter_groups",
    "read_optimizer_state",
    "set_weight_decay",
]
