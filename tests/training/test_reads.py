"""What the processes of a run read of weights and checkpoints: each byte is read once."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.counted_reads import TARGET
from tests.support.launches import Host
from tests.support.runs import losses, options
from videomae_fast import cli
from videomae_fast.training.checkpoint import Saved, checkpoints, read

MODEL, PLAIN = "model.safetensors", "optimizer.safetensors"


def size(tensors: dict[str, Tensor], prefix: str = "") -> int:
    return sum(t.nbytes for name, t in tensors.items() if name.startswith(prefix))


def newest(output: Path) -> Saved:
    return read(checkpoints(output / "checkpoints")[0])


def test_each_process_reads_its_part(host: Host, tiny_list: Path, tmp_path: Path) -> None:
    """Of what one process wrote, and of what two wrote, read by three."""
    words = ["pretrain", *options(data=tiny_list, warmup_epochs=0, depth=2)]

    def reads(processes: int, output: Path, *more: str, shard: str = "all") -> list[dict[str, int]]:
        counted = tmp_path / f"{output.name}-{processes}-{shard}"
        counted.mkdir()
        given = [str(counted), *words, "--shard", shard, "--output", str(output), *more]
        host.start(processes, TARGET, given, counted / "log").finish()
        return [
            json.loads((counted / f"rank-{rank}.json").read_text()) for rank in range(processes)
        ]

    output = tmp_path / "run"
    assert cli.main([*words, "--output", str(output), "--steps", "1"]) == 0
    other = {"exp_avg.mask_token": torch.full((3,), torch.nan)}  # as somebody keeps it there
    save_file(other, newest(output).folder / "mine.safetensors")
    for processes in (2, 3):
        saved = newest(output)
        model, moments = saved.model(), saved.optimizer()
        found = reads(processes, output, "--steps", str(saved.step + 1))
        assert [one.pop(MODEL, 0) for one in found] == [size(model)] + [0] * (processes - 1)
        parts = [sum(one.values()) for one in found]
        counters = size(moments, "step.")
        assert sum(parts) == size(moments) + (processes - 1) * counters, "each byte once"
        rows = [(len(t), t[0].nbytes) for t in moments.values() if t.ndim]
        assert max(parts) == counters + sum(-(-n // processes) * row for n, row in rows)
        if processes == 2:
            assert set(found[0]) == {PLAIN}
    assert len(losses(output)) == 3

    saved = newest(output)
    found = reads(2, output, "--steps", str(saved.step + 1), shard="none")
    assert found[1] == {}, "a copy on each comes from the main process"
    assert sum(found[0].values()) == size(saved.model()) + size(saved.optimizer())
    assert len(losses(output)) == 4

    found = reads(2, tmp_path / "begun", "--init", str(output), "--steps", "1")
    assert set(found[0]) == {MODEL}
    assert found[1] == {}, "the main process gives each its part"
    found = reads(2, tmp_path / "copied", "--init", str(output), "--steps", "1", shard="none")
    assert set(found[0]) == {MODEL}
    assert found[1] == {}
