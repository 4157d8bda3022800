"""Which attention backend serves: the table, libraries that aren't there, forced backends."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec, module_from_spec

import pytest
import torch

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import _native, attention
from videomae_fast.ops._attention import choice, libraries
from videomae_fast.ops._dispatch import forced, native_missing

pytestmark = pytest.mark.without_gpu
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


class OnCuda:
    """As much of a CUDA tensor as a choice looks at."""

    device = torch.device("cuda")

    def __init__(self, dtype, dim=64, tokens=160):
        self.dtype, self.shape = dtype, (1, tokens, 2, dim)


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
    half, whole = OnCuda(torch.bfloat16), OnCuda(torch.float32)
    assert choice.choice(half, half) == "cudnn"
    assert choice.choice(whole, whole) == "sdpa"
    assert choice.choice(half, half, torch.ones(1, dtype=torch.int32)) == "sdpa"


def test_a_library_that_was_fastest_elsewhere_and_is_not_here(tmp_path, monkeypatch):
    table = table_of(tmp_path / "table.json", (H100, 160, "flash-attn-4"))
    monkeypatch.setattr(choice, "ENTRIES", choice.read_table(table))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: H100)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    half = OnCuda(torch.bfloat16)
    for reason, chosen in (("it is not installed", "sdpa"), (None, "flash-attn-4")):
        monkeypatch.setattr(libraries, "_missing", lambda *_, reason=reason: reason)
        assert choice.choice(half, half) == chosen


def test_another_table_by_name(tmp_path, monkeypatch):
    """The table is read once, at import: here of a module that nothing else uses."""

    def imported(path):
        monkeypatch.setenv(choice.VARIABLE, str(path))
        spec = find_spec(choice.__name__)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    table = table_of(tmp_path / "mine.json", (H200, 160, "flash"))
    assert imported(table).ENTRIES["NVIDIA H200", 64, 160, 160] == "flash"
    (tmp_path / "bad.json").write_text("{}")
    for name, why in (("none.json", "FileNotFoundError"), ("bad.json", "Key")):
        told = rf"{name} is no table of attention backends \({why}"
        with pytest.raises(ValueError, match=told):
            imported(tmp_path / name)


@pytest.mark.parametrize("impl", ["cudnn", "efficient"])
def test_backends_of_torch_for_a_gpu_say_so(impl):
    with pytest.raises(BackendUnavailableError, match=f"'{impl}' can't run: .*needs CUDA tensors"):
        attention(*heads(), impl=impl)


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
    why = libraries.LIBRARIES["cudnn"].why_not
    assert "not torch.float32" in why(*[OnCuda(torch.float32)] * 3, None)
    assert why(*[OnCuda(torch.bfloat16)] * 3, None) is None


def test_on_a_cpu_native_serves_fp32_where_torch_leaves_avx_512_unused(monkeypatch):
    def chosen(*args):
        return choice.choice(*heads(*args)[:2])

    monkeypatch.setattr(choice, "WHY_NO_GAIN", None)
    monkeypatch.setattr(choice, "native_missing", lambda: None)
    monkeypatch.setattr(_native, "instruction_set", lambda: "x86-64-v4 (AVX-512)")
    assert chosen() == "native"
    assert chosen(torch.bfloat16) == chosen(torch.float64) == "sdpa"
    assert chosen(torch.float32, 4, "meta") == "sdpa"
    with torch.autocast("cpu", torch.bfloat16):
        assert chosen() == "sdpa"
    monkeypatch.setattr(_native, "instruction_set", lambda: "x86-64 (SSE2)")
    assert chosen() == "sdpa"
    assert "built without AVX-512" in choice.why_not_native()
    monkeypatch.setattr(choice, "native_missing", lambda: "it is elsewhere")
    assert chosen() == "sdpa"
    assert choice.why_not_native() == "it is elsewhere"
    monkeypatch.setattr(choice, "native_missing", lambda: None)
    monkeypatch.setattr(choice, "WHY_NO_GAIN", "Intel's")
    assert chosen() == "sdpa"


def test_the_shipped_table_names_backends():
    assert set(choice.ENTRIES.values()) <= set(op.IMPLS) - {"auto"}


@pytest.mark.parametrize("impl", ["flash-attn", "flash-attn-4", "xformers"])
def test_a_library_says_why_it_cant_run(impl):
    with pytest.raises(BackendUnavailableError, match=f"'{impl}' can't run: .*(not|CUDA)"):
        attention(*heads(), impl=impl)


def test_predicates_of_a_library(monkeypatch):
    """With the library there and a device of capability 8.0: what of the call does not fit."""
    why_not = libraries._why_not("math", "sqrt", "the library", (8, 0), 8)
    assert why_not(*heads(), None) == "the library needs CUDA tensors, not cpu"
    assert "does not import" in libraries._why_not("math", "none", "x", (8, 0), 8)(*heads(), None)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    fits = OnCuda(torch.bfloat16, 88)
    assert why_not(fits, fits, fits, None) is None
    assert "key_count" in why_not(fits, fits, fits, torch.ones(1))
    assert "not torch.float32" in why_not(*[OnCuda(torch.float32, 88)] * 3, None)
    assert "multiples of 8, not 12" in why_not(*[OnCuda(torch.bfloat16, 12)] * 3, None)
    newer = libraries._why_not("math", "sqrt", "the library", (9, 0), 8)
    assert "capability 9.0" in newer(fits, fits, fits, None)


def test_unknown_and_unfit_backends():
    with pytest.raises(BackendUnavailableError, match="no backend 'fastest'; it has"):
        attention(*heads(), impl="fastest")
    with pytest.raises(BackendUnavailableError, match="fp32, bf16 and fp16"):
        attention(*heads(torch.float64), impl="triton")
    with pytest.raises(BackendUnavailableError, match="native library takes fp32, not"):
        attention(*heads(torch.bfloat16), impl="native")
    with pytest.raises(BackendUnavailableError, match="works on CPU tensors, not on meta"):
        op.OP("native", *heads(device="meta"), None)


def test_forced(monkeypatch):
    seen = []
    monkeypatch.setattr(op, "_attention", lambda *args: (seen.append(args[-1]) or args[0], None))
    for impl in ("reference", "triton", "native", "onednn"):
        with forced(impl):
            attention(*heads(torch.bfloat16))
    assert seen == ["reference", "triton", "native"]  # attention has no "onednn": sdpa served


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
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    query = OnCuda(torch.bfloat16)
    names = ("cudnn", "flash", "efficient", "flash-attn", "flash-attn-4", "xformers")

    def serve():
        return [
            n for n in names if libraries.LIBRARIES[n].why_not(query, query, query, None) is None
        ]

    assert serve() == list(names)
    torch.use_deterministic_algorithms(True)
    try:
        assert serve() == ["flash", "efficient", "flash-attn"]
        told = libraries.LIBRARIES["cudnn"].why_not(query, query, query, None)
        assert told == (
            "cuDNN's gradients are added up in any order, and torch is to be deterministic"
        )
        for card, expected in ((H100, "sdpa"), (H200, "flash")):
            monkeypatch.setattr(
                choice, "_on_device", lambda _, *s, card=card: choice.lookup(card, *s)
            )
            assert choice.choice(query, query) == expected
    finally:
        torch.use_deterministic_algorithms(False)
