"""The step's model against counts made by hand, and kernels of a trace set beside it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.common.workload import TINY, Workload
from benchmarks.contenders.base import Variant
from benchmarks.contenders.build import build
from benchmarks.gpu import kernel_profile
from benchmarks.gpu.calls import KNOWN, LABEL, Call, Ceilings, Recorder
from benchmarks.gpu.kernel_profile import ProfileError, Timed, groups, kernels_of
from benchmarks.gpu.step_model import modelled_step, step
from videomae_fast import MAEConfig
from videomae_fast.models.flops import flops

CARD = Ceilings("a card", copy=1e9, matmul=1e12)


def recorded(run) -> list[Call]:
    recorder = Recorder()
    with recorder:
        run()
    return recorder.calls


def test_bytes_are_counted_once_each():
    x, y = torch.ones(8, 4), torch.ones(8, 4)
    row = torch.ones(4)
    cases = [
        (lambda: x + y, 2 * 128, 128),
        (lambda: x + x, 128, 128),  # one tensor, read once
        (lambda: x + row.expand(8, 4), 128 + 16, 128),  # a row that is there once
        (lambda: torch.cat([x, y]), 256, 256),
        (lambda: x.copy_(y), 128, 128),  # what was in x is not read
        (lambda: x.add_(y), 256, 128),
        (lambda: x[torch.tensor([1, 2])], 2 * 16 + 16, 2 * 16),  # two rows, and which
    ]
    for run, read, written in cases:
        call = recorded(run)[-1]
        assert (call.read, call.written) == (read, written), call
    assert recorded(lambda: x.view(4, 8).transpose(0, 1)[1:].detach()) == []
    assert recorded(lambda: torch.empty(100)) == []


def test_times_are_the_longer_of_moving_and_computing():
    (call,) = recorded(lambda: torch.ones(64, 256) @ torch.ones(256, 32))[-1:]
    assert call.flop == 2 * 64 * 256 * 32
    assert call.inner == 32
    moved = 4 * (64 * 256 + 256 * 32 + 64 * 32)
    assert call.floor(CARD) == max(moved / 1e9, call.flop / 1e12) == moved / 1e9
    assert call.floor(Ceilings("", copy=1e15, matmul=1e12)) == call.flop / 1e12
    assert call.modelled(CARD) > call.floor(CARD)


@pytest.fixture(scope="module")
def base() -> list[Call]:
    return modelled_step(Workload(MAEConfig.from_size("base"), 128), "dual")


def test_a_step_of_vit_b_moves_what_was_counted_by_hand(base):
    """MB per clip, forward + backward: LayerNorm 47 + 47, GELU 47 + 70, patches .74, loss 5.4."""
    moved: Counter[str] = Counter()
    for call in base:
        moved[call.op.removeprefix("videomae_fast::")] += call.bytes / 128e6
    # Of 35 norms 3 are not fused with a residual
    assert moved["add_layer_norm"] == pytest.approx(47, rel=0.05)
    assert moved["add_layer_norm_backward"] == pytest.approx(47, rel=0.06)
    assert moved["bias_gelu"] == pytest.approx(47, rel=0.05)
    assert moved["bias_gelu_backward"] == pytest.approx(70, rel=0.05)
    assert moved["patch_gather"] == pytest.approx(0.74, rel=0.02)
    assert moved["pixel_mse_with_gradient"] == pytest.approx(5.4, rel=0.02)
    adam = sum(call.bytes for call in base if "adam" in call.op)
    assert adam == pytest.approx(32 * 94.2e6, rel=0.01)  # g, p, m, v read and written


def test_a_step_of_vit_b_computes_what_the_formulas_say(base):
    """Forward multiply-adds by formula; backward twice that, attention's 2.5 times."""
    workload = Workload(MAEConfig.from_size("base"), 128)
    parts = flops(workload.config, workload.spec("dual"), "ours", batch=128)
    attention = parts["encoder_attention"] + parts["decoder_attention"]
    linear = sum(parts.values()) - attention
    expected = 128 * 2 * (3 * linear - parts["patch_embed"] + 3.5 * attention)
    assert sum(call.flop for call in base) == pytest.approx(expected, rel=1e-3)


def test_the_step_is_modelled_within_its_bounds(base):
    card = next(known for known in KNOWN if known.name == "H200")
    floor = 1e3 * sum(call.floor(card) for call in base)
    modelled = 1e3 * sum(call.modelled(card) for call in base)
    assert 25 < floor < modelled < 50  # ms; a hand-made model says 28 and 42


def test_fakes_and_real_tensors_are_counted_alike():
    """A tiny step in fp32: the model by fakes runs no value, and names the same calls."""
    workload = Workload(TINY, 2)
    contender = build("ours", Variant("ours", lean=True), workload, "dual")
    step(contender, Recorder())
    real = step(contender, Recorder())
    fake = modelled_step(workload, "dual")

    def ours(calls):
        names = ("add_layer_norm", "bias_gelu", "pixel", "token", "append", "assembly", "patch")
        return Counter(call.op for call in calls if any(name in call.op for name in names))

    assert ours(real) == ours(fake)
    assert ours(real)


def test_bytes_of_single_ops_are_those_of_their_benchmark():
    """What op_cases says by formula, the model counts from tensors; indices and vectors apart."""
    from benchmarks.ops.cases import op_cases
    from videomae_fast.ops.registry import forced

    config = replace(TINY, image_size=224, width=384, heads=6, decoder_width=192)
    apart = {}
    # These read parts of their clips; torch's matmuls are not ours to count
    other = ("crop_resize", "augmented_views", "linear", "gelu_mlp")
    with forced("reference"):
        for case in op_cases(Workload(config, 2), torch.float32):
            op = getattr(torch.ops.videomae_fast, case.op, None)
            if op is None or case.op.startswith(other):
                continue
            args = (*case.args(), "reference")
            schema = op.default._schema.arguments
            assert len(schema) == len(args), case.op
            (call,) = recorded(lambda op=op, args=args: op(*args))
            # The table of positions, one for the batch: only of two clips it counts
            table = args[2].numel() * 4 if case.op == "decoder_assembly" else 0
            apart[case.name] = (call.bytes - table) / case.bytes
    assert len(apart) > 15
    assert {name: share for name, share in apart.items() if not 0.97 < share < 1.06} == {}


def test_fp8_is_modelled_as_it_is_called():
    """Each value once, passes over weights and gradients beside; the same flop, at another rate."""
    config = replace(TINY, width=128, heads=2)
    workload = Workload(config, 2)
    plain, fp8 = (modelled_step(workload, "dual", fp8=on) for on in (False, True))
    assert sum(c.flop for c in fp8) == pytest.approx(sum(c.flop for c in plain), rel=1e-6)
    counts = Counter(call.op.removeprefix("videomae_fast::") for call in fp8)
    blocks = config.depth
    assert counts["fp8_linear"] == counts["fp8_linear_backward"] == 3 * blocks
    assert (counts["add_layer_norm_fp8"], counts["bias_gelu_fp8"]) == (2 * blocks, blocks)
    tokens = 2 * workload.masks("dual").visible.shape[1]
    first = next(call for call in fp8 if call.op.endswith("::fp8_linear"))  # qkv, bf16 out
    assert first.written == 2 * tokens * 3 * 128
    assert first.passes == (4 + 2) * 3 * 128 * 128  # the weight: read, written in e4m3, read
    assert first.read == tokens * (128 + 4) + 2 * 3 * 128 + first.passes  # rows, scales, bias
    assert first.inner == 128
    slow = replace(first, op="aten::mm", passes=0)
    fast = replace(first, passes=0)
    compute = Ceilings("", 1e30, 1e12)
    assert slow.modelled(compute) == pytest.approx(1.7 * fast.modelled(compute))


def test_fp8_of_narrow_models_is_refused(capsys):
    with pytest.raises(SystemExit):
        kernel_profile.main(["--model", "H100", "--size", "base", "--fp8"])
    assert "blocks at least 1280 wide: --size huge or giant" in capsys.readouterr().err


def trace(*kernels: tuple[float, str], labels: list[tuple[float, float, int]]) -> list[dict]:
    """A Chrome trace: labels (begin, length, number) on thread 1, launches at the given times."""
    events = [
        {"cat": "user_annotation", "name": f"{LABEL}{n}", "pid": 9, "tid": 1, "ts": t, "dur": d}
        for t, d, n in labels
    ]
    for i, (moment, name) in enumerate(kernels):
        events += [
            {"cat": "cuda_driver", "name": "cuLaunchKernel", "pid": 9, "tid": 1, "ts": moment,
             "dur": 1, "args": {"correlation": i}},
            {"cat": "kernel", "name": name, "pid": 0, "tid": 7, "ts": moment + 50, "dur": 30,
             "args": {"correlation": i}},
        ]  # fmt: skip
    return events


def test_a_kernel_belongs_to_the_call_that_launched_it():
    labels = [(0, 10, 0), (20, 10, 1), (22, 3, 2)]
    events = trace((5, "a"), (23, "b"), (27, "c"), (15, "d"), labels=labels)
    events.append({**events[-1], "args": {"correlation": 77}})  # its launch is not there
    events.append({**events[-1], "name": "e", "args": {"External id": 5}})  # but its op
    events.append({"cat": "cpu_op", "name": "aten::mm", "pid": 9, "tid": 1, "ts": 23, "dur": 1,
                   "args": {"External id": 5}})  # fmt: skip
    assert kernels_of(events) == [
        Timed(0, "a", pytest.approx(3e-5)), Timed(2, "b", pytest.approx(3e-5)),
        Timed(1, "c", pytest.approx(3e-5)), Timed(None, "d", pytest.approx(3e-5)),
        Timed(None, "d", pytest.approx(3e-5)), Timed(2, "e", pytest.approx(3e-5)),
    ]  # fmt: skip


def test_a_row_has_its_calls_model_beside_its_kernels():
    call = Call("aten::mm", "2×2, 2×2", "forward", 2000, 1000, 0)
    other = Call("aten::add", "2×2", "forward", 1, 1, 0)
    timed = [Timed(0, "gemm", 4e-6), Timed(1, "gemm", 4e-6), Timed(0, "split", 1e-6)]
    timed += [Timed(None, "stray", 2e-6)]
    rows = groups([call, call, other], timed * 2, CARD, steps=2)
    assert [row["op"] for row in rows][:2] == ["aten::mm", "(launched outside of any op)"]
    assert rows[0]["measured"] == pytest.approx(9)
    assert rows[0]["floor"] == pytest.approx(6)
    assert rows[0]["modelled"] == pytest.approx(6 / 0.85)
    assert rows[0]["kernels"]["gemm"] == {"launches": 2.0, "measured": pytest.approx(8)}
    assert kernel_profile.totals(rows)["measured"] == pytest.approx(11)
    with pytest.raises(ProfileError, match="there are 1"):
        groups([call], timed, CARD, steps=1)


def test_steps_that_differ_are_no_profile(tmp_path):
    contender = build("ours", Variant("ours", lean=True), Workload(TINY, 2), "dual")
    right, seen = contender.forward, []

    def forward() -> Tensor:
        seen.append(torch.ones(len(seen) + 1) + 1)
        return right()

    contender.forward = forward
    with pytest.raises(ProfileError, match="differ"):
        kernel_profile.profiled(contender, tmp_path / "trace.json")


def test_the_command_on_a_cpu(tmp_path, capsys):
    words = ["--device", "cpu", "--tiny", "--batch", "2", "--repeats", "2", "--rows", "500"]
    assert kernel_profile.main([*words, "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "kernels-base-batch2.json").read_text())
    assert record["kind"] == "profile by kernel"
    ops = {row["op"]: row for row in record["groups"]}
    assert ops["videomae_fast::add_layer_norm"]["measured"] > 0
    assert record["total"]["measured"] == pytest.approx(
        sum(row["measured"] for row in record["groups"])
    )
    told = capsys.readouterr().out
    assert "add_layer_norm ×" in told
    assert "furthest from the model" in told
    assert told.splitlines()[-2].startswith("step ")


def test_the_model_alone(capsys):
    assert kernel_profile.main(["--model", "H100", "--tiny", "--batch", "8"]) == 0
    told = capsys.readouterr().out
    assert "H100: copy 3.00 TB/s" in told
    assert told.splitlines()[-1].startswith("modelled ")


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("void at::native::vectorized_elementwise_kernel<4, at::Add>(int)",
         "vectorized_elementwise_kernel"),
        ("_backward_kernel", "_backward_kernel"),
        ("void (anonymous namespace)::softmax<float>(float*)", "softmax"),
    ],
)  # fmt: skip
def test_names_of_kernels(name, short):
    assert kernel_profile.short(name) == short


def test_no_folder(monkeypatch, capsys):
    monkeypatch.delenv("OUT", raising=False)
    with pytest.raises(SystemExit):
        kernel_profile.main(["--device", "cpu"])
    assert "--out" in capsys.readouterr().err
