"""Fills the README's table of measured figures from the newest results.

python -m benchmarks.readme           # writes README.md
python -m benchmarks.readme --check   # ends with 1 where README.md is not what the results say
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import RESULTS, read
from benchmarks.tables import Record, median, require_checked, run_of, speedup

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def newest_steps(folder: Path = RESULTS) -> list[tuple[Path, Record]]:
    """The newest record of a training step of each size, device and batch."""
    newest: dict[tuple[str, ...], tuple[Path, Record]] = {}
    for path in sorted(folder.glob("step-*.json")):  # a date ends the name
        record = read(path)
        work = record["workload"]
        key = (str(work["device"]), str(work["batch"]), path.name.split("-")[1])
        newest[key] = (path, record)
    sizes = ("small", "base", "large", "huge", "giant")
    return sorted(newest.values(), key=lambda one: sizes.index(one[0].name.split("-")[1]))


def block(steps: Sequence[tuple[Path, Record]], root: Path = README.parent) -> str:
    """The lines between the markers.

    Raises:
        UncheckedError: a record does not show equality.
    """
    lines = [
        "One training step (forward, backward, update), fp32, against a transcription of the "
        "official computation in eager PyTorch;",
        "same weights, clips and masks, loss and every gradient shown equal first, interleaved, "
        "medians.",
        "",
        "| | masking | official | ours | speedup |",
        "|-|-|-:|-:|-:|",
    ]
    for path, record in steps:
        require_checked(record)
        size, work = path.name.split("-")[1], record["workload"]
        for masking in ("dual", "encoder-only"):
            slow, fast = run_of(record, "official", masking), run_of(record, "ours", masking)
            ratio = speedup(record, ("official", masking), ("ours", masking))
            if slow is None or fast is None or ratio is None:
                continue
            where = (
                f"ViT-{size[0].upper()}, batch {work['batch']}, {record['machine']['cpu']}, "
                f"{record['machine']['threads']} threads ([data]({path.relative_to(root)}))"
            )
            lines.append(
                f"| {where} | {masking} | {1e3 * median(slow):,.0f} ms "
                f"| {1e3 * median(fast):,.0f} ms | **{ratio:.2f}×** |"
            )
    lines += [
        "",
        "Part of this is the matmul library: torch's own leaves AVX-512 unused on processors that "
        "are not Intel's. What",
        "was gained by what: [performance log](docs/performance-log.md). On a GPU: not yet "
        "measured. How to measure: [benchmarks](benchmarks).",
    ]
    return "\n".join(lines)


def filled(text: str, content: str) -> str:
    """The README with the content between its markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    text = README.read_text(encoding="utf-8")
    wanted = filled(text, block(newest_steps()))
    if args.check:
        return 0 if text == wanted else 1
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
