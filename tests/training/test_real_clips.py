"""The real clips pre-train and reconstruct: H.264, H.265, AV1, 10 bit."""

from __future__ import annotations

from pathlib import Path

from tests.support.real_clips import CLIPS, FOLDER, needs_clips
from tests.support.runs import TINY, altered
from videomae_fast.cli import main
from videomae_fast.data import Source
from videomae_fast.data.failures import read_report
from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain


@needs_clips
def test_every_codec(tmp_path: Path) -> None:
    names = [path.name for path in CLIPS]
    data = tmp_path / "train.csv"
    data.write_text("".join(f"{name} 0 -1\n" for name in names))
    config = altered(
        PretrainConfig(),
        **{
            **TINY,
            "data": (Source(data, root=FOLDER),),
            "videos_per_step": len(names),
            "epochs": 2,
            "max_failed_share": 0.0,
        },
    )
    result = pretrain(config, output=tmp_path / "run", log=lambda _: None)
    assert result.steps == 2
    assert result.last_loss is not None
    assert 0.5 < result.last_loss < 2
    assert read_report(tmp_path / "run" / "bad_files.rank0.jsonl") == []
    for name in names:
        words = ["reconstruct", str(tmp_path / "run"), str(FOLDER / name), "--mask-ratio", "0.5"]
        assert main([*words, "--output", str(tmp_path / "pictures")]) == 0
        picture = (tmp_path / "pictures" / name).with_suffix(".png")
        assert picture.stat().st_size > 10_000
