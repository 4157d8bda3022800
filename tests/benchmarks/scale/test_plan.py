"""The plan of a run on many GPUs: by its formulas, and as a command."""

from __future__ import annotations

import json

import pytest

from benchmarks.scale.cluster import CARDS, Layout, Model, moved, states, step
from benchmarks.scale.plan import Clip, layout_of, main, rows, table

GIANT = Model(parameters=1_026_306_560, largest=25_248_768, within=1_022_000_000, blocks=44)
H100 = CARDS["H100"]
# Worked by hand: GPUs, clips, layout; GB held and moved, ms of the step, clips/s
WORKED = [
    (64, 128, "none", 18.5, 8.1, 407, 20_100),
    (64, 128, "node", 4.6, 6.3, 395, 20_700),
    (64, 128, "all+reshard", 0.9, 8.1, 394, 20_800),
    (512, 16, "none", 18.5, 8.2, 83, 99_000),
    (512, 16, "node", 4.6, 6.4, 56, 146_000),
    (512, 16, "all+reshard", 0.6, 8.2, 213, 38_000),
    (512, 64, "node", 4.6, 6.4, 199, 165_000),
]


@pytest.mark.parametrize(("gpus", "clips", "word", "held", "sent", "ms", "speed"), WORKED)
def test_what_was_worked_out_by_hand(gpus, clips, word, held, sent, ms, speed):
    layout = layout_of(word, gpus, 8)
    found = step(GIANT, layout, H100, compute=clips * 2.92e-3, update=13.8e-3)
    assert states(GIANT, layout) / 1e9 == pytest.approx(held, abs=0.06)
    assert moved(GIANT, layout) / 1e9 == pytest.approx(sent, abs=0.06)
    assert found.total * 1e3 == pytest.approx(ms, rel=0.01)
    assert gpus * clips / found.total == pytest.approx(speed, rel=0.02)


def test_one_gpu_moves_nothing():
    alone = Layout(1)
    found = step(GIANT, alone, H100, compute=0.1, update=0.01)
    assert (moved(GIANT, alone), found.forward, found.backward, found.exposed) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("word", "gpus", "said"),
    [
        ("half", 8, "none, node, all or a number"),
        ("3", 8, "8 GPUs can't be copies of 3"),
        ("none+reshard", 8, "nothing is gathered"),
        ("node+twice", 8, r"only \+reshard"),
    ],
)
def test_layouts_that_cannot_be(word, gpus, said):
    with pytest.raises(ValueError, match=said):
        layout_of(word, gpus, 8)


def test_what_does_not_fit_is_marked():
    clip = Clip(2.92e-3, 13.8e-3, {"all": 476e6, "recompute": 295e6})
    planned = list(rows(GIANT, clip, H100, [Layout(64), Layout(64, 8)], 128))
    assert [row["fits"]["all"] for row in planned] == [False, True]
    lines = table(planned, H100).splitlines()
    assert "| 64 × 128 | DDP | 18.5 | 79 ! | 56 | 8.1 |" in lines[-2]
    assert "| 64 × 128 | HSDP 8, no reshard | 4.6 | 65 | 42 | 6.3 |" in lines[-1]


def test_the_command(capsys, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    words = ["--size", "small", "--depth", "2", "--gpus", "16", "--clips", "4", "--keep", "all"]
    assert main([*words, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned[0]["layout"] == "DDP"
    assert 0 < planned[0]["memory"]["all"] - planned[0]["states"] < 4 * 200e6
    assert all(row["clips_per_s"] > 1000 for row in planned)
    assert main([*words, "--clip-ms", "3", "--update-ms", "1", "--layouts", "node"]) == 0
    assert "| 16 × 4 | HSDP 8, no reshard |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--gpus", "8", "--clips", "1", "2"])
    assert "go in pairs" in capsys.readouterr().err
