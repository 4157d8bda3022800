"""Which attention backend serves: the table, libraries that aren't there, forced backends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import _native, attention
from videomae_fast.ops._attention import choice, libraries
from videomae_fast.ops.registry import forced, native_missing, why_not

op = import_module("videomae_fast.ops.attention")


def heads(dtype=torch.float32, tokens=4, device="cpu"):
    return [torch.zeros(1, tokens, 2, 8, dtype=dtype, device=device) for _ in range(3)]


H100, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA H200"


def table_of(path, *entries):
    """A table file with (device, queries, impl) at head dim 64, 160 keys."""
    rows = [
        {"device": device, "head_dim": 64, "queries": queries, "keys": 160, "impl": impl}
        for device, queries, impl in entries
    ]
    path.write_text(json.dumps({"about": "a test", "entries": rows}))
    return path


def on_cuda(dtype, dim=64, tokens=160):
    """Query, key and value on a GPU, without values."""
    with FakeTensorMode():
        return [torch.empty(1, tokens, 2, dim, dtype=dtype, device="cuda") for _ in range(3)]


def chosen(query, key, value, key_count=None):
    return op.ATTENTION.op.pick("auto", (query, key, value, key_count))


def test_the_table_decides_and_its_gaps_go_to_sdpa(tmp_path, monkeypatch):
    table = table_of(tmp_path / "table.json", (H100, 160, "triton"), (H200, 160, "cudnn"))
    monkeypatch.setattr(choice, "ENTRIES", choice.read_table(table))
    assert choice.lookup(H100, 64, 160, 160) == "triton"
    assert choice.lookup(H200, 64, 160, 160) == "cudnn"  # of the same capability, another card
    assert choice.lookup(H100, 64, 160, 161) == "sdpa"
    assert choice.lookup("NVIDIA H100 PCIe", 64, 160, 160) == "sdpa"


def test_the_table_serves_calls_like_those_it_was_measured_with(tmp_path, monkeypatch):
    table = table_of(tmp_path / "table.json", (H100, 160, "cudnn"))
    monkeypatch.setattr(choice, "ENTRIES", choice.read_table(table))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: H100)
    half = on_cuda(torch.bfloat16)
    assert chosen(*half) == "cudnn"
    assert chosen(*on_cuda(torch.float32)) == "sdpa"
    assert chosen(*half, torch.ones(1, dtype=torch.int32)) == "sdpa"
    assert chosen(*on_cuda(torch.bfloat16, tokens=161)) == "sdpa"


def test_a_library_that_was_fastest_elsewhere_and_is_not_here(tmp_path, monkeypatch):
    table = table_of(tmp_path / "table.json", (H100, 160, "flash-attn-4"))
    monkeypatch.setattr(choice, "ENTRIES", choice.read_table(table))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: H100)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(libraries.flash_attn_4, "too_old", lambda: None)
    for reason, expected in (("it is not installed", "sdpa"), (None, "flash-attn-4")):
        monkeypatch.setattr(libraries, "_missing", lambda *_, reason=reason: reason)
        assert chosen(*on_cuda(torch.bfloat16)) == expected


def test_the_policy_is_told(tmp_path, monkeypatch):
    table = table_of(tmp_path / "table.json", (H100, 160, "triton"), (H200, 160, "cudnn"))
    monkeypatch.setattr(choice, "ENTRIES", choice.read_table(table))
    policy = choice.TablePolicy()
    assert policy.told("cpu") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: H200)
    assert "for 1 shapes" in policy.told("cuda")


def test_another_table_by_name(tmp_path):
    """In a process of its own: the table is read once, at import."""
    table = table_of(tmp_path / "mine.json", (H200, 160, "flash"))
    code = "from videomae_fast.ops._attention import choice as c; print(dict(c.ENTRIES))"

    def run(path):
        return subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], text=True,
            env={**os.environ, choice.VARIABLE: str(path)}, capture_output=True,
        )  # fmt: skip

    assert "('NVIDIA H200', 64, 160, 160): 'flash'" in run(table).stdout
    for path, why in (
        (tmp_path / "none.json", "FileNotFoundError"),
        (tmp_path / "bad.json", "Key"),
    ):
        (tmp_path / "bad.json").write_text("{}")
        told = run(path).stderr
        assert f"{path} is no table of attention backends ({why}" in told


@pytest.mark.parametrize("impl", ["cudnn", "efficient"])
def test_backends_of_torch_for_a_gpu_say_so(impl):
    with pytest.raises(BackendUnavailableError, match=f"'{impl}' can't run: .*needs CUDA tensors"):
        attention(*heads(torch.bfloat16), impl=impl)


def test_one_backend_of_torch_serves_alone():
    """On a CPU there is "flash": the same values as "sdpa", compiled in one graph, too."""
    torch.manual_seed(0)
    tensors = [torch.randn(2, 5, 2, 8, requires_grad=True) for _ in range(3)]

    def run(impl):
        return lambda q, k, v: attention(q, k, v, impl=impl)

    expected = torch.autograd.grad(run("reference")(*tensors).square().sum(), tensors)
    compiled = torch.compile(run("flash"), fullgraph=True, backend="aot_eager")
    for call in (run("flash"), compiled):
        got = torch.autograd.grad(call(*tensors).square().sum(), tensors)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)
    count = torch.ones(2, dtype=torch.int32)
    with pytest.raises(BackendUnavailableError, match="without key_count only"):
        attention(*tensors, key_count=count, impl="flash")
    assert "not torch.float32" in why_not("attention", "cudnn", *on_cuda(torch.float32), None)
    assert why_not("attention", "cudnn", *on_cuda(torch.bfloat16), None) is None


def test_on_a_cpu_native_serves_where_torchs_products_are_slower(monkeypatch):
    monkeypatch.setattr(choice, "WHY_NO_GAIN", None)
    monkeypatch.setattr(choice, "native_missing", lambda: None)
    monkeypatch.setattr(_native, "library", lambda: "there")
    monkeypatch.setattr(_native, "instruction_set", lambda: "x86-64-v4 (AVX-512)")
    assert chosen(*heads()) == "native"
    assert chosen(*heads(torch.bfloat16)) == "native"
    assert chosen(*heads(torch.float16)) == chosen(*heads(torch.float64)) == "sdpa"
    assert chosen(*heads(device="meta")) == "sdpa"
    assert chosen(*heads(), torch.ones(1)) == "sdpa"  # key_count is no int32
    with torch.autocast("cpu", torch.bfloat16):
        assert chosen(*heads()) == "sdpa"  # which autocast casts for
        assert chosen(*heads(torch.bfloat16)) == "native"
    monkeypatch.setattr(_native, "instruction_set", lambda: "x86-64-v3 (AVX2)")
    assert chosen(*heads()) == "native"
    monkeypatch.setattr(_native, "instruction_set", lambda: "x86-64 (SSE2)")
    assert chosen(*heads()) == "sdpa"
    assert "built without AVX2" in choice.why_not_native()
    monkeypatch.setattr(choice, "native_missing", lambda: "it is elsewhere")
    assert chosen(*heads()) == "sdpa"
    assert choice.why_not_native() == "it is elsewhere"
    monkeypatch.setattr(choice, "native_missing", lambda: None)
    monkeypatch.setattr(choice, "WHY_NO_GAIN", "Intel's")
    assert chosen(*heads()) == "sdpa"


def test_the_shipped_table_names_backends():
    assert set(choice.ENTRIES.values()) <= set(op.IMPLS) - {"auto"}


@pytest.mark.parametrize("impl", ["flash-attn", "flash-attn-4", "xformers"])
def test_a_library_says_why_it_cant_run(impl):
    with pytest.raises(BackendUnavailableError, match=f"'{impl}' can't run: .*(not|CUDA)"):
        attention(*heads(), impl=impl)


def test_predicates_of_a_library(monkeypatch):
    """With the library there and a device of capability 8.0: what of the call does not fit."""
    library = libraries.library("math", "sqrt", "the library", (8, 0), 8)

    def reason(dtype=torch.bfloat16, dim=88, key_count=None, of=library):
        fit = replace(of, unfit=lambda q, k, v, count: of.unfit(q, count))
        return fit.why_not(*on_cuda(dtype, dim), key_count)

    assert library.why_not(*heads(torch.bfloat16)) == "the library needs CUDA tensors, not cpu"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert reason() is None
    with FakeTensorMode():
        key_count = torch.ones(1, dtype=torch.int32, device="cuda")
    assert "key_count" in reason(key_count=key_count)
    assert "not torch.float32" in reason(torch.float32)
    assert "multiples of 8, not 12" in reason(dim=12)
    newer = libraries.library("math", "sqrt", "the library", (9, 0), 8)
    assert "capability 9.0" in reason(of=newer)
    assert "does not import" in reason(of=libraries.library("math", "none", "x", (8, 0), 8))


def test_unknown_and_unfit_backends():
    with pytest.raises(BackendUnavailableError, match="no backend 'fastest'; it has"):
        attention(*heads(), impl="fastest")
    with pytest.raises(BackendUnavailableError, match="fp32, bf16 and fp16"):
        attention(*heads(torch.float64), impl="triton")
    with pytest.raises(BackendUnavailableError, match="library takes fp32 and bf16, not"):
        attention(*heads(torch.float16), impl="native")
    with pytest.raises(BackendUnavailableError, match="needs CPU tensors, not meta"):
        op.ATTENTION.op.choose("native", *heads(device="meta"), None)
    assert attention(*heads(device="meta"), impl="native").is_meta  # a fake runs nothing


@pytest.mark.without_gpu
def test_forced():
    picked = []
    for impl in ("reference", "native", "onednn"):
        with forced(impl):
            picked.append(chosen(*heads(torch.float16 if impl == "onednn" else torch.float32)))
    assert picked == ["reference", "native", "sdpa"]  # attention has no "onednn": sdpa serves
    with forced("triton"), pytest.raises(BackendUnavailableError, match="'triton' can't run"):
        attention(*heads())


@pytest.mark.without_gpu
@pytest.mark.parametrize("impl", ["auto", "sdpa", "native", "reference"])
def test_compiles_as_one_graph(impl):
    if impl == "native" and native_missing() is not None:
        pytest.skip(native_missing())
    torch.manual_seed(0)
    tensors = [torch.randn(2, 5, 2, 8, requires_grad=True) for _ in range(3)]

    def run(query, key, value):
        return attention(query, key, value, impl=impl)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*tensors).sum(), tensors)
    for a, b in zip(got, torch.autograd.grad(run(*tensors).sum(), tensors), strict=True):
        torch.testing.assert_close(a, b)


def test_what_adds_up_in_any_order_does_not_serve_where_torch_is_deterministic(
    tmp_path, monkeypatch
):
    table = table_of(tmp_path / "table.json", (H100, 160, "cudnn"), (H200, 160, "flash"))
    monkeypatch.setattr(choice, "ENTRIES", choice.read_table(table))
    monkeypatch.setattr(libraries, "_missing", lambda *_: None)
    monkeypatch.setattr(libraries.flash_attn_4, "too_old", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    arguments = on_cuda(torch.bfloat16)
    names = ("cudnn", "flash", "efficient", "flash-attn", "flash-attn-4", "xformers")

    def told(name):
        return libraries.LIBRARIES[name].unfit(
            **{"cudnn": {"key_count": None}}.get(name, {"query": arguments[0], "key_count": None})
        )

    assert [n for n in names if n != "efficient" and told(n) is not None] == []
    torch.use_deterministic_algorithms(True)
    try:
        refused = [n for n in names if n != "efficient" and told(n) is not None]
        assert refused == ["cudnn", "flash-attn-4", "xformers"]
        assert told("cudnn") == (
            "cuDNN's gradients are added up in any order, and torch is to be deterministic"
        )
        for card, expected in ((H100, "sdpa"), (H200, "flash")):
            monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, card=card: card)
            assert chosen(*arguments) == expected
    finally:
        torch.use_deterministic_algorithms(False)
