"""The driver of training steps: it checks before it times, and says nothing of what differs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.common.record import read
from benchmarks.common.workload import Workload
from benchmarks.contenders.base import Contender, Variant
from benchmarks.contenders.build import build
from benchmarks.contenders.ours import Ours
from benchmarks.measure.checks import UncheckedError, check, run_once, truth
from benchmarks.measure.profiling import family, print_profile, shares
from benchmarks.measure.timing import Budget, Summary, interleaved
from benchmarks.report import plots, tables
from benchmarks.report import records as report
from benchmarks.studies import step
from videomae_fast import MAEConfig

CONFIG = MAEConfig(
    image_size=64, frames=8, width=32, depth=2, heads=2, decoder_width=16, decoder_heads=1,
    decoder_depth=2,
)  # fmt: skip
OFFICIAL = Variant("official")
OURS = Variant("ours", lean=True)
WORDS = "--size small --batch 1 --depth 1 --image-size 32 --frames 8 --threads 1 --repeats 2"


@pytest.fixture
def workload():
    return Workload(CONFIG, batch=2)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """ViT-S by name, a tiny model in fact. 32 pixels are 2 x 2 positions: tube 0.9 masks 3."""
    monkeypatch.setattr(MAEConfig, "from_size", staticmethod(lambda size, **f: tiny(f)))


def tiny(fields):
    kept = {k: v for k, v in fields.items() if k != "depth"}
    return MAEConfig(**{**CONFIG.to_dict(), **kept})


@pytest.mark.parametrize("masking", ["dual", "encoder-only"])
@pytest.mark.parametrize(
    "variant",
    [
        OURS,
        Variant("ours", lean=True, from_host=True, checkpointing=True),
        Variant("official", tables="repaired"),
        Variant("official", tables="repaired", attention="sdpa", lean=True),
    ],
)
def test_variants_compute_the_same(workload, variant, masking):
    against = truth(build("official", OFFICIAL, workload, masking))
    found = check(build("variant", variant, workload, masking), against)
    assert found.passed, found.told()
    assert found.kept_bytes > 0
    assert found.told().startswith(f"{masking}, variant and official: equal")


def test_reduced_precision_is_allowed_more_but_not_anything(workload):
    against = truth(build("official", OFFICIAL, workload, "dual"))
    bf16 = build("bf16", Variant("ours", precision="bf16", lean=True), workload, "dual")
    found = check(bf16, against)
    assert found.passed, found.told()
    assert found.loss_error > 0
    with torch.no_grad():
        bf16.model.decoder.head.bias.add_(1)
    assert not check(bf16, against).passed


def test_ours_steps_as_the_training_loop(workload):
    """Tokens in the loss that differ by clip: the update brings the gradient to their mean."""
    uneven = replace(workload, decoder="random")
    against = truth(build("official", Variant("official"), uneven, "dual"))
    ours = build("ours", OURS, uneven, "dual")
    found = check(ours, against)
    assert found.passed, found.told()
    assert ours._to_mean != 1
    ours.backward(ours.forward())
    assert ours._output is None  # its gradient is not kept
    given = {name: value.clone() for name, value in Contender.gradients(ours).items()}
    scales, apply = [], ours._update.apply

    def applied(scale: torch.Tensor, skip: torch.Tensor) -> None:
        scales.append(scale.clone())
        apply(scale, skip)

    ours._update.apply = applied
    ours.update()
    for name, value in given.items():
        mean = value / scales[0]
        torch.testing.assert_close(mean, against.gradients[name], rtol=1e-3, atol=1e-5)
    before = {k: v.clone() for k, v in ours.model.state_dict().items()}
    ours.backward(ours.forward())
    ours._loss_sum = torch.tensor(float("nan"))
    ours.update()
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_ours_is_not():
    for variant in (Variant("ours"), Variant("ours", lean=True, precision="fp16")):
        with pytest.raises(ValueError, match="as the library's training loop is"):
            build("ours", variant, Workload(CONFIG, 1), "dual")


@pytest.mark.parametrize(
    "name", ["encoder.blocks.1.attn.v_bias", "mask_token", "decoder.norm.weight"]
)
def test_a_wrong_gradient_is_found(workload, name, monkeypatch):
    """Of one small parameter, with the loss right."""
    against = truth(build("official", OFFICIAL, workload, "dual"))
    ours = build("ours", OURS, workload, "dual")
    right = Ours.gradients

    def wrong(self):
        found = right(self)
        return {**found, name: found[name] * 1.01}

    monkeypatch.setattr(Ours, "gradients", wrong)
    found = check(ours, against)
    assert not found.passed
    assert found.worst == name
    assert found.loss_error < 1e-5
    assert "NOT EQUAL" in found.told()


def test_nan_is_not_equal(workload):
    against = truth(build("official", OFFICIAL, workload, "dual"))
    ours = build("ours", OURS, workload, "dual")
    with torch.no_grad():
        ours.model.decoder.head.bias[0] = float("nan")
    assert not check(ours, against).passed


def test_a_check_leaves_no_trace(workload):
    """Weights and gradients are as before: the timed steps start from what was checked."""
    ours = build("ours", OURS, workload, "dual")
    before = {k: v.clone() for k, v in ours.model.state_dict().items()}
    first = run_once(ours)
    assert run_once(ours)[0] == first[0]
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(value, workload.state[name])


def test_steps_train_both_alike(workload):
    """Two AdamW steps with the official groups: ours (fused) and the default agree."""
    pair = [build("official", OFFICIAL, workload, "dual"), build("ours", OURS, workload, "dual")]
    for contender in pair:
        for group in contender.optimizer.param_groups:
            group["lr"] = 1e-2
    interleaved(pair, 2, warmup=0, tell=lambda _: None)
    official, ours = (c.model.state_dict() for c in pair)
    for name, value in official.items():
        assert not torch.equal(value, workload.state[name])
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)


def test_turns_alternate(workload, monkeypatch):
    pair = [build("official", OFFICIAL, workload, "dual"), build("ours", OURS, workload, "dual")]
    order = []
    for contender in pair:
        monkeypatch.setattr(
            contender, "forward", lambda c=contender: order.append(c.name) or c.loss()
        )
    taken = interleaved(pair, 3, warmup=1, tell=lambda _: None)
    assert order[:2] == ["official", "ours"]
    assert order[2:] == ["official", "ours", "ours", "official", "official", "ours"]
    for times in taken:
        assert {k: len(v) for k, v in times.items()} == {
            "total": 3, "forward": 3, "backward": 3, "update": 3
        }  # fmt: skip
        for i in range(3):
            parts = times["forward"][i] + times["backward"][i] + times["update"][i]
            assert parts == pytest.approx(times["total"][i])


def test_rounds_end_with_the_time(workload):
    clock = iter(range(1000)).__next__  # each look at it takes a second
    told = []
    ours = build("ours", OURS, workload, "dual")
    (taken,) = interleaved(
        [ours], 50, budget=Budget(10.0, lambda: float(clock())), tell=told.append
    )
    assert 2 <= len(taken["total"]) < 10
    assert "the time is up" in told[-1]
    assert "s left" in told[0]


def test_a_share_of_the_time():
    budget = Budget(100.0, lambda: 40.0, start=0.0)
    assert budget.left() == 60
    assert budget.share(3).left() == 20
    assert Budget().share(3).left() == float("inf")
    assert Budget().told() == ""


def test_summary():
    found = Summary.of([4.0, 1.0, 2.0, 3.0, 100.0])
    assert found == Summary(median=3.0, q1=2.0, q3=4.0, least=1.0, count=5)
    assert Summary.of([2.0]) == Summary(2.0, 2.0, 2.0, 2.0, 1)
    with pytest.raises(ValueError, match="no times"):
        Summary.of([])


@pytest.fixture
def record(tmp_path, capsys):
    assert step.main([*WORDS.split(), "--warmup", "0", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    assert path.with_suffix(".png").stat().st_size > 5000
    assert path.with_suffix(".md").read_text() in out
    return read(path)


def test_the_record_says_what_was_done(record):
    assert record["command"] == f"python -m benchmarks step {record['command'].split(None, 4)[4]}"
    assert record["machine"]["cpu"]
    assert record["versions"]["torch"] == torch.__version__
    assert record["workload"]["config"]["image_size"] == 32
    assert len(record["runs"]) == len(record["checks"]) == 4
    for run in record["runs"]:
        assert len(run["seconds"]["total"]) == 2
        assert run["kept_for_backward_bytes_per_clip"] > 0
    counts = {(r["contender"], r["masking"]): r["forward_multiply_adds_per_clip"]
              for r in record["runs"]}  # fmt: skip
    assert counts["ours", "dual"] < counts["official", "dual"]
    assert counts["official", "dual"] < counts["official", "encoder-only"]


def test_table_and_speedups(record):
    for run, seconds in zip(record["runs"], [0.4, 0.2, 0.9, 0.3], strict=True):
        run["summary"]["total"]["median"] = seconds
    table = tables.step_table(record)
    assert "**2.00×**" in table  # ours over official, dual
    assert "**3.00×**" in table  # encoder-only
    assert "| official | 2.25× |" in table  # encoder-only over dual
    assert "| ours | 1.50× |" in table


def test_no_speedup_of_what_differs(record, tmp_path, capsys):
    record["checks"][0]["passed"] = False
    for attempt in (
        lambda: tables.step_table(record),
        lambda: tables.speedup(record, ("official", "dual"), ("ours", "dual")),
        lambda: plots.plot_step(record, tmp_path / "no.png"),
    ):
        with pytest.raises(UncheckedError, match="ours, dual: differs from official"):
            attempt()
    path = tmp_path / "red.json"
    path.write_text(json.dumps(record))
    assert report.main([str(path)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "no speedup is printed" in told.err


def test_no_speedup_of_what_was_not_checked(record):
    record["checks"] = record["checks"][1:]
    with pytest.raises(UncheckedError, match="never checked"):
        tables.step_table(record)


def test_nothing_is_timed_when_the_check_is_red(tmp_path, capsys, monkeypatch):
    right = Ours.loss
    monkeypatch.setattr(Ours, "loss", lambda self: right(self) * 1.001)
    monkeypatch.setattr(step, "interleaved", None)
    assert step.main([*WORDS.split(), "--out", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "NOT EQUAL" in told.out
    assert "nothing was timed" in told.err
    assert "×" not in told.out
    assert not list(tmp_path.iterdir())


def test_profile(workload, capsys):
    for name, variant in (("official", OFFICIAL), ("ours", OURS)):
        print_profile(build(name, variant, workload, "dual"), rows=3)
    out = capsys.readouterr().out
    for word in ("official, dual", "ours, dual", "matmul", "LayerNorm", "softmax", "Self CPU"):
        assert word in out


def test_shares():
    found = shares({"aten::addmm": 6.0, "aten::bmm": 2.0, "aten::gelu": 1.0, "aten::_softmax": 1.0})
    assert found == pytest.approx({"matmul": 0.8, "GELU": 0.1, "softmax": 0.1})
    assert family("videomae_fast::add_layer_norm") == "LayerNorm"
    assert family("aten::index_put_") == "masks, choosing and placing tokens"
    assert family("aten::_fused_adamw_") == "optimizer"
