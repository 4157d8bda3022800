"""Whether something besides a module's own code takes part when it is called."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module


def hooked(module: nn.Module) -> bool:
    """Whether a hook sits on a module, or on all modules of the process."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )


def hooked_within(module: nn.Module) -> bool:
    """Whether a hook sits within a module; those on itself are not asked for."""
    return any(hooked(part) or hooked_within(part) for part in module._modules.values() if part)


# What torch's own classes compute with; somebody may put something else there
_FORWARDS: dict[type[nn.Module], object] = {
    kind: kind.forward
    for kind in (nn.Conv3d, nn.Dropout, nn.GELU, nn.Identity, nn.LayerNorm, nn.Linear)
}


def is_plain(module: object, kind: type[nn.Module]) -> bool:
    """Whether a module is torch's own `kind`: no subclass, hook, parametrisation or own forward."""
    return (
        type(module) is kind
        and kind.forward is _FORWARDS[kind]
        and isinstance(module, nn.Module)
        and not hooked(module)
        and "forward" not in module.__dict__
    )


def transformed() -> bool:
    """Whether the call is transformed by something that this library's ops have no rule for.

    Forward-mode differentiation, `torch.func`'s transforms, and export to programs that other
    runtimes execute get the original's own code.
    """
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return (
        forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
    )
