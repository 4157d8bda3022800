"""One declaration per op: from its reference to what eager code, torch.compile and export call.

The reference in plain torch is the op's schema, its fake (what it gives without values) and the
backend that serves everywhere. :func:`declare` makes of it

* a registered op, ``torch.ops.videomae_fast.<name>``, which torch.compile, export, fake tensors,
  torch.func, the profiler and dispatch modes see as one call;
* one ``autograd.Function``, which eager code goes through: the bodies of forward and backward call
  the chosen backend directly, and the dispatcher, which takes longer than a small op, stays out;
* an entry in the registry, where `impl` is looked up.

Every result is contiguous, whichever backend made it: the fake promises that to the compiler.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from inspect import signature
from operator import itemgetter
from types import new_class
from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch._C import (
    DispatchKey,
    _are_functorch_transforms_active,
    _dispatch_tls_is_dispatch_key_included,
    _get_tracing_state,
    _len_torch_dispatch_stack,
    _len_torch_function_stack,
)
from torch.autograd import Function, forward_ad, profiler
from torch.compiler import is_compiling
from torch.library import custom_op, infer_schema
from torch.nn import Parameter

from videomae_fast.errors import DerivativeError
from videomae_fast.ops import registry
from videomae_fast.ops._fakes import dense, fake_of
from videomae_fast.ops.registry import REGISTRY, Backend, Op, Policy

NAMESPACE = "videomae_fast"
_VALUES = frozenset((int, float, bool, str, list, torch.dtype))
_PRE_DISPATCH = DispatchKey.PreDispatch
_Remember = Callable[[Any, tuple[Any, ...], Any], None]
_Recall = Callable[[Any, str, tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]


def native(function: Callable[..., Any], **limits: Any) -> Backend:
    """The compiled library's, for CPU tensors.

    Args:
        function: of a file in ``videomae_fast/ops/_native``; takes the op's arguments as one tuple
            that has their names.
        limits: `dtypes`, `unfit` or `held_back` of the backend.
    """
    missing = registry.native_missing
    return Backend(function, "the native library", "cpu", missing=missing, named=True, **limits)


def triton(module: str, function: str, **limits: Any) -> Backend:
    """The Triton kernels', for CUDA tensors.

    Args:
        function: of ``videomae_fast.kernels.<module>``, its launcher; takes the op's arguments as
            one tuple that has their names.
        limits: `unfit` of the backend; `dtypes`, if they are not fp32, bf16 and fp16.
    """

    run = launcher(module, function)
    limits = {"dtypes": registry.UP_TO_FP32, "missing": registry.triton_missing, **limits}
    return Backend(run, "Triton", "cuda", interpreted=True, named=True, **limits)


def launcher(module: str, function: str) -> Callable[..., Any]:
    """A function of ``videomae_fast.kernels.<module>``.

    The import waits for the first call, so that the ops can be imported where Triton can't.
    """
    return lambda *args: getattr(import_module(f"videomae_fast.kernels.{module}"), function)(*args)


@dataclass(frozen=True)
class Gradient:
    """How an op's gradients come about: by an op that computes them.

    That op takes the gradients of the differentiable results, then what forward kept: tensors,
    then other values. Arguments of it called ``needs_<input>`` come last and are filled in: whether
    that input's gradient is wanted.

    Attributes:
        op: its reference, whose op is called like the forward one with "_backward" behind and has
            no gradient of its own; or an op that is declared already.
        of: the inputs whose gradients it returns, in this order.
        backends: the other backends of a reference.
        results: names of forward's results, for what is kept of them.
        differentiable: how many of forward's results have a gradient; the first ones. If they are
            several, they have one shape and dtype.
        keep: makes what is kept, from the inputs and results that its parameters name; by default
            what the op's own parameters name.
        finish: makes the gradients from the op's result, its first parameter, and those of the op's
            arguments that the others name; by default they are the result.
    """

    op: Callable[..., Any] | Declared
    of: Sequence[str]
    backends: Mapping[str, Backend] = field(default_factory=dict)
    results: Sequence[str] = ()
    differentiable: int = 1
    keep: Callable[..., tuple[Any, ...]] | None = None
    finish: Callable[..., tuple[Any, ...]] | None = None


class Declared:
    """An op, to be called with `impl` and then its arguments.

    Attributes:
        op: its entry in the registry.
        registered: the op as torch knows it; takes the arguments, then `impl`.
        names: of its arguments, without `impl`.
        optional: whether each of them may be None.
        tensors: how many of them, counted from the first, are tensors or None.
    """

    def __init__(self, reference: Callable[..., Any], op: Op) -> None:
        self.op = op
        self._own = Op(op.name, {k: b for k, b in op.backends.items() if not b.composite})
        self._composite = len(self._own.backends) < len(op.backends)
        self._gradients: tuple[_Remember, _Recall] | None = None
        self._applies: dict[tuple[str, str], Callable[..., Any]] = {}
        self._runs = {key: backend.run for key, backend in self._own.backends.items()}
        arguments, _, results = infer_schema(reference, mutates_args=()).rpartition(") -> ")
        self._definition = custom_op(
            f"{NAMESPACE}::{op.name}",
            lambda *args: self._own.choose(args[-1], *args[:-1]).run(*args[:-1]),
            mutates_args=(),
            schema=f"{arguments}, str impl) -> {results}",
        )
        fake = fake_of(reference)
        self._definition.register_fake(lambda *args: fake(*args[:-1]))
        self.registered = getattr(getattr(torch.ops, NAMESPACE), op.name).default
        schema = self.registered._schema.arguments[:-1]
        self.names = tuple(argument.name for argument in schema)
        kinds = [str(argument.type) for argument in schema]
        self.optional = tuple(kind.startswith("Optional") for kind in kinds)
        self.tensors = next((i for i, kind in enumerate(kinds) if "Tensor" not in kind), len(kinds))

    def __call__(self, impl: str, *args: Any) -> Any:
        """The op's results.

        Raises:
            BackendUnavailableError: `impl` can't run here.
        """
        if self._composite:
            impl = self.serving(impl, args)
            if impl not in self._runs:
                return self.op.backends[impl].run(*args)
        if _watched():
            return self.registered(*args, impl)
        learning = _learning(args)
        if learning is None or (learning and self._gradients is None):
            return self.registered(*args, impl)
        if not learning:
            return self.run(impl, args)
        name = self._own.pick(impl, args)
        apply = self._applies.get((impl, name))
        if apply is None:
            apply = self._applies[impl, name] = self._function(impl, name).apply
        return apply(*args)  # type: ignore[no-untyped-call]

    def serving(self, impl: str, args: tuple[Any, ...]) -> str:
        """The name of the backend for these arguments.

        A name of the op's own is looked at where it runs: not by fakes, which run nothing.

        Raises:
            BackendUnavailableError: `impl` can't run here.
        """
        impl = self.op.meant(impl)
        return impl if impl in self._runs else self.op.pick(impl, args)

    def run(self, impl: str, args: tuple[Any, ...]) -> Any:
        """The results of plain tensors, without a gradient and without the dispatcher."""
        return self._runs[self._own.pick(impl, args)](*args)

    def differentiate(self, gradient: Gradient) -> None:
        """Gives the op its gradients, as a registered op and in eager mode."""
        self._gradients = remember, recall = _both_ways(self, gradient)

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.impl = inputs[-1]
            remember(ctx, inputs[:-1], output)

        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            return (*recall(ctx, ctx.impl, grads), None)

        self._definition.register_autograd(backward, setup_context=setup)

    def _function(self, impl: str, name: str) -> type[Function]:
        """The op in eager mode where it was asked for `impl` and `name` serves.

        A class for each, since what goes through ``apply`` beside the op's own arguments costs as
        much as one of them.
        """
        assert self._gradients is not None
        remember, recall = self._gradients
        run = self._runs[name]

        def forward(ctx: Any, *args: Any) -> Any:
            output = run(*args)
            remember(ctx, args, output)
            return output

        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            return recall(ctx, impl, grads)

        members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        return new_class(self.op.name, (Function,), exec_body=lambda body: body.update(members))

    def refuse_gradient(self, of: str) -> None:
        """Makes a gradient through this op, itself the backward of `of`, an error in words."""

        def refuse(_ctx: Any, *_grads: Any) -> Any:
            raise DerivativeError(
                f"{of} has no second derivative (create_graph=True, gradient penalties): use the "
                "model's own code for it; an accelerated model has it back after report.undo()"
            )

        self._definition.register_autograd(refuse)


def declare(
    name: str,
    reference: Callable[..., Any],
    *,
    gradient: Gradient | None = None,
    policy: Policy | None = None,
    **backends: Backend,
) -> Declared:
    """Declares an op.

    Args:
        name: in the registry and in ``torch.ops.videomae_fast``.
        reference: plain torch with annotations; its parameters are the op's arguments. It must not
            look at values, and its results are no views of its arguments.
        gradient: how its gradients come about; without it, it has none.
        policy: what "auto" prefers over the order of the backends.
        backends: in the order in which "auto" tries them; the reference comes last.
    """
    backends["reference"] = Backend(lambda *args: dense(reference(*args)), "the reference")
    parameters = signature(reference).parameters
    last = max(i for i, one in enumerate(parameters.values(), 1) if _is_looked_at(one.annotation))
    placed = last if last < len(parameters) else None  # None is quicker
    limited = {key: replace(backend, placed=placed) for key, backend in backends.items()}
    declared = Declared(reference, register(name, parameters, policy, **limited))
    if gradient is not None:
        declared.differentiate(gradient)
    return declared


def _is_looked_at(annotation: str) -> bool:
    """Whether a backend's limits of device and dtype are for such an argument."""
    return "Tensor" in annotation or annotation == "torch.dtype"


def register(
    name: str, arguments: Iterable[str], policy: Policy | None = None, **backends: Backend
) -> Op:
    """Makes an op known to the registry: backends and predicates take all arguments by place.

    So the list of an op's parameters stands in its contract and its reference alone: whatever else
    looks at arguments has them by their names.
    """
    names = tuple(arguments)
    named = namedtuple(name, names)  # type: ignore[misc]
    bound = {
        key: replace(
            backend,
            run=_one_by_one(backend.run, named) if backend.named else backend.run,
            unfit=backend.unfit and _placed(backend.unfit, names),
            named=False,
        )
        for key, backend in backends.items()
    }
    prefer = None if policy is None else _placed(policy.prefer, names)
    REGISTRY[name] = Op(name, bound, policy, prefer)
    return REGISTRY[name]


def _one_by_one(run: Callable[[Any], Any], named: type[tuple[Any, ...]]) -> Callable[..., Any]:
    """`run`, which takes a tuple with names, to be called with arguments in their places."""
    made = partial(tuple.__new__, named)
    return lambda *args: run(made(args))


def _placed(unfit: Callable[..., str | None], names: Sequence[str]) -> Callable[..., str | None]:
    """As `by_name`, of arguments in their places, and in words that torch.compile can follow."""
    places = [names.index(name) for name in signature(unfit).parameters]
    return lambda *args: unfit(*[args[place] for place in places])


def _both_ways(forward: Declared, gradient: Gradient) -> tuple[_Remember, _Recall]:
    """What forward does for backward's sake, and backward, for any autograd context."""
    backward, name, count = gradient.op, forward.op.name, gradient.differentiable
    if not isinstance(backward, Declared):
        others: dict[str, Any] = dict(gradient.backends)
        backward = declare(f"{name}_backward", backward, **others)
        backward.refuse_gradient(name)
    places = [forward.names.index(one) for one in gradient.of]
    needs = [one for one in backward.names if one.startswith("needs_")]
    wanted = [forward.names.index(one.removeprefix("needs_")) for one in needs]
    known = (*forward.names, *gradient.results)
    if gradient.keep is None:
        keep = pick_by_name([one for one in backward.names[count:] if one not in needs], known)
    else:
        keep = by_name(gradient.keep, known)
    finish = gradient.finish and by_name(gradient.finish, ("result", *backward.names))
    tensors = backward.tensors - count
    more = len(backward.names) > backward.tensors + len(needs)
    nones = (None,) * len(forward.names)
    # Where the first inputs are tensors, their gradients may be handed on as they come.
    plain = places == list(range(len(places))) and not any(forward.optional[: len(places)])
    behind = nones[len(places) :]

    def remember(ctx: Any, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, tuple):
            values = keep((*args, *output))
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*output[count:])
        else:
            values = keep((*args, output))
        if more:
            ctx.others = values[tensors:]
            values = values[:tensors]
        ctx.save_for_backward(*values)

    def recall(ctx: Any, impl: str, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            there = next((grad for grad in grads if grad is not None), None)
            if there is None:
                return nones
            grads = tuple(
                torch.zeros_like(there) if grad is None and not optional else grad
                for grad, optional in zip(grads, backward.optional, strict=False)
            )
        arguments = (*grads[:count], *ctx.saved_tensors)
        if more:
            arguments += ctx.others
        if wanted:
            arguments += tuple([ctx.needs_input_grad[place] for place in wanted])
        if is_grad_enabled() or _watched():
            result = backward(impl, *arguments)
        else:
            result = backward.run(impl, arguments)
        if finish is not None:
            result = finish((result, *arguments))
        if not isinstance(result, tuple):
            result = (result,)
        if plain:
            return (*result, *behind)
        found, needed = [*nones], ctx.needs_input_grad
        for place, one in zip(places, result, strict=True):
            if needed[place]:
                found[place] = one
        return tuple(found)

    return remember, recall


def by_name(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """`function`, to be called with a tuple of the values of `names`: it gets its parameters'."""
    pick = pick_by_name(list(signature(function).parameters), names)
    return lambda values: function(*pick(values))


def pick_by_name(
    wanted: Sequence[str], names: Sequence[str]
) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Picks, of a tuple of the values of `names`, those that are wanted."""
    places = [names.index(name) for name in wanted]
    if len(places) == 1:
        return lambda values: (values[places[0]],)
    return itemgetter(*places)


def plain(*tensors: Tensor) -> bool:
    """Whether a call concerns its backend alone, and may go around the dispatcher.

    The first custom op that a process calls through it imports the compiler, in seconds, where a
    loader process has no other use for it.
    """
    return not _watched() and _learning(tensors) is False


def _watched() -> bool:
    """Whether somebody looks at or changes what torch computes, and so has to see one op."""
    return (
        is_compiling()
        or profiler._is_profiler_enabled
        or forward_ad._current_level >= 0
        or _len_torch_dispatch_stack() > 0
        or _len_torch_function_stack() > 0
        or _are_functorch_transforms_active()
        or _get_tracing_state() is not None
        or _dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)
    )


def _learning(args: tuple[Any, ...]) -> bool | None:
    """Whether autograd has to record the op; None: one of the tensors has a dispatcher's rules."""
    if args[0].is_meta:
        return None
    learning = False
    for arg in args:
        kind = type(arg)
        if kind is Tensor or kind is Parameter:
            if not learning and arg.requires_grad:
                learning = True
        elif arg is not None and kind not in _VALUES and isinstance(arg, Tensor):
            return None
    return learning and is_grad_enabled()
