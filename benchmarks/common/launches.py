"""Launches of Triton kernels, noted instead of made, and compiled for GPUs that are not here.

The launchers of kernels/ are called with tensors that have shapes and strides but no values; what
Triton would specialise a launch on, Triton itself says: which integers are 1 or multiples of 16 or
need 64 bits, which pointers are aligned.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

ARCHS = (80, 90, 100)  # A100; H100 and H200; B200


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: the function.
        arguments: all of them, constants included, by name.
        options: num_warps, num_stages.
        grid: programs along each axis.
    """

    kernel: Any
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]
    grid: tuple[int, ...]

    @property
    def name(self) -> str:
        """File and function: "attention_flash.flash_forward"."""
        return f"{self.kernel.fn.__module__.rpartition('.')[2]}.{self.kernel.fn.__name__}"

    @property
    def programs(self) -> int:
        return math.prod(self.grid)

    @property
    def num_warps(self) -> int:
        return int(self._compiler_options.num_warps)

    @property
    def num_stages(self) -> int:
        return int(self._compiler_options.num_stages)

    @property
    def signature(self) -> dict[str, str]:
        """Type of each argument: "*bf16", "i32"; "constexpr" where the compiler has its value."""
        return dict(self._special[1])

    @property
    def aligned(self) -> tuple[str, ...]:
        """Arguments that are multiples of 16 (pointers: aligned to 16 bytes)."""
        names = list(self.arguments)
        return tuple(names[place[0]] for place, found in self._special[3].items() if found)

    @cached_property
    def key(self) -> str:
        """Equal for launches that run one binary."""
        kernel = f"{self.kernel.fn.__module__}.{self.kernel.fn.__name__}"
        options = sorted(self.options.items())
        return repr((kernel, *(sorted(each.items()) for each in self._special[1:]), options))

    def given(self, **arguments: Any) -> Launch:
        """The same launch with other values of some arguments.

        Raises:
            KeyError: the kernel has no such argument.
        """
        for name in arguments:
            if name not in self.arguments:
                raise KeyError(f"{self.name} has no argument {name}")
        return replace(self, arguments={**self.arguments, **arguments})

    @cached_property
    def _special(self) -> tuple[Any, dict[str, str], dict[Any, Any], dict[Any, Any]]:
        """Triton's own (options, signature, constants, attributes); the last two by place."""
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import make_backend
        from triton.runtime.jit import create_function_from_signature

        backend = make_backend(GPUTarget("cuda", 90, 32))  # of which specialising is independent
        bind = create_function_from_signature(self.kernel.signature, self.kernel.params, backend)
        given = {**self.arguments, **self.options}
        bound, special, options = bind(**given)
        found: tuple[Any, dict[str, str], dict[Any, Any], dict[Any, Any]] = self.kernel._pack_args(
            backend, given, bound, special, options
        )
        return found

    @property
    def _compiler_options(self) -> Any:
        return self._special[0]

    def source(self) -> Any:
        """What Triton compiles."""
        from triton.compiler import ASTSource

        _, signature, constants, attributes = self._special
        return ASTSource(self.kernel, signature, constants, attributes)

    def cache_key(self, arch: int) -> str:
        """What Triton's own cache knows a binary by: source and what it calls, arguments, options,
        the compiler's files, its assembler's version, and what of the environment changes it.

        Without a kernel's place in the file system: the same wherever the tree lies.
        """
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import get_cache_invalidating_env_vars, make_backend
        from triton.runtime.cache import get_cache_key

        backend = make_backend(GPUTarget("cuda", arch, 32))
        options = backend.parse_options(dict(self.options))
        found = get_cache_key(self.source(), backend, options, get_cache_invalidating_env_vars())
        return hashlib.sha256(found.encode()).hexdigest()

    def compiled(self, arch: int) -> Any:
        """Triton's compiled kernel for an architecture (90: H100, H200); from its cache, if there.

        Raises:
            Exception: whatever the compiler raises.
        """
        import triton
        from triton.backends.compiler import GPUTarget

        target = GPUTarget("cuda", arch, 32)
        return triton.compile(self.source(), target=target, options=dict(self.options))

    def checked(self, arch: int) -> None:
        """Compiles as far as Triton's own language goes: a few percent of the whole time.

        Raises:
            Exception: whatever the compiler raises.
        """
        from triton._C.libtriton import ir
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import make_backend

        target = GPUTarget("cuda", arch, 32)
        backend = make_backend(target)
        options = backend.parse_options(dict(self.options))
        context = ir.context()
        ir.load_dialects(context)
        backend.load_dialects(context)
        source = self.source()
        stages: dict[str, Any] = {}
        backend.add_stages(stages, options, source.language)
        module = source.make_ir(
            target,
            options,
            backend.get_codegen_implementation(options),
            backend.get_module_map(),
            context,
        )
        stages["ttir"](module, {})


def launch_of(kernel: Any, grid: Any, args: Sequence[Any], given: Mapping[str, Any]) -> Launch:
    """A launch as it is written: ``kernel[grid](*args, **given)``."""
    names = list(kernel.arg_names)
    arguments = dict(zip(names, args, strict=False))
    arguments |= {name: value for name, value in given.items() if name in names}
    for parameter in kernel.params:
        if parameter.has_default:
            arguments.setdefault(parameter.name, parameter.default)
    options = {name: value for name, value in given.items() if name not in names}
    extents = grid(arguments) if callable(grid) else grid
    ordered = {name: arguments[name] for name in names}
    return Launch(kernel, ordered, options, tuple(int(extent) for extent in extents))


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Triton's launches are noted instead of made."""
    from triton import JITFunction

    found: list[Launch] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **given: Any) -> None:
        found.append(launch_of(kernel, grid, args, given))

    right = JITFunction.run
    JITFunction.run = run
    try:
        yield found
    finally:
        JITFunction.run = right
