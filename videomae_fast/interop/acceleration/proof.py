"""The proof that an accelerated model computes what it computed before, made where it is asked for.

Random weights take the place of the model's own for the time (a freshly made model's zeros would
hide what multiplies them), and outputs, gradients of all parameters and of the input are compared:
of every block by itself, and of the model on clips of its size. Where all code is known, stacks are
thinned to two blocks for the latter.
"""

from __future__ import annotations

import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from videomae_fast.errors import AccelerationError
from videomae_fast.interop.acceleration.plans import Plan, Step
from videomae_fast.interop.acceleration.probes import PROBES, Probe
from videomae_fast.models.dtensor import is_dtensor
from videomae_fast.seeding import seed_generators

TOLERANCE = 1e-5
# Single parameters' gradients can nearly cancel, and their errors do not
_OF_ONE = 1e-3
_TOKENS = 24


@dataclass(frozen=True)
class Proof:
    """How the two computations compared.

    Attributes:
        seconds: what it took.
        compared: how many blocks and models.
        output_error, gradient_error: the largest of all; each the norm of the difference over the
            norm of the original's.
        skipped: modules whose own parts are not known well enough to make an input for them: their
            forms leave all to the original's code.
    """

    seconds: float
    compared: int
    output_error: float
    gradient_error: float
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        skipped = f"; not compared, as its own code serves: {', '.join(self.skipped)}"
        return (
            f"{self.compared} blocks and models compared on random weights in {self.seconds:.1f} s:"
            f" outputs {self.output_error:.1e}, gradients {self.gradient_error:.1e}"
            f"{skipped if self.skipped else ''}"
        )


def prove(model: nn.Module, plan: Plan, original: Callable[[], Any], *, thin: bool = True) -> Proof:
    """Compares an accelerated model with its own computation.

    Args:
        model: accelerated by `plan`.
        original: a context manager's maker, within which the model computes as before.
        thin: stacks of the whole model to two blocks.

    Raises:
        AccelerationError: they differ, or can't be compared.
    """
    begin = time.perf_counter()
    parameters = list(model.parameters())
    if any(parameter.is_meta for parameter in parameters):
        raise AccelerationError(
            "its parameters are on the meta device, where nothing can be computed: give it weights "
            "first, or pass prove=False"
        )
    if any(map(is_dtensor, parameters)):
        raise AccelerationError("its parameters are sharded: accelerate it before fully_shard")
    errors: dict[str, tuple[float, float] | None] = {}
    with _undisturbed(model, parameters[0].device):
        for step in plan.blocks:
            errors[step.path] = _compare(step, _tokens(step.module), original)
        for step in plan.steps:
            probe = PROBES.get(step.role)
            if probe is not None:
                with _thinned(step.module, plan) if thin else ExitStack():
                    errors[step.path] = _compare(step, probe, original)
    compared = [error for error in errors.values() if error is not None]
    outputs, gradients = zip(*compared, strict=True)
    skipped = tuple(path or "the model" for path, error in errors.items() if error is None)
    seconds = time.perf_counter() - begin
    return Proof(seconds, len(compared), max(outputs), max(gradients), skipped)


def _tokens(block: nn.Module) -> Probe:
    norm: Any = next(part for part in block.modules() if isinstance(part, nn.LayerNorm))

    def probe(_: nn.Module, random: Callable[..., Tensor]) -> tuple[tuple[Any, ...], Tensor]:
        if not getattr(block, "use_adapter", False):
            x = random(2, _TOKENS, norm.normalized_shape[0])
            return (x,), x
        # OpenTAD's adapters run along the time of tokens [slots, height, width]
        adapter: Any = block.adapter
        x = random(2, adapter.temporal_size, norm.normalized_shape[0])
        return (x, 1, 1), x

    return probe


def _compare(step: Step, probe: Probe, original: Callable[[], Any]) -> tuple[float, float] | None:
    """Errors of outputs and of gradients; None where no input can be made.

    Raises:
        AccelerationError: they are too large.
    """
    name = f"{type(step.module).__name__}{f' at {step.path}' if step.path else ''}"
    with _random_weights(step.module) as random:
        try:
            inputs, x = probe(step.module, random)
        except AttributeError:
            return None  # nor does its form find what it needs
        try:
            with original():
                evaluated, trained, gradients = _both_modes(step.module, inputs, x)
        except Exception as error:
            raise AccelerationError(
                f"{name}: its own code fails on random input of its size, so nothing can be "
                f"compared ({type(error).__name__}: {error}); pass prove=False to go without"
            ) from error
        try:
            found = _both_modes(step.module, inputs, x)
        except Exception as error:
            raise AccelerationError(
                f"{name} does not have what the known code has ({type(error).__name__}: {error})"
            ) from error
    if found[0].shape != evaluated.shape or found[1].shape != trained.shape:
        raise AccelerationError(f"{name} gives other outputs than the known code")
    output_error = max(_error(found[0], evaluated), _error(found[1], trained))
    norms: dict[str, float] = {}
    apart: dict[str, float] = {}
    for key, gradient in gradients.items():
        other = found[2][key]
        if gradient is not None and other is not None:
            norms[key] = float(gradient.norm())
            apart[key] = float((other - gradient).norm())
        elif gradient is not other:
            raise AccelerationError(f"{name}: only one of both computations gives {key} a gradient")
    gradient_error = _rms(apart) / max(_rms(norms), 1e-30)
    # A gradient that cancels to nearly nothing has nothing to be compared with but the others
    floor = 1e-3 * _rms(norms)
    worst_error, worst = max((apart[key] / (norms[key] + floor), key) for key in norms)
    if not (output_error <= TOLERANCE and gradient_error <= TOLERANCE and worst_error <= _OF_ONE):
        raise AccelerationError(
            f"{name} would not compute what it computes now: outputs differ by "
            f"{output_error:.1e}, gradients by {gradient_error:.1e}, that of {worst} by "
            f"{worst_error:.1e}, of their norms"
        )
    return output_error, gradient_error


def _rms(norms: dict[str, float]) -> float:
    return float((sum(norm**2 for norm in norms.values()) / len(norms)) ** 0.5)


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def _both_modes(
    module: nn.Module, inputs: tuple[Any, ...], x: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor | None]]:
    """Outputs in eval and train mode, flattened into one, and gradients in the latter."""
    module.eval()
    with torch.no_grad():
        evaluated = _flat(module(*inputs))
    module.train()
    generator = torch.Generator(x.device).manual_seed(1)
    named = dict(module.named_parameters())
    # Hooks that are set aside, and frozen parts, don't count: all parameters have gradients here
    x.requires_grad_()
    seed_generators(x.device, 2)
    trained = _flat(module(*inputs))
    weight = torch.randn(trained.shape, generator=generator, device=trained.device)
    gradients = torch.autograd.grad(
        (trained * weight).sum(), [*named.values(), x], allow_unused=True
    )
    x.requires_grad_(False)
    return evaluated, trained.detach(), dict(zip([*named, "the input"], gradients, strict=True))


def _flat(output: Any) -> Tensor:
    """All floating tensors of an output, in one dimension."""
    if isinstance(output, Tensor):
        return output.float().flatten()
    values = output.values() if isinstance(output, dict) else output
    return torch.cat([_flat(value) for value in values if isinstance(value, Tensor)])


@contextmanager
def _random_weights(module: nn.Module) -> Iterator[Callable[..., Tensor]]:
    """Other fp32 parameters, all trainable, in the places of a module's own; buffers are copies.

    Yields:
        What draws normal numbers of a shape, on the module's device.
    """
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    twins: dict[int, nn.Parameter] = {}
    held: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is not None:
                    held.append((part._parameters, name, value))
                    if id(value) not in twins:
                        twins[id(value)] = nn.Parameter(_random_like(name, value, random))
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    held.append((part._buffers, name, buffer))
        for place, name, value in held:
            place[name] = twins[id(value)] if id(value) in twins else value.clone()
        yield random
    finally:
        for place, name, value in held:
            place[name] = value


def _random_like(name: str, value: Tensor, random: Callable[..., Tensor]) -> Tensor:
    drawn = random(*value.shape)
    if value.ndim > 1:
        fan_in: float = value.numel() / value.shape[0]
        drawn *= fan_in**-0.5
        return drawn
    return 1 + drawn / 5 if name.endswith(("weight", "gamma_1", "gamma_2")) else drawn / 5


@contextmanager
def _thinned(module: nn.Module, plan: Plan) -> Iterator[None]:
    """Stacks of blocks with their first and last one only."""
    blocks = {id(step.module) for step in plan.blocks}
    held: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for part in list(module.modules()):
            for name, child in part._modules.items():
                if isinstance(child, nn.ModuleList) and {id(one) for one in child} <= blocks:
                    held.append((part._modules, name, child))
        for place, name, stack in held:
            if len(stack) > 2:
                place[name] = nn.ModuleList([stack[0], stack[-1]])
        yield
    finally:
        for place, name, stack in held:
            place[name] = stack


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Hooks set aside, fp32 as it is, no autocast; modes and random states as before at the end."""
    modes = [(module, module.training) for module in model.modules()]
    precision = torch.get_float32_matmul_precision()
    convolution = torch.backends.cudnn.allow_tf32
    devices = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(_no_hooks(model))
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.allow_tf32 = convolution
            for module, training in modes:
                module.training = training


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def _no_hooks(model: nn.Module) -> Iterator[None]:
    """Hooks of a model's modules and of the process, and compiled calls, set aside."""
    everywhere: list[dict[Any, Any]] = [getattr(torch_module, f"_global{name}") for name in _HOOKS]
    held = [dict(hooks) for hooks in everywhere]
    own: list[tuple[dict[str, Any], str, Any]] = []
    for module in model.modules():
        for name in _HOOKS:
            if getattr(module, name):
                own.append((module.__dict__, name, getattr(module, name)))
        if module.__dict__.get("_compiled_call_impl") is not None:
            own.append((module.__dict__, "_compiled_call_impl", module._compiled_call_impl))
    try:
        for hooks in everywhere:
            hooks.clear()
        for place, name, _ in own:
            place[name] = OrderedDict() if name in _HOOKS else None
        yield
    finally:
        for hooks, before in zip(everywhere, held, strict=True):
            hooks.update(before)
        for place, name, value in own:
            place[name] = value
