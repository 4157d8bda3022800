"""The table of `benchmarks.reading.speed`, from its record."""

from __future__ import annotations

from typing import Any

from benchmarks.common.processor import processor_name
from benchmarks.measure.checks import UncheckedError

Record = dict[str, Any]
Run = dict[str, Any]

OFFICIAL = "official"
# Ours on a core, by the files' form: the default decoder, or none
CORE_READERS = {"raw": "ours, pyav", "prepared": "ours, pyav", "cached": "ours, cache"}
# The cache holds the prepared files decoded
SAME_FILES = {"cached": "prepared"}
# Views per second that one H200 takes: 45 % of 989 TFLOP/s over the official computation's flop
# per clip (6 x 25.84e9 and 6 x 68.27e9 for dual masking)
NEEDED = {"ViT-B": 2870, "ViT-L": 1090}


def require_equal(record: Record) -> None:
    """Checks that a record shows that all read the same.

    Raises:
        UncheckedError: a comparison failed, or a run has none.
    """
    checks = {(check["contender"], check["form"]): check for check in record["checks"]}
    for check in checks.values():
        if not check["passed"]:
            raise UncheckedError(
                f"{check['contender']}, {check['form']}: differs from the official path (frame "
                f"numbers {_same(check['ids'])}, crops {_same(check['boxes'])}, pixels by up to "
                f"{check['most']} grey levels, {check['mean']:.2g} in the mean)"
            )
    for run in record["runs"]:
        known = (run["contender"], run["form"]) in checks
        if not known and run["contender"] != OFFICIAL:
            raise UncheckedError(f"{run['contender']}, {run['form']}: was never checked")


def factor(record: Record, run: Run, form: str) -> float | None:
    """How many times the views per second of the official path on files of ``form``."""
    for other in record["runs"]:
        if (other["contender"], other["form"]) == (OFFICIAL, form):
            ratio: float = run["views_per_s"] / other["views_per_s"]
            return ratio
    return None


def data_table(record: Record) -> str:
    """Markdown: decodes and views per second by form of the files and contender; the pipeline.

    Raises:
        UncheckedError: the record does not show that all read the same.
    """
    require_equal(record)
    checks = {(check["contender"], check["form"]): check for check in record["checks"]}
    lines = [
        _head(record),
        "",
        "| files | | on | decodes/s | views/s | decode, ms: median (quartiles) "
        "| ms per view: median (quartiles) | joining, ms per view | over official, raw "
        "| over official, same files | largest difference (mean), grey levels |",
        "|-|-|-|-|-|-|-|-|-|-|-|",
    ]
    for run in record["runs"]:
        check = checks[run["contender"], run["form"]]
        same = SAME_FILES.get(run["form"], run["form"])
        ratios = [_times(factor(record, run, form)) for form in ("raw", same)]
        lines.append(
            f"| {run['form']} | {run['contender']} | {run['place']} | {run['decodes_per_s']:.3g} "
            f"| {run['views_per_s']:.3g} | {_spread(run['summary']['decode'])} "
            f"| {_spread(run['summary']['view'])} | {1e3 * run['summary']['join']['median']:.3g} "
            f"| {' | '.join(ratios)} "
            f"| {check['most']} ({check['mean']:.2g}) |"
        )
    lines += ["", _legend(record)]
    if record["pipeline"]:
        lines += ["", *_pipeline(record)]
    notes = [f"* {what}: not timed: {why}" for what, why in record["failed"].items()]
    notes += [f"* {what} is left out: {why}" for what, why in record["left_out"].items()]
    if notes:
        lines += ["", *notes]
    return "\n".join(lines)


def _head(record: Record) -> str:
    settings = record["settings"]
    views = (
        f"{settings['samples']} views of {settings['frames']} frames at stride "
        f"{settings['stride']}, {settings['size']} x {settings['size']} pixels, of each decode"
    )
    return _heading(record, views)


def _heading(record: Record, views: str) -> str:
    machine, versions, settings = record["machine"], record["versions"], record["settings"]
    used = ", ".join(f"{n} {v}" for n, v in versions.items() if v is not None)
    videos = "; ".join(
        f"{video['name']}: "
        + ", ".join(f"{form} {_file(video[form])}" for form in ("raw", "prepared"))
        for video in record["videos"]
    )
    return (
        f"{machine['device']} ({processor_name(machine)}, {machine['cores']} cores, load "
        f"{machine['load_average'][0]:.1f} at the end of the checks), {used}, native library "
        f"{record['native_library']}; {views}; {len(record['runs'][0]['seconds']['total'])} rounds "
        f"of {settings['clips']} decodes each, interleaved, one thread; "
        f"{record['source']} videos ({videos}); "
        f"{record['date'][:10]}, commit {record['commit']}: `{record['command']}`"
    )


def _legend(record: Record) -> str:
    text = (
        "The official path gives fp32 clips, normalised, and masks; ours gives uint8 clips, which "
        "are normalised, and their masks made, in the step; joining makes one batch of them, on "
        "the device. Cached are the prepared videos, decoded, in files that memory holds. "
    )
    if any(run["place"] != "core" for run in record["runs"]):
        text += (
            'On a device, views/s are its own, with cores enough to feed it: "decode" is then a '
            "core's time per video, and \"ms per view\" the device's. "
        )
    return text + (
        "One H200 takes "
        + " and ".join(f"{views:,} views/s of {name}" for name, views in NEEDED.items())
        + " at 45 % of 989 TFLOP/s (by computation, not measured)."
    )


def _pipeline(record: Record) -> list[str]:
    needed = [f"fed for {name}, cores" for name in NEEDED]
    lines = [
        "| the whole pipeline | loader processes | views/s "
        + "".join(f"| {n} " for n in needed)
        + "|",
        "|-|-|-|" + "-|" * len(needed),
    ]
    for row in record["pipeline"]:
        crops = ", crops on the device" if row.get("crop_on") == "device" else ""
        decoder = "cache" if row["form"] == "cached" else row.get("device_decoder", "pyav")
        way = decoder + crops
        cores = [f"{row['workers'] * views / row['views_per_s']:.0f}" for views in NEEDED.values()]
        lines.append(
            f"| {row['form']}, {way} | {row['workers']} | {row['views_per_s']:.3g} | "
            + " | ".join(cores)
            + " |"
        )
    return [*lines, "", "Cores: as many times those of the run as its views/s fall short."]


def _file(form: dict[str, Any]) -> str:
    return (
        f"{form['codec']} {form['width']} x {form['height']}, {form['frames']} frames, a key frame "
        f"every {form['frames_per_key_frame']:g}"
    )


def _same(same: bool) -> str:
    return "the same" if same else "others"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}×"


def _spread(summary: dict[str, float]) -> str:
    low, high = 1e3 * summary["q1"], 1e3 * summary["q3"]
    return f"{1e3 * summary['median']:.3g} ({low:.3g} to {high:.3g})"


def augment_table(record: Record) -> str:
    """Markdown: what a training clip of fine-tuning costs, by form of the files and contender.

    Raises:
        UncheckedError: the record does not show that all make the same clips.
    """
    checks = {(check["contender"], check["form"]): check for check in record["checks"]}
    for (contender, form), check in checks.items():
        if not check["passed"]:
            raise UncheckedError(
                f"{contender}, {form}: differs from the official chain (frame numbers "
                f"{_same(check['ids'])}, values by up to {check['most']:.2g}, "
                f"{check['mean']:.2g} in the mean)"
            )
    settings = record["settings"]
    lines = [
        _heading(
            record,
            f"{settings['samples']} clips of {settings['frames']} frames at stride "
            f"{settings['stride']}, {settings['size']} x {settings['size']} pixels, of each "
            "decode, each with its own RandAugment, crop, flip and erasing",
        ),
        "",
        "| files | | clips/s | ms per clip: median (quartiles) | decoding | augmentation | joining "
        "| over official, raw | over official, same files | values apart: most (mean) |",
        "|-|-|-:|-:|-:|-:|-:|-:|-:|-|",
    ]
    for run in record["runs"]:
        share, total = settings["samples"], run["summary"]["total"]
        per_clip = {key: total[key] / share for key in ("median", "q1", "q3")}
        found = checks.get((run["contender"], run["form"]))
        if found is None and run["contender"] != OFFICIAL:
            raise UncheckedError(f"{run['contender']}, {run['form']}: was never checked")
        same = SAME_FILES.get(run["form"], run["form"])
        ratios = [_times(factor(record, run, form)) for form in ("raw", same)]
        parts = [run["summary"]["decode"]["median"] / share] + [
            run["summary"][part]["median"] for part in ("view", "join")
        ]
        apart = "" if found is None else f"{found['most']:.2g} ({found['mean']:.2g})"
        lines.append(
            f"| {run['form']} | {run['contender']} | {run['views_per_s']:.3g} "
            f"| {_spread(per_clip)} | {' | '.join(f'{1e3 * part:.3g}' for part in parts)} "
            f"| {' | '.join(ratios)} | {apart} |"
        )
    lines += [
        "",
        "Values are normalised, and compared outside the erased rectangles; with the official "
        "decoder they are equal but for what fp32 rounds.",
    ]
    notes = [f"* {what} is left out: {why}" for what, why in record["left_out"].items()]
    return "\n".join([*lines, *([""] if notes else []), *notes])
