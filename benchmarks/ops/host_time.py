"""What an op's call costs on the host: eager, forward and backward, on tiny tensors.

Beside each op runs one `autograd.Function` written by hand that calls the same bodies: what lies
above it is the price of contract, choice of backend and bookkeeping. The times are the process's
own on one thread, so that a busy machine changes them little. On a GPU the host's work is the same
but for the launches.

    python -m benchmarks host-time
    python -m benchmarks host-time --before ../old/.venv/bin/python   # another version, in turns

The measuring part imports nothing of benchmarks: another version's Python runs it as a script.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-call, arg-type"
import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from videomae_fast import ops

GOAL = 1.3  # times the hand-written function
CALLS = 100  # of one sample

Call = Callable[[], Any]
Pair = tuple[Call, Call, Sequence[Tensor]]


def _registry() -> dict[str, Any]:
    """The ops by name; the module was called otherwise in versions before 0.2."""
    try:
        module = import_module("videomae_fast.ops.registry")
    except ModuleNotFoundError:
        module = import_module("videomae_fast.ops._dispatch")
    registry: dict[str, Any] = module.REGISTRY
    return registry


def _bodies(op: str, impl: str = "native") -> tuple[Callable[..., Any], Callable[..., Any]]:
    registry = _registry()
    return tuple(registry[f"{op}{way}"].backends[impl].run for way in ("", "_backward"))


def pairs() -> dict[str, Pair]:
    """By op: its call, the same by hand, and the inputs that get gradients."""
    torch.manual_seed(0)
    found: dict[str, Pair] = {}

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, requires_grad=True)

    x, delta, width = leaf(2, 4, 8), leaf(2, 4, 8), [leaf(8) for _ in range(3)]
    index = torch.tensor([[0, 3], [1, 2]], dtype=torch.int32)
    frames = torch.randint(0, 256, (2, 2, 8, 8, 3), dtype=torch.uint8)
    cube = {"tubelet_size": 2, "patch_size": 4}

    norm, norm_backward = _bodies("add_layer_norm")

    class AddLayerNorm(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, d: Tensor, w: Tensor, b: Tensor, e: Tensor) -> Any:
            out, stream, mean, rstd = norm(x, d, w, b, e, None, None, 1e-6)
            ctx.save_for_backward(stream, mean, rstd, w)
            ctx.set_materialize_grads(False)
            return out, stream

        @staticmethod
        def backward(ctx: Any, grad: Tensor, grad_stream: Tensor | None) -> Any:
            saved = ctx.saved_tensors
            gx, _, gw, gb, ge, _ = norm_backward(
                grad, grad_stream, *saved, None, None, None, None, True
            )
            return gx, gx, gw, gb, ge

    w, b, e = width
    found["add_layer_norm"] = (
        lambda: ops.add_layer_norm(x, delta, w, b, delta_bias=e),
        lambda: AddLayerNorm.apply(x, delta, w, b, e),
        (x, delta, w, b, e),
    )

    gelu, gelu_backward = _bodies("bias_gelu")

    class BiasGelu(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
            ctx.save_for_backward(x, bias)
            out: Tensor = gelu(x, bias)
            return out

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return gelu_backward(grad, *ctx.saved_tensors)

    found["bias_gelu"] = lambda: ops.bias_gelu(x, b), lambda: BiasGelu.apply(x, b), (x, b)

    registry = _registry()
    gather = registry["token_gather"].backends["native"].run
    scatter = registry["token_scatter"].backends["native"].run

    class TokenGather(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
            ctx.save_for_backward(index)
            ctx.tokens = x.shape[1]
            out: Tensor = gather(x, index)
            return out

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return scatter(grad, *ctx.saved_tensors, ctx.tokens), None

    class TokenScatter(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, index: Tensor, tokens: int) -> Tensor:
            ctx.save_for_backward(index)
            out: Tensor = scatter(x, index, tokens)
            return out

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return gather(grad, *ctx.saved_tensors), None, None

    two = leaf(2, 2, 8)
    found["token_gather"] = (
        lambda: ops.token_gather(x, index), lambda: TokenGather.apply(x, index), (x,)
    )  # fmt: skip
    found["token_scatter"] = (
        lambda: ops.token_scatter(two, index, 4), lambda: TokenScatter.apply(two, index, 4), (two,)
    )  # fmt: skip

    append, append_backward = _bodies("append_rows")

    class AppendRows(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, table: Tensor, index: Tensor) -> Tensor:
            ctx.save_for_backward(index)
            ctx.own, ctx.rows = x.shape[1], table.shape[0]
            out: Tensor = append(x, table, index)
            return out

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            (index,) = ctx.saved_tensors
            return grad[:, : ctx.own], append_backward(grad, index, ctx.rows), None

    table = leaf(5, 8)
    found["append_rows"] = (
        lambda: ops.append_rows(x, table, index),
        lambda: AppendRows.apply(x, table, index),
        (x, table),
    )

    assembly, assembly_backward = _bodies("decoder_assembly")

    class DecoderAssembly(Function):
        @staticmethod
        def forward(ctx: Any, visible: Tensor, token: Tensor, *others: Tensor) -> Tensor:
            ctx.seen, ctx.dtype = visible.shape[1], token.dtype
            out: Tensor = assembly(visible, token, *others)
            return out

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return *assembly_backward(grad, ctx.seen, ctx.dtype), None, None, None

    others = (torch.randn(4, 8), index, index)
    found["decoder_assembly"] = (
        lambda: ops.decoder_assembly(two, b, *others),
        lambda: DecoderAssembly.apply(two, b, *others),
        (two, b),
    )

    mse, mse_backward = _bodies("pixel_mse")

    class PixelMse(Function):
        @staticmethod
        def forward(ctx: Any, prediction: Tensor, frames: Tensor, index: Tensor) -> Any:
            ctx.save_for_backward(prediction, frames, index)
            loss, weight = mse(prediction, frames, index, None, 2, 4, True, False)
            ctx.mark_non_differentiable(weight)
            ctx.set_materialize_grads(False)
            return loss, weight

        @staticmethod
        def backward(ctx: Any, grad: Tensor, _: None) -> Any:
            return mse_backward(grad, *ctx.saved_tensors, None, 2, 4, True, False), None, None

    prediction = leaf(2, 2, 96)
    found["pixel_mse"] = (
        lambda: ops.pixel_mse(prediction, frames, index, **cube),
        lambda: PixelMse.apply(prediction, frames, index),
        (prediction,),
    )

    attend, attend_backward = _bodies("attention")

    class Attention(Function):
        @staticmethod
        def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out, lse = attend(q, k, v, None)
            ctx.save_for_backward(q, k, v, out, lse)
            first: Tensor = out
            return first

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            q, k, v, out, lse = ctx.saved_tensors
            return attend_backward(grad, q, k, v, None, out, lse)

    heads = [leaf(2, 4, 2, 8) for _ in range(3)]
    found["attention"] = (
        lambda: ops.attention(*heads, impl="native"), lambda: Attention.apply(*heads), heads
    )  # fmt: skip

    if "packed_attention" in registry:  # not in versions before 0.2
        found["packed_attention"] = _packed_attention(leaf(2, 4, 3, 2, 8), leaf(16), leaf(16))

    product, product_backward = _bodies("linear", "onednn")

    class Linear(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            out: Tensor = product(x, weight, bias)
            return out

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return product_backward(grad, *ctx.saved_tensors, True, True)

    weight = leaf(8, 8)
    found["linear"] = (
        lambda: ops.linear(x, weight, b, impl="onednn"),
        lambda: Linear.apply(x, weight, b),
        (x, weight, b),
    )

    mean, std = list(ops.IMAGENET_MEAN), list(ops.IMAGENET_STD)
    patches = registry["patch_gather"].backends["native"].run
    both = registry["pixel_mse_with_gradient"].backends["native"].run

    class PatchGather(Function):
        @staticmethod
        def forward(ctx: Any, frames: Tensor, index: Tensor) -> Tensor:
            out: Tensor = patches(frames, index, 2, 4, mean, std, torch.float32)
            return out

    class PixelMseWithGradient(Function):
        @staticmethod
        def forward(ctx: Any, prediction: Tensor, frames: Tensor, index: Tensor) -> Any:
            return both(prediction, frames, index, None, 2, 4, True, False, 1.0)

    found["patch_gather"] = (
        lambda: ops.patch_gather(frames, index, **cube),
        lambda: PatchGather.apply(frames, index),
        (),
    )
    plain = prediction.detach()
    found["pixel_mse_with_gradient"] = (
        lambda: ops.pixel_mse_with_gradient(plain, frames, index, **cube),
        lambda: PixelMseWithGradient.apply(plain, frames, index),
        (),
    )
    return found


def _packed_attention(packed: Tensor, q_bias: Tensor, v_bias: Tensor) -> Pair:
    forward, backward = _bodies("packed_attention")

    class PackedAttention(Function):
        @staticmethod
        def forward(ctx: Any, packed: Tensor, q_bias: Tensor, v_bias: Tensor) -> Tensor:
            out, lse = forward(packed, None, q_bias, v_bias, None)
            ctx.save_for_backward(packed, q_bias, v_bias, out, lse)
            first: Tensor = out
            return first

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            packed, q, v, out, lse = ctx.saved_tensors
            grads = backward(grad, packed, None, q, v, None, out, lse, True, True)
            return grads[0], grads[2], grads[3]

    biases = {"q_bias": q_bias, "v_bias": v_bias}
    return (
        lambda: ops.packed_attention(packed, **biases, impl="native"),
        lambda: PackedAttention.apply(packed, q_bias, v_bias),
        (packed, q_bias, v_bias),
    )


def results(call: Call, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What a call gives, and the gradients of its inputs."""
    out = call()
    outputs = list(out) if isinstance(out, tuple) else [out]
    if not inputs:
        return outputs
    learnt = [one for one in outputs if one.requires_grad]
    grads = [torch.ones_like(one) for one in learnt]
    return [*outputs, *torch.autograd.grad(learnt, inputs, grads)]


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Microseconds of a call with its backward, by op, "ours" and "by hand", in turns.

    Raises:
        RuntimeError: the two give different values.
    """
    torch.set_num_threads(1)
    found = pairs()
    taken: dict[str, dict[str, list[float]]] = {}
    for op, (ours, by_hand, inputs) in found.items():
        if not all(map(torch.equal, results(ours, inputs), results(by_hand, inputs))):
            raise RuntimeError(f"{op}: what was written by hand gives other values")
        taken[op] = {"ours": [], "by hand": []}
    for number in range(rounds):
        for op, (ours, by_hand, inputs) in found.items():
            turns = [("ours", ours), ("by hand", by_hand)]
            for name, call in turns if number % 2 else reversed(turns):
                begin = time.process_time()
                for _ in range(CALLS):
                    results(call, inputs)
                taken[op][name].append((time.process_time() - begin) / CALLS * 1e6)
    return taken


def table(record: dict[str, Any]) -> str:
    """Medians in microseconds; the ratio is that of medians of the same run."""
    before = record.get("before", {})
    head = ["op", "by hand, µs", "ours, µs", "ours / by hand"]
    lines = [head + (["before, µs", "before / by hand"] if before else [])]
    for op, times in record["microseconds"].items():
        row = [op]
        for run in (times, before.get(op)):
            if run:
                hand, ours = (median(run[name]) for name in ("by hand", "ours"))
                told = [f"{hand:.1f}"] if run is times else []
                row += [*told, f"{ours:.1f}", f"{ours / hand:.2f}×"]
        lines.append(row)
    rule = ["-"] + ["-:"] * (len(lines[0]) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))


def arguments() -> argparse.ArgumentParser:
    from benchmarks.common.command import parser_of

    parser = parser_of("host-time", __doc__)
    parser.add_argument("--rounds", type=int, default=40, help=f"of {CALLS} calls each; 40")
    parser.add_argument("--before", type=Path, help="Python of an environment with another version")
    parser.add_argument("--commit", help="that version's commit, for the record")
    return parser


def main(argv: Sequence[str]) -> int:
    """
    Returns:
        1 where an op takes more than the goal, else 0.
    """
    from benchmarks.common.command import command_of, results_folder
    from benchmarks.common.record import environment, stamp, write

    args = arguments().parse_args(argv)
    threads = torch.get_num_threads()
    try:
        taken = measure(args.rounds)
    finally:
        torch.set_num_threads(threads)
    record = {
        "kind": "host time",
        **environment("cpu", command_of("host-time", argv)),
        "calls": CALLS,
        "microseconds": taken,
    }
    if args.before is not None:
        words = [str(args.before.absolute()), str(Path(__file__).resolve()), str(args.rounds)]
        child = subprocess.run(words, capture_output=True, text=True, check=True, cwd="/")
        record |= {"before": json.loads(child.stdout), "before_commit": args.commit}
    path = write(record, results_folder(args) / f"host-time-cpu-{stamp()}.json")
    shown = table(record)
    path.with_suffix(".md").write_text(f"{shown}\n", encoding="utf-8")
    print(f"{shown}\n\n{path}")
    worst = max(median(run["ours"]) / median(run["by hand"]) for run in taken.values())
    print(f"at most {worst:.2f} times what is written by hand; the goal is {GOAL}")
    return int(worst > GOAL)


if __name__ == "__main__":
    json.dump(measure(int(sys.argv[1])), sys.stdout)
