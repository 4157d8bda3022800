"""Reading files with two versions of the package, in turns: what a change of decoding costs.

    python -m benchmarks reading-versions --before OLD/.venv/bin/python --videos folder

Each version is an interpreter that has it installed; this one is the other. A file is opened, a
clip of 16 frames at stride 4 from its beginning is decoded, and it is closed: CPU time of that, in
a process for each round. An H.264 MP4 of the folder is also copied into other containers. Given is
the median over rounds of after / before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp, write
from videomae_fast.demo.videos import find_videos

CONTAINERS = ("mkv", "ts", "flv")
# In the interpreter's own version; its output is one line of JSON
CHILD = """
import json, sys, time
from videomae_fast.data import open_video
def read(path):
    with open_video(path) as video:
        last = video.frame_count - 1
        video.read([min(4 * i, last) for i in range(16)])
found = {}
for path in sys.argv[2:]:
    read(path)
    start = time.process_time()
    for _ in range(int(sys.argv[1])):
        read(path)
    found[path] = (time.process_time() - start) / int(sys.argv[1])
print(json.dumps(found))
"""


def arguments() -> argparse.ArgumentParser:
    """The parser of ``reading-versions``."""
    parser = parser_of("reading-versions", __doc__)
    parser.add_argument("--before", required=True, help="interpreter with the other version")
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="of a file in a round; default: 5")
    return parser


def in_other_containers(videos: Sequence[Path], folder: Path) -> Iterator[Path]:
    """The packets of the first H.264 MP4, in containers that number frames in other ways."""
    for path in filter(_is_h264_mp4, videos):
        for suffix in CONTAINERS:
            target = folder / f"{path.stem}.{suffix}"
            with av.open(str(path)) as read, av.open(str(target), "w") as made:
                stream = read.streams.video[0]
                copy = made.add_stream_from_template(stream)
                for packet in read.demux(stream):
                    if packet.dts is not None:
                        packet.stream = copy
                        made.mux(packet)
            yield target
        return


def _is_h264_mp4(path: Path) -> bool:
    if path.suffix != ".mp4":
        return False
    with av.open(str(path)) as read:
        return bool(read.streams.video[0].codec_context.name == "h264")


def measured(interpreter: str, repeats: int, files: Sequence[Path]) -> dict[str, float]:
    """CPU seconds of opening and reading each file, by its path."""
    words = [interpreter, "-c", CHILD, str(repeats), *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(rounds: Sequence[tuple[dict[str, float], dict[str, float]]]) -> list[dict[str, Any]]:
    """A row per file: median milliseconds before and after, and the median of the ratios."""
    rows = []
    for path in rounds[0][0]:
        before, after = ([one[path] for one in side] for side in zip(*rounds, strict=True))
        ratios = [new / old for old, new in zip(before, after, strict=True)]
        rows.append(
            {
                "file": Path(path).name,
                "before_ms": 1e3 * statistics.median(before),
                "after_ms": 1e3 * statistics.median(after),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
            }
        )
    return rows


def main(argv: Sequence[str]) -> int:
    """Writes the record and a table.

    Returns:
        0.
    """
    args = arguments().parse_args(argv)
    videos = find_videos(args.videos)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        files = [*videos, *in_other_containers(videos, Path(folder))]
        for number in range(args.rounds):
            order = [args.before, sys.executable]
            sides = [measured(each, args.repeats, files) for each in order[:: 1 - 2 * (number % 2)]]
            before, after = sides[:: 1 - 2 * (number % 2)]
            rounds.append((before, after))
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
    record = {
        "kind": "reading-versions",
        **environment("cpu", command_of("reading-versions", argv)),
        "rounds": args.rounds,
        "repeats": args.repeats,
        "rows": rows_of(rounds),
    }
    path = write(record, results_folder(args) / f"reading-versions-cpu-{stamp()}.json")
    for row in rows_of(rounds):
        print(f"{row['file']:32}{row['before_ms']:9.2f}{row['after_ms']:9.2f}{row['ratio']:7.2f}")
    print(path)
    return 0
