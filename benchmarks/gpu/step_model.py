"""One training step as the model of :mod:`benchmarks.gpu.calls` sees it: recorded, or by fakes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.common.workload import Masking, Workload
from benchmarks.contenders.base import Contender, Variant
from benchmarks.gpu.calls import Call, Recorder
from videomae_fast import MaskedAutoencoder
from videomae_fast.models.fp8 import MINIMUM_WIDTH, set_fp8


def step(contender: Contender, recorder: Recorder) -> list[Call]:
    """One training step of a contender, recorded."""
    recorder.calls.clear()
    with recorder:
        recorder.phase = "forward"
        loss = contender.forward()
        recorder.phase = "backward"
        contender.backward(loss)
        recorder.phase = "update"
        contender.update()
    return list(recorder.calls)


def modelled_step(
    workload: Workload, masking: Masking, attention: str = "triton", *, fp8: bool = False
) -> list[Call]:
    """The calls of a step of ours in bf16, by fake tensors: no GPU, no memory, no weights.

    They are a CPU's fake tensors, so what a GPU alone does is not in it: ViT-g's decoder MLP is
    2,234 wide, not 2,240.

    Args:
        attention: its backend.
        fp8: in wide blocks, of a tiny model in its widest.
    """
    from benchmarks.contenders.ours import Ours
    from videomae_fast.ops.registry import forced

    workload.spec(masking).counts(workload.config.grid)  # kept; it reads values, which fakes lack
    workload = replace(workload, device="cpu")  # whose clips are fake, and stay so
    every = {"linear": "torch", "attention": attention}  # as on a GPU; a fake chooses no kernel
    with _fake(), forced("auto", **every):
        model = MaskedAutoencoder(workload.config)
        set_fp8(model, fp8, minimum_width=min(MINIMUM_WIDTH, workload.config.width))
        setattr(model, "to", lambda device: model)  # noqa: B010  (torch can't move fake parameters)
        variant = Variant("ours", precision="bf16", lean=True, fp8=fp8)
        contender = Ours("ours, eager", variant, model, workload, masking)
        step(contender, Recorder())  # the optimizer's state is made in the first step
        return step(contender, Recorder())


@contextmanager
def _fake() -> Iterator[None]:
    """Tensors without values; initialisation that looks at values is left out."""
    with FakeTensorMode(), patch("torch.nn.init.trunc_normal_", lambda tensor, **_: tensor):
        yield
