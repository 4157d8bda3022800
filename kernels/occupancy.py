"""How many programs of a kernel a multiprocessor holds: what kernels that loop over rows launch.

Such a kernel gets as many programs as fit at once, so that all begin and end together; one more
would run alone at the end. What fits follows from the registers that the compiler gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from triton import JITFunction

REGISTERS = 65_536  # of a multiprocessor, from sm_70 on
PROGRAMS = {(7, 5): 16, (8, 6): 16, (8, 7): 16, (8, 9): 24, (11, 0): 24, (12, 0): 24, (12, 1): 24}
OTHERS_PROGRAMS = 32  # sm_80, sm_90, sm_100

# Registers of a thread where nothing is compiled, by kernel and width: what Triton 3.7.1 takes on
# sm_90 for bf16 and fp32 parameters, without LayerScale. On "meta" they give the launches of a
# step, in the interpreter any number would do.
ASSUMED: dict[tuple[str, int | None], int] = {
    ("bias_gelu", None): 53,
    ("bias_gelu_backward", None): 96,
    **{
        ("add_layer_norm", width): registers
        for width, registers in (
            (192, 63), (384, 64), (512, 63), (768, 64), (1024, 64), (1280, 72), (1408, 80),
        )
    },
    **{
        ("add_layer_norm_backward", width): registers
        for width, registers in (
            (192, 126), (384, 126), (512, 80), (768, 128), (1024, 72), (1280, 124), (1408, 124),
        )
    },
    **{("add_layer_norm_fp8", width): registers for width, registers in ((1280, 76), (1408, 80))},
    **{("bias_gelu_fp8", width): registers for width, registers in ((5120, 128), (6144, 130))},
    **{
        ("quantize_rows", width): registers
        for width, registers in (
            (1280, 68), (1408, 72), (3840, 56), (4224, 56), (5120, 64), (6144, 78),
        )
    },
}  # fmt: skip
UNKNOWN = 255  # the most that a thread can have: the fewest programs


def assumed_registers(kernel: str, width: int | None = None) -> int:
    """Registers of a thread of `kernel` where nothing is compiled."""
    return ASSUMED.get((kernel, width), UNKNOWN)


def multiprocessors(device: torch.device) -> int:
    """How many the device has; in Triton's interpreter a small number, for speed.

    On "meta", where kernels are compiled but not launched, those of an H100 or H200.
    """
    if device.type != "cuda":
        return 132 if device.type == "meta" else 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def resident(
    registers: int,
    shared: int,
    num_warps: int,
    *,
    most_warps: int = 64,
    most_programs: int = OTHERS_PROGRAMS,
    most_shared: int = 233_472,
) -> int:
    """How many programs a multiprocessor holds at once, at least 1.

    Args:
        registers: of a thread.
        shared: bytes of a program, to which the hardware adds 1,024.
        num_warps: of a program.
        most_warps, most_programs, most_shared: what the multiprocessor has; an H100's by default.
    """
    warp = -(-registers * 32 // 256) * 256  # registers are allotted to warps in 256s
    fit = (most_programs, most_warps // num_warps, most_shared // (shared + 1024))
    return max(1, min(*fit, REGISTERS // (warp * num_warps)))


def programs_at_once(
    kernel: Any,
    arguments: tuple[Tensor | torch.dtype | float | None, ...],
    constants: Mapping[str, int | bool],
    num_warps: int,
    device: torch.device,
    assumed: int,
    per_multiprocessor: int | None = None,
) -> int:
    """How many programs of a launch the device holds at once.

    On a GPU the kernel is compiled, if it isn't yet, for arguments like these: tensors aligned to
    16 bytes, integers that 16 divides, whatever these ones are. So the number depends on the card,
    on the versions of Triton and its assembler, and on dtypes and `constants`, and not on what was
    launched before: sums whose order follows the programs are equal bit for bit from run to run on
    the same card.

    Args:
        kernel: the `triton.jit` function.
        arguments: those before the constants, in order; a dtype stands for a tensor to come.
        constants: its constexprs.
        num_warps: of a program.
        device: where it will run.
        assumed: registers of a thread where nothing is compiled: on "meta", in the interpreter.
        per_multiprocessor: how many to launch on each, whatever fits.
    """
    if per_multiprocessor is not None:
        return per_multiprocessor * multiprocessors(device)
    if device.type != "cuda" or not isinstance(kernel, JITFunction):
        return resident(assumed, 0, num_warps) * multiprocessors(device)
    like = tuple([_like(argument) for argument in arguments])
    key = (id(kernel), device.index, like, tuple(constants.items()), num_warps)
    if key not in _KNOWN:  # with the kernel, whose number no other one gets
        _KNOWN[key] = kernel, _that_fit(kernel, like, constants, num_warps, device)
    return _KNOWN[key][1]


_KNOWN: dict[tuple[Any, ...], tuple[Any, int]] = {}


def _that_fit(
    kernel: Any,
    like: tuple[torch.dtype | float | None, ...],
    constants: Mapping[str, int | bool],
    num_warps: int,
    device: torch.device,
) -> int:
    """Source: Triton's tutorial on fused softmax finds registers in the same way."""
    # device_of was entered by the launcher
    compiled = kernel.warmup(*like, grid=(1,), num_warps=num_warps, **dict(constants))
    compiled._init_handles()  # loads the binary: only then are registers known
    registers, shared = compiled.n_regs, compiled.metadata.shared
    has = torch.cuda.get_device_properties(device)
    return has.multi_processor_count * resident(
        registers,
        shared,
        num_warps,
        most_warps=has.max_threads_per_multi_processor // 32,
        most_programs=PROGRAMS.get((has.major, has.minor), OTHERS_PROGRAMS),
        most_shared=has.shared_memory_per_multiprocessor,
    )


def _like(argument: Tensor | torch.dtype | float | None) -> torch.dtype | float | None:
    """What stands for an argument when the kernel is compiled to be looked at."""
    if isinstance(argument, Tensor):
        return argument.dtype
    return 16 if isinstance(argument, int) else argument
