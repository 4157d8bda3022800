"""The README.md of a Hugging Face folder: what the weights are, where from, what changed, how to
use them. It says what is in the weights and nothing that is not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.model_weights import Change, Kind, ModelWeights

_TASKS: Final[dict[Kind, str]] = {
    "classifier": "video-classification",
    "encoder": "feature-extraction",
}
_WHAT: Final[dict[Kind, str]] = {
    "pre-training": "a pre-trained VideoMAE autoencoder, encoder and decoder",
    "classifier": "a VideoMAE classifier of videos",
    "encoder": "the encoder of a pre-trained VideoMAE autoencoder",
}
_LAYOUTS: Final = {
    "official": "the official code's layout (MCG-NJU/VideoMAE, OpenGVLab/VideoMAEv2)",
    "ours": "videomae-fast's layout",
    "hugging-face": "Hugging Face's layout",
    "mmaction2": "mmaction2's layout",
}
_MOST_NAMES: Final = 20
_LICENCE: Final = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


def model_card(
    weights: ModelWeights,
    settings: Mapping[str, Any],
    changes: Sequence[Change],
    licence: str | None = None,
) -> str:
    """Markdown with the Hub's head of metadata.

    Args:
        weights: of any kind but a detector.
        settings: of config.json.
        changes: what this layout can't say of them.
        licence: of the weights, by the Hub's name. None: left to be filled in, since weights don't
            say theirs.

    Returns:
        The text of README.md.

    Raises:
        WeightsError: a licence that is no name as the Hub has them.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise WeightsError(
            f"licence {licence!r}: the Hub's names are like mit, apache-2.0 or cc-by-nc-4.0, and "
            "other for one that it has no name for"
        )
    config, kind = weights.config, weights.kind
    height, width = settings["image_size"], settings["image_size"]
    if not isinstance(settings["image_size"], int):
        height, width = settings["image_size"]
    tags = ["video", "videomae"]
    head = ["library_name: transformers"]
    if licence is not None:
        head.append(f"license: {licence}")
    if kind in _TASKS:
        head.append(f"pipeline_tag: {_TASKS[kind]}")
    head += ["tags:", *(f"- {tag}" for tag in tags)]
    parameters = sum(value.numel() for value in weights.state.values())
    facts = {
        "clip": f"{config.frames} frames of {height} × {width} pixels",
        "patch": f"{config.tubelet_size} × {config.patch_size} × {config.patch_size}",
        "encoder": f"{config.depth} blocks of width {config.width}, {config.heads} heads",
        "parameters": f"{parameters:,}",
        "dtype": str(settings["torch_dtype"]),
    }
    if kind == "pre-training":
        depth, decoder_width = config.decoder_depth, config.decoder_width
        facts["decoder"] = f"{depth} blocks of width {decoder_width}"
    if kind == "classifier":
        facts["classes"] = f"{weights.classes:,}"
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    parts = [
        "---\n" + "\n".join(head) + "\n---",
        f"# {_WHAT[kind][0].upper()}{_WHAT[kind][1:]}",
        f"Written by videomae-fast from `{PurePath(weights.origin.name).name}`, "
        f"{_LAYOUTS[weights.origin.layout]}. Every tensor was read back and compared bit for bit. "
        + (
            "The licence is that of these weights: fill it in above (`license:`)."
            if licence is None
            else f"Licence of the weights: {licence}."
        ),
        f"| | |\n|-|-|\n{table}",
        _classes(weights),
        _changed([*weights.changes, *changes]),
        f"## Use\n\n```python\n{_use(kind, settings['architectures'][0], config.grid.tokens)}```",
        "## Source\n\nVideoMAE: Masked Autoencoders are Data-Efficient Learners for "
        "Self-Supervised Video Pre-Training "
        "([arXiv:2203.12602](https://arxiv.org/abs/2203.12602)). "
        "VideoMAE V2: Scaling Video Masked Autoencoders with Dual Masking "
        "([arXiv:2303.16727](https://arxiv.org/abs/2303.16727)).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _classes(weights: ModelWeights) -> str:
    if weights.kind != "classifier":
        return ""
    if weights.labels is None:
        return "Names of the classes are not known: `--labels FILE` of `convert` adds them."
    names = ", ".join(weights.labels[:_MOST_NAMES])
    left = len(weights.labels) - _MOST_NAMES
    return f"Classes: {names}{f', and {left:,} more (config.json)' if left > 0 else ''}."


def _changed(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    rows = "\n".join(f"* {one.what}: {one.reason}" for one in changes)
    return f"## What is not as it was\n\n{rows}"


def _use(kind: Kind, architecture: str, tokens: int) -> str:
    lines = [
        "import torch",
        f"from transformers import AutoImageProcessor, {architecture}",
        "",
        'processor = AutoImageProcessor.from_pretrained("FOLDER")',
        f'model = {architecture}.from_pretrained("FOLDER").eval()',
        "# clip: a list of RGB frames, as many as the table says",
        'pixels = processor(clip, return_tensors="pt")["pixel_values"]',
    ]
    if kind == "pre-training":
        lines += [
            f"masked = torch.zeros(1, {tokens}, dtype=torch.bool)",
            f"masked[:, : {int(0.9 * tokens)}] = True",
            "loss = model(pixels, bool_masked_pos=masked).loss",
        ]
    else:
        result = "logits" if kind == "classifier" else "last_hidden_state"
        lines += ["with torch.no_grad():", f"    {result} = model(pixels).{result}"]
    return "\n".join(lines) + "\n"
