"""``videomae-fast pretrain``: the options are the fields of PretrainConfig."""

from __future__ import annotations

import argparse
import difflib
import inspect
import sys
from collections.abc import Callable
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videomae_fast.cli.list_options import check_folder, check_list_file
from videomae_fast.errors import UsageError
from videomae_fast.training.config import PretrainConfig
from videomae_fast.training.recipes import RECIPES

if TYPE_CHECKING:
    from videomae_fast.data.sources import Source

DEFAULT_RECIPE = "vit_b_hybrid"

_GROUPS = {
    "model": "model",
    "masks": "masks and target",
    "data": "data",
    "optimization": "optimization",
    "run": "run",
}

# Option of --data: (field of Source, how its text is read)
_DATA_OPTIONS: dict[str, tuple[str, Any]] = {
    "weight": ("weight", float),
    "stride": ("stride", int),
    "root": ("root", Path),
    "pattern": ("name_pattern", str),
    "contains": ("contains", str),
    "only": ("only", str),
    "format": ("format", str),
    "first": ("first_frame", int),
    "name": ("name", str),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s --recipe NAME --data LIST --output DIR [options]"
    main = parser.add_argument_group("what to run")
    main.add_argument(
        "--recipe",
        metavar="NAME",
        default=DEFAULT_RECIPE,
        help="official recipe to start from; every option below overrides it. "
        f"There are: {', '.join(RECIPES)} (default: {DEFAULT_RECIPE})",
    )
    main.add_argument(
        "--data",
        action="append",
        metavar="LIST[,OPTION=VALUE...]",
        help="data list; repeat it to mix several. Options: weight (share of the draws), stride, "
        "root (folder that its paths start from), pattern (of images in frame folders, like "
        "img_{:05}.jpg), contains (keep paths with this text), only (videos or folders), "
        "format (of its lines: pretrain, labels or folder-labels), first (number of the first "
        "image, which folder-labels does not say), name",
    )
    main.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for checkpoints, metrics and reports"
    )
    main.add_argument(
        "--resume",
        metavar="auto|never|DIR",
        default="auto",
        help="go on from the newest whole checkpoint in OUTPUT, never, or from this checkpoint "
        "folder (default: auto)",
    )
    main.add_argument(
        "--show-recipe", action="store_true", help="say what the recipe is and sets, and end"
    )
    groups = {
        name: parser.add_argument_group(title, "defaults are those of the recipe")
        for name, title in _GROUPS.items()
    }
    for one in fields(PretrainConfig):
        if one.name != "data":
            _add_field(groups[one.metadata["group"]], one)


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0, or 128 + the number of the signal that stopped the run.

    Raises:
        VideoMAEFastError: as :func:`videomae_fast.training.loop.run`.
    """
    if args.show_recipe:
        _show(args.recipe)
        return 0
    config = config_from(args)
    if args.output is None:
        raise UsageError("--output is missing: name the folder for checkpoints and metrics")
    check_folder("--output", args.output)
    if args.resume not in ("auto", "never") and not Path(args.resume).is_dir():
        raise UsageError(
            f"--resume {args.resume}: no such checkpoint folder; give auto, never, or a folder "
            "like OUTPUT/checkpoints/step-00001000"
        )
    from videomae_fast.tasks.pretraining import pretrain
    from videomae_fast.training.errors import InterruptedRunError

    try:
        result = pretrain(
            config, output=args.output, resume=args.resume, log=lambda line: print(line, flush=True)
        )
    except InterruptedRunError as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    print(f"checkpoint {result.checkpoint}")
    return 0


def config_from(args: argparse.Namespace) -> PretrainConfig:
    """The recipe's config with the options that were given.

    Raises:
        UsageError: unknown recipe, bad option value, or a list that is not there.
    """
    given = {
        one.name: getattr(args, one.name)
        for one in fields(PretrainConfig)
        if one.name != "data" and hasattr(args, one.name)
    }
    if isinstance(given.get("betas"), list):
        given["betas"] = tuple(given["betas"])
    if not args.data:
        raise UsageError(
            "--data is missing: name at least one list, a text file with a line "
            "'path 0 -1' per video (videomae-fast list FOLDER > train.csv makes one)"
        )
    sources = tuple(parse_source(text) for text in args.data)
    return replace(_recipe(args.recipe)(), **given, data=sources)


def parse_source(text: str) -> Source:
    """``LIST[,option=value...]`` as a source. A list's path may have commas, but none of the form
    ``,option=``.

    Raises:
        UsageError: an unknown option, a value that can't be, or no such list.
    """
    from videomae_fast.data.sources import Source

    path, *words = text.split(",")
    while words and "=" not in words[0]:  # commas of the path
        path += f",{words.pop(0)}"
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _DATA_OPTIONS or not equals:
            close = difflib.get_close_matches(name, list(_DATA_OPTIONS), n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(_DATA_OPTIONS)}"
            raise UsageError(f"--data {text}: unknown option {word!r}; {hint}")
        field, read = _DATA_OPTIONS[name]
        try:
            values[field] = read(value)
        except ValueError:
            raise UsageError(f"--data {text}: {name} must be a number, not {value!r}") from None
    check_list_file(Path(path), f"--data {text}")
    root = values.get("root")
    if root is not None and not root.is_dir():
        raise UsageError(f"--data {text}: root {root} is no folder")
    try:
        return Source(Path(path), **values)
    except ValueError as error:
        raise UsageError(f"--data {text}: {error}") from None


def _recipe(name: str) -> Callable[[], PretrainConfig]:
    if name in RECIPES:
        return RECIPES[name]
    close = difflib.get_close_matches(name, list(RECIPES), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"no recipe {name!r}; {hint}there are {', '.join(RECIPES)}")


def _show(name: str) -> None:
    recipe = _recipe(name)
    print(f"{name}: {inspect.getdoc(recipe)}\n")
    for key, value in recipe().to_dict().items():
        if key != "data":
            print(f"  {key:<24} {value}")


def _add_field(group: argparse._ArgumentGroup, one: Field[Any]) -> None:
    """An option that sets nothing where it is not given, so that the recipe's value stands."""
    meta: Any = one.metadata
    kwargs: dict[str, Any] = {
        "dest": one.name,
        "default": argparse.SUPPRESS,
        "help": meta["help"].replace("%", "%%"),
    }
    if meta["kind"] is bool:
        kwargs["action"] = argparse.BooleanOptionalAction
    elif meta["choices"] is not None:
        kwargs["choices"] = meta["choices"]
    elif one.name == "betas":
        kwargs.update(nargs=2, type=float, metavar=("BETA1", "BETA2"))
    elif one.name == "image_size":
        kwargs.update(type=_image_size, metavar="PIXELS")
    else:
        kwargs["type"] = _or_none(meta["kind"]) if one.default is None else meta["kind"]
        kwargs["metavar"] = {int: "N", float: "X", str: "NAME"}[meta["kind"]]
    group.add_argument(f"--{one.name.replace('_', '-')}", **kwargs)


def _image_size(text: str) -> int | tuple[int, int]:
    sides = [int(side) for side in text.lower().split("x")]
    if len(sides) not in (1, 2):
        raise ValueError(text)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _or_none(kind: type) -> Any:
    def read(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    read.__name__ = kind.__name__  # argparse names it in its errors
    return read
