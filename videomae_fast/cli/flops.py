"""``videomae-fast flops``: multiply-adds of a forward pass, the official code's and ours."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from typing import Any

from videomae_fast.cli.options import add_default
from videomae_fast.errors import UsageError
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.schema import PretrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from videomae_fast.models.flops import BATCH

    fields = settings(PretrainConfig)
    model = parser.add_argument_group("model")
    add_default(model, fields["model.size"])
    add_default(model, fields["model.frames"])
    model.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        default=[224],
        metavar="PIXELS",
        help="one side, or height and width; default: 224",
    )
    add_default(model, fields["model.decoder_depth"])
    masks = parser.add_argument_group("masks")
    add_default(masks, fields["masks.encoder"])
    add_default(masks, fields["masks.encoder_ratio"])
    add_default(
        masks,
        fields["masks.decoder"],
        default=None,
        help="default: running-cell; none is VideoMAE V1, encoder-only masking",
    )
    add_default(
        masks,
        fields["masks.decoder_ratio"],
        default=None,
        help="share that is not decoded; default: 0.5; 0 means --decoder-mask none",
    )
    add_default(masks, fields["masks.loss_over"])
    add_default(masks, fields["masks.skip_seen"])
    parser.add_argument(
        "--batch",
        type=int,
        default=BATCH,
        help=f"clips, which share what ours computes once per batch; default: {BATCH}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, in multiply-adds")


def run(args: argparse.Namespace) -> int:
    """Prints the table or JSON.

    Raises:
        UsageError: options that contradict each other, or a size that does not divide.
    """
    counted = count(args)
    print(json.dumps(counted, indent=2) if args.json else as_text(counted))
    return 0


def count(args: argparse.Namespace) -> dict[str, Any]:
    """Everything the table shows, as plain values; counts in multiply-adds of one clip."""
    from videomae_fast.masks import MaskSpec
    from videomae_fast.models.config import MAEConfig
    from videomae_fast.models.flops import PARTS, flops, savings

    if len(args.image_size) > 2:
        raise UsageError("--image-size takes one side, or height and width")
    image_size = args.image_size[0] if len(args.image_size) == 1 else tuple(args.image_size)
    decoder, ratio = _decoder_mask(args.decoder_mask, args.decoder_mask_ratio)
    try:
        config = MAEConfig.from_size(
            args.size, frames=args.frames, image_size=image_size, decoder_depth=args.decoder_depth
        )
        spec = MaskSpec(
            args.encoder_mask,
            args.encoder_mask_ratio,
            decoder,
            ratio,
            args.loss_over,
            args.skip_seen,
        )
        official = flops(config, spec, "official")
        ours = flops(config, spec, "ours", batch=args.batch)
        left_out = savings(config, spec, batch=args.batch)
        alone = replace(spec, decoder="none")
        encoder_only = {
            "official": sum(flops(config, alone, "official").values()),
            "ours": sum(flops(config, alone, "ours", batch=args.batch).values()),
        }
    except ValueError as error:
        raise UsageError(str(error)) from error
    counts = spec.counts(config.grid)
    totals = {"official": sum(official.values()), "ours": sum(ours.values())}
    return {
        "unit": "multiply-adds of one clip's forward pass",
        "size": args.size,
        "batch": args.batch,
        "config": config.to_dict(),
        "masks": asdict(spec),
        "tokens": {
            "grid": [config.grid.slots, config.grid.height, config.grid.width],
            "all": config.grid.tokens,
            "visible": counts.visible,
            "decoder": counts.decoder,
            "loss": counts.loss,
        },
        "parts": {part: {"official": official[part], "ours": ours[part]} for part in PARTS},
        "total": totals,
        "savings": [asdict(saving) for saving in left_out],
        "encoder_only": {
            **encoder_only,
            "official_over_this": encoder_only["official"] / totals["official"],
            "ours_over_this": encoder_only["ours"] / totals["ours"],
        },
    }


def _decoder_mask(kind: str | None, ratio: float | None) -> tuple[Any, float]:
    """The decoder mask's kind and ratio; a ratio of 0 is no mask.

    Raises:
        UsageError: a kind and a ratio that contradict each other.
    """
    if kind == "none" and ratio:
        raise UsageError(
            f"--decoder-mask none has no ratio: leave out --decoder-mask-ratio {ratio:g}"
        )
    if kind not in (None, "none") and ratio == 0:
        raise UsageError(
            f"--decoder-mask-ratio 0 is no {kind} mask: write --decoder-mask none instead"
        )
    if kind == "none" or ratio == 0:
        return "none", 0.5  # a spec's ratio says nothing without a mask
    return kind or "running-cell", 0.5 if ratio is None else ratio


LABELS = {
    "patch_embed": "patch embedding",
    "encoder_linear": "encoder, linear layers",
    "encoder_attention": "encoder, attention",
    "encoder_to_decoder": "encoder to decoder",
    "decoder_linear": "decoder, linear layers",
    "decoder_attention": "decoder, attention",
    "head": "head",
}


def as_text(counted: dict[str, Any]) -> str:
    """The table, in G multiply-adds."""
    tokens, masks, config = counted["tokens"], counted["masks"], counted["config"]
    side = config["image_size"]
    height, width = (side, side) if isinstance(side, int) else side
    decoder = (
        "none" if masks["decoder"] == "none" else f"{masks['decoder']} {masks['decoder_ratio']:g}"
    )
    lines = [
        f"ViT-{counted['size']}, {config['frames']} frames of {height} x {width}: "
        f"{tokens['all']} tokens ({' x '.join(map(str, tokens['grid']))})",
        f"encoder mask {masks['encoder']} {masks['encoder_ratio']:g}: "
        f"the encoder sees {tokens['visible']}",
        f"decoder mask {decoder}: {tokens['decoder']} mask tokens, {tokens['loss']} in the loss",
        "",
        f"{'G multiply-adds, one clip forward':<34}{'official':>10}{'ours':>10}{'saved':>10}",
    ]
    rows = [(LABELS[part], of["official"], of["ours"]) for part, of in counted["parts"].items()]
    total = counted["total"]
    for label, official, ours in rows:
        lines.append(_row(label, official, ours))
    lines += [_row("total", total["official"], total["ours"]), "", "left out by ours:"]
    for saving in counted["savings"]:
        share = saving["multiply_adds"] / total["official"]
        exact = "exact" if saving["exact"] else "not exact"
        lines.append(
            f"  {saving['name']}  {saving['multiply_adds'] / 1e9:8.3f} G  {share:6.1%}  "
            f"{exact}: {saving['what']}"
        )
    if masks["decoder"] != "none":
        alone = counted["encoder_only"]
        lines += ["", "with the encoder mask alone (no decoder mask):"]
        for who in ("official", "ours"):
            lines.append(
                f"  {who:<9}{alone[who] / 1e9:8.3f} G, {alone[f'{who}_over_this']:.2f} times this"
            )
    return "\n".join(lines)


def _row(label: str, official: int, ours: int) -> str:
    saved = f"{(official - ours) / 1e9:.3f}" if official != ours else "-"
    return f"  {label:<32}{official / 1e9:>10.3f}{ours / 1e9:>10.3f}{saved:>10}"
