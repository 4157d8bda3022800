"""The per-op benchmark: checks before it times, and says what is wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.common.workload import TINY, Workload
from benchmarks.ops import libraries as op_libraries
from benchmarks.ops import speed as op_speed
from benchmarks.ops.cases import op_cases
from videomae_fast.ops.registry import REGISTRY, Backend, Op


def test_every_op_with_bytes_has_a_case():
    """Masks are few bytes: not measured here, nor what loader processes do."""
    cases = {case.op for case in op_cases(Workload(TINY, 2), torch.float32)}
    others = {"mask_indices", "rand_augment", "resized_view"}
    assert cases == set(REGISTRY) - others


def test_attention_at_its_shapes():
    """Bytes of every tensor that goes in or out, once; the log-sum-exp is left out."""
    cases = [c for c in op_cases(Workload(TINY, 2), torch.float32) if c.op.startswith("attention")]
    assert [c.where for c in cases][::2] == ["encoder", "decoder", "last decoder block"]
    for forward, backward in zip(cases[::2], cases[1::2], strict=True):
        args = forward.args()
        query, key, value, _ = args
        out, _ = REGISTRY["attention"].backends["reference"].run(*args)
        assert forward.bytes == 4 * sum(x.numel() for x in (query, key, value, out))
        assert forward.flop == 4 * query.numel() * key.shape[1]
        args = backward.args()
        gradients = REGISTRY["attention_backward"].backends["reference"].run(*args)
        tensors = [x for x in (*args[:-1], *gradients) if x is not None]
        assert backward.bytes == 4 * sum(x.numel() for x in tensors)


@pytest.fixture
def ops(tmp_path, monkeypatch):
    """The command, tiny, of the ops named; the exit status and the records that it wrote."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # it calls pytest in this process

    def run(*words: str) -> tuple[int, list[dict]]:
        tiny = ["--tiny", "--batch", "2", "--repeats", "2", "--no-compile", "--out", str(tmp_path)]
        status = op_speed.main([*tiny, *words])
        return status, [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]

    return run


def test_one_run_gives_our_record_and_that_of_pytest_benchmark(ops, tmp_path, capsys):
    file = tmp_path / "other" / "ops.json"
    file.parent.mkdir()
    status, (record,) = ops("--ops", "token_gather", "bias_gelu", "--benchmark-json", str(file))
    told = capsys.readouterr().out
    assert status == 0, told
    assert "| of copy |" in told
    assert record["copy"]["TB/s"] > 0
    assert record["command"].startswith("python -m benchmarks ops --tiny")
    timed = {f"{r['op']} {r['where']} {r['backend']}": r for r in record["results"] if "times" in r}
    assert {row["op"] for row in timed.values()} == {"token_gather", "bias_gelu"}
    assert all(row["correct"] and len(row["times"]) == 2 for row in timed.values())
    theirs = json.loads(file.read_text())["benchmarks"]
    assert len(theirs) == len(timed)
    for one in theirs:
        row = timed[" ".join(one["params"][name] for name in ("op", "where", "contender"))]
        assert one["stats"]["data"] == row["times"]
        assert one["group"] == f"{row['op']} ({row['where']})"
        assert one["extra_info"]["error"] == row["error"]
        assert one["extra_info"]["GB/s"] == row["GB/s"]


def test_two_runs_are_compared_by_pytest_benchmark(ops, tmp_path, capsys):
    storage = f"--benchmark-storage={tmp_path / 'stored'}"
    words = ["--ops", "bias_gelu", "-k", "encoder and reference", storage]
    assert ops(*words, "--benchmark-save=before")[0] == 0
    capsys.readouterr()
    status, records = ops(*words, "--benchmark-compare", "--benchmark-compare-fail=median:99999%")
    told = capsys.readouterr().out
    assert status == 0, told
    assert "test_op[bias_gelu-encoder-reference] (0001_before)" in told
    assert "test_op[bias_gelu-encoder-reference] (NOW)" in told
    assert [row["backend"] for row in records[-1]["results"]] == ["reference"]  # nobody else ran


def test_without_timing_it_is_only_checked(ops, capsys):
    status, records = ops("--ops", "token_gather", "--benchmark-disable")
    assert (status, records) == (0, [])
    assert " passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-n", "2"], "leave out -n"),
        (["--benchmark-cprofile", "tottime"], "handing over of times"),
        (["-p", "no:benchmark", "-o", "addopts="], "pytest-benchmark, which is not installed"),
        (["--siez", "small"], "unrecognized arguments: --siez"),
    ],
)
def test_what_it_can_not_do(words, told, ops, capsys, monkeypatch):
    if "no:benchmark" in words:
        monkeypatch.setattr(op_speed, "PYTEST", op_speed.PYTEST[:3])
    status, records = ops(*words)
    assert (status, records) == (4, [])
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_backend_is_not_timed(monkeypatch, dtype):
    case = next(c for c in op_cases(Workload(TINY, 2), dtype) if c.op == "bias_gelu")
    right = REGISTRY["bias_gelu"].backends["reference"]
    wrong = replace(right, run=lambda x, bias: right.run(x, bias) * 1.01)
    patched = Op("bias_gelu", {"wrong": wrong, "reference": right})
    monkeypatch.setitem(REGISTRY, "bias_gelu", patched)
    rows = op_speed.measure(case, dtype, torch.device("cpu"), 1)
    by_name = {row["backend"]: row for row in rows}
    assert by_name["reference"]["correct"]
    assert not by_name["wrong"]["correct"]
    assert "seconds" not in by_name["wrong"]
    never = Backend(right.run, missing=lambda: "it is Sunday")
    monkeypatch.setitem(REGISTRY, "bias_gelu", Op("x", {"reference": right, "never": never}))
    rows = op_speed.measure(case, dtype, torch.device("cpu"), 1)
    assert rows[1]["unavailable"] == "it is Sunday"


def test_a_backend_that_crashes_or_is_wrong_is_told_and_the_others_go_on(
    ops, monkeypatch, capsys, tmp_path
):
    def crash(*_):
        raise RuntimeError("out of shared memory\nand more")

    right = REGISTRY["bias_gelu"].backends
    wrong = replace(right["reference"], run=lambda x, b: 1.01 * right["reference"].run(x, b))
    backends = {"crashing": Backend(crash), "wrong": wrong, **right}
    monkeypatch.setitem(REGISTRY, "bias_gelu", Op("bias_gelu", backends))
    file = tmp_path / "other" / "ops.json"
    file.parent.mkdir()
    status, (record,) = ops("--ops", "bias_gelu", "--benchmark-json", str(file))
    told = capsys.readouterr().out
    assert status == 1
    assert "FAILED: RuntimeError: out of shared memory |" in told
    assert "not timed: differs from the reference in fp64 by " in told
    timed = {row["backend"] for row in record["results"] if "seconds" in row}
    named = {one["params"]["contender"] for one in json.loads(file.read_text())["benchmarks"]}
    assert named == timed
    assert "reference" in timed
    assert not {"crashing", "wrong"} & timed


def in_order(terms: torch.Tensor) -> torch.Tensor:
    """Their sum along the first dimension, one by one in fp32."""
    total = torch.zeros_like(terms[0])
    for term in terms:
        total += term
    return total


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("terms", [256, 4096])
def test_a_running_sum_is_within_its_bound(terms, offset):
    """And the bound is no ten times too wide."""
    rows = torch.randn(terms, 512) + offset
    found = op_speed.error(in_order(rows), rows.double().sum(0))
    assert 0.1 * op_speed.sum_in_order(terms) < found < op_speed.sum_in_order(terms)


def of_others(monkeypatch, backward):
    """The rows of bias_gelu_backward, with a library's kernel that does as `backward`."""
    case = next(
        c for c in op_cases(Workload(TINY, 2), torch.float32) if c.op == "bias_gelu_backward"
    )
    monkeypatch.setattr(
        op_speed, "library_contenders", lambda op, args: {"other": lambda: backward(*args)}
    )
    rows = op_speed.measure(case, torch.float32, torch.device("cpu"), 1)
    return {row["backend"]: row for row in rows}


def test_only_others_may_sum_in_plain_order(monkeypatch):
    right = REGISTRY["bias_gelu_backward"].backends["reference"].run

    def plain(grad, x, bias):
        by_x, _ = right(grad, x, bias)
        return by_x, in_order(by_x.flatten(0, -2))

    rows = of_others(monkeypatch, plain)
    assert rows["other"]["correct"], rows["other"]
    assert rows["native"]["allowed"] == rows["reference"]["allowed"] < rows["other"]["allowed"]

    def one_row_short(grad, x, bias):
        by_x, _ = right(grad, x, bias)
        return by_x, by_x.flatten(0, -2)[1:].sum(0)

    def rounded(grad, x, bias):
        by_x, by_bias = right(grad, x, bias)
        return by_x.bfloat16().float(), by_bias

    for wrong in (one_row_short, rounded):
        row = of_others(monkeypatch, wrong)["other"]
        assert not row["correct"], row
        assert "seconds" not in row


STAND_INS = {  # module, function and what the library's does, by its own signature
    "apex": (
        "apex.normalization.fused_layer_norm",
        "fused_layer_norm_affine",
        lambda x, w, b, shape, eps=1e-6: F.layer_norm(x, shape, w, b, eps),
    ),
    "liger": (
        "liger_kernel.ops.layer_norm",
        "LigerLayerNormFunction",
        SimpleNamespace(apply=lambda x, w, b, eps: F.layer_norm(x, x.shape[-1:], w, b, eps)),
    ),
    "quack": (
        "quack.rmsnorm",
        "layernorm_fwd",
        lambda x, w, b=None, eps=1e-6: F.layer_norm(x, (x.shape[1],), w.to(x), b.to(x), eps),
    ),
    "flash-attn": (
        "flash_attn.ops.triton.layer_norm",
        "layer_norm_fn",
        lambda x, w, b, residual=None, eps=1e-6, prenorm=False: (
            F.layer_norm(x + residual, x.shape[-1:], w.to(x), b.to(x), eps),
            x + residual,
        ),
    ),
}


def norm_rows(dtype):
    case = next(c for c in op_cases(Workload(TINY, 2), dtype) if c.op == "add_layer_norm")
    rows = op_speed.measure(case, dtype, torch.device("cpu"), 1)
    return {row["backend"]: row for row in rows}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_libraries_are_measured_where_they_are(monkeypatch, dtype):
    everywhere = [replace(each, on=("cpu", "cuda")) for each in op_libraries.LIBRARIES]
    monkeypatch.setattr(op_libraries, "LIBRARIES", everywhere)
    monkeypatch.setitem(sys.modules, "fused_layer_norm_cuda", ModuleType("kernels"))
    for module, function, stand_in in STAND_INS.values():
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(parts[end - 1]))
        monkeypatch.setattr(sys.modules[module], function, stand_in, raising=False)
    rows = norm_rows(dtype)
    for name in ("torch", *STAND_INS):
        assert rows[name]["correct"], rows[name]
        assert rows[name]["seconds"]["median"] > 0
    wrong = sys.modules["quack.rmsnorm"]
    monkeypatch.setattr(wrong, "layernorm_fwd", lambda x, w, b, eps: x)
    row = norm_rows(dtype)["quack"]
    assert not row["correct"]
    assert "seconds" not in row


def test_a_library_that_can_not_run_says_why(monkeypatch):
    for name in ("apex", "liger_kernel", "quack.rmsnorm", "flash_attn"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "fused_layer_norm_cuda", None)
    rows = norm_rows(torch.float32)
    assert {
        name for name, row in rows.items() if "not installed" in row.get("unavailable", "")
    } == {*STAND_INS}
    module = ModuleType("quack.rmsnorm")
    vars(module)["layernorm_fwd"] = None
    monkeypatch.setitem(sys.modules, "quack", ModuleType("quack"))
    monkeypatch.setitem(sys.modules, "quack.rmsnorm", module)
    assert norm_rows(torch.float32)["quack"]["unavailable"] == "runs on cuda, not on cpu"


def chain_rows(op):
    case = next(c for c in op_cases(Workload(TINY, 2), torch.float32) if c.op == op)
    rows = op_speed.measure(case, torch.float32, torch.device("cpu"), 1)
    return {row["backend"]: row for row in rows}


def torchvision_of_ours(factor=1.0):
    """What torchvision's function gives, by its signature; its gradient times `factor`."""
    ours = op_libraries.import_module("videomae_fast.ops.roi_align")

    def roi_align(maps, rois, size, scale, sampling_ratio=-1, aligned=False):
        spec = ours.RoiSpec(size[0], scale, max(sampling_ratio, 0), aligned)
        if maps.requires_grad:
            maps.register_hook(lambda grad: grad * factor)
        return ours.roi_align(maps, rois[:, 1:], rois[:, 0].long(), spec)

    return roi_align


@pytest.mark.parametrize("op", ["roi_features", "roi_features_backward"])
def test_roi_features_beside_the_unfused_chain(monkeypatch, op):
    """Forward, and backward under autograd, with what torchvision would give."""
    chain, by_torchvision = "unfused chain", "unfused chain, torchvision"
    monkeypatch.setitem(sys.modules, "torchvision", None)
    rows = chain_rows(op)
    assert rows[chain]["correct"], rows[chain]
    assert rows[chain]["seconds"]["median"] > 0
    assert "not installed" in rows[by_torchvision]["unavailable"]
    for factor in (1.0, 1.01):
        module = ModuleType("torchvision.ops")
        vars(module)["roi_align"] = torchvision_of_ours(factor)
        monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
        monkeypatch.setitem(sys.modules, "torchvision.ops", module)
        row = chain_rows(op)[by_torchvision]
        assert row["correct"] == (factor == 1 or op == "roi_features"), row
