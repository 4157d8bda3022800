"""The host's time of an op's call: what is compared is the same, and what is not is not timed."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks.ops import host_time
from videomae_fast.ops.registry import REGISTRY, native_missing

pytestmark = pytest.mark.skipif(native_missing() is not None, reason=str(native_missing()))


def test_it_runs_and_writes(tmp_path, capsys):
    words = ["--rounds", "1", "--before", sys.executable, "--out", str(tmp_path)]
    assert host_time.main(words) in (0, 1)
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    forward = {name for name in REGISTRY if not name.endswith("_backward")}
    # Masks, views and features of boxes are made once a batch
    views = {"crop_resize", "rand_augment", "bilinear_resize", "resized_view", "hsv_jitter"}
    views |= {"augmented_views", "mix_clips"}
    on_gpus = {"packed_bias", "packed_join", "gelu_mlp"}  # on a CPU there is the reference alone
    fp8 = {"add_layer_norm_fp8", "bias_gelu_fp8", "quantize_rows", "fp8_linear"}  # wide
    left_out = {*views, *on_gpus, *fp8, "mask_indices", "roi_features"}
    assert set(record["microseconds"]) == forward - left_out
    assert set(record["before"]) == set(record["microseconds"])
    told = capsys.readouterr().out
    assert "before / by hand" in told
    assert "the goal is 1.3" in told


def test_what_differs_is_not_timed(monkeypatch):
    x = torch.randn(2, 3, requires_grad=True)
    pair = (lambda: 2 * x, lambda: 2.001 * x, (x,))
    monkeypatch.setattr(host_time, "pairs", lambda: {"double": pair})
    with pytest.raises(RuntimeError, match="double: what was written by hand"):
        host_time.measure(1)
