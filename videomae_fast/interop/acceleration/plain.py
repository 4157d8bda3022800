"""Whether something besides a module's own code takes part when it is called."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


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
_FUNCTIONS = tuple(
    (owner, name, getattr(owner, name))
    for owner, names in (
        (F, "linear layer_norm gelu dropout conv3d softmax scaled_dot_product_attention"),
        (torch, "cat matmul softmax zeros_like"),
        (torch.Tensor, "softmax matmul __matmul__ __add__ __mul__ transpose reshape permute mean"),
        (nn.Module, "__call__ _call_impl"),
    )
    for name in names.split()
)
_TENSORS = (nn.Parameter, torch.Tensor, FakeTensor)


def is_plain(module: object, kind: type[nn.Module]) -> bool:
    """Whether a module is torch's own `kind`: no subclass, hook, parametrisation or own forward.

    Nor are its parameters of a class that computes in its own way, as quantised ones are.
    """
    return (
        type(module) is kind
        and kind.forward is _FORWARDS[kind]
        and isinstance(module, nn.Module)
        and not hooked(module)
        and "forward" not in module.__dict__
        and all(value is None or type(value) in _TENSORS for value in module._parameters.values())
    )


def transformed() -> bool:
    """Whether the call is transformed by something that this library's ops have no rule for.

    Forward-mode differentiation, `torch.func`'s transforms, modes of others that change what
    torch's functions do, functions of torch that somebody has replaced, and export to programs
    that other runtimes execute get the original's own code.
    """
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return (
        forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or any(getattr(owner, name) is not value for owner, name, value in _FUNCTIONS)
        or _in_foreign_mode()
    )


def _in_foreign_mode() -> bool:
    functions: list[object] = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    modes = (*functions, *_get_current_dispatch_mode_stack())
    return any(not type(mode).__module__.startswith("torch.") for mode in modes)
