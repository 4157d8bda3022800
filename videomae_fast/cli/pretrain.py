"""``videomae-fast pretrain``: the options are the fields of a configuration."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from videomae_fast.cli.list_options import check_folder, check_list_file
from videomae_fast.cli.options import add_fields, described, given
from videomae_fast.errors import UsageError, did_you_mean
from videomae_fast.recipes.catalogue import find, names
from videomae_fast.recipes.fields import SettingError
from videomae_fast.recipes.load import load, parse
from videomae_fast.recipes.plain import LISTS
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.recipes.source import BY_OPTION, Source

DEFAULT_RECIPE = "vit_b_hybrid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s --recipe NAME --data LIST --output DIR [options]"
    main = parser.add_argument_group("what to run")
    main.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        default=DEFAULT_RECIPE,
        help="recipe to start from, an official one by name or a TOML file of your own "
        "(videomae-fast recipes show NAME > mine.toml); every option below overrides it. "
        f"There are: {', '.join(names(PretrainConfig.task))} (default: {DEFAULT_RECIPE})",
    )
    main.add_argument(
        "--data",
        action="append",
        metavar="LIST[,OPTION=VALUE...]",
        help="data list, in place of the recipe's; repeat it to mix several. Options: "
        f"{described(BY_OPTION.values())}".replace("%", "%%"),
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
    main.add_argument("--show-recipe", action="store_true", help=argparse.SUPPRESS)
    add_fields(parser, PretrainConfig)


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0, or 128 + the number of the signal that stopped the run.

    Raises:
        VideoMAEFastError: as :func:`videomae_fast.training.loop.run`.
    """
    if args.show_recipe:
        print(f"--show-recipe is now: videomae-fast recipes show {args.recipe}", file=sys.stderr)
        print(find(PretrainConfig.task, args.recipe).read_text(encoding="utf-8"), end="")
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
    """The recipe's configuration with the options that were given.

    Raises:
        UsageError: unknown recipe, bad option value, or a list that is not there.
    """
    values = given(args, PretrainConfig)
    if args.data:
        values[LISTS] = tuple(parse_source(text) for text in args.data)
    config = load(PretrainConfig, args.recipe, values)
    if not config.data.lists:
        raise UsageError(
            "--data is missing: name at least one list, a text file with a line "
            "'path 0 -1' per video (videomae-fast list FOLDER > train.csv makes one)"
        )
    if not args.data:
        for source in config.data.lists:
            _check_there(source, f"{args.recipe}: {LISTS}")
    return config


def parse_source(text: str) -> Source:
    """``LIST[,option=value...]`` as a source. A list's path may have commas, but none of the form
    ``,option=``.

    Raises:
        UsageError: an unknown option, a value that can't be, or no such list.
    """
    path, *words = text.split(",")
    while words and "=" not in words[0]:  # commas of the path
        path += f",{words.pop(0)}"
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in BY_OPTION or not equals:
            hint = did_you_mean(name, BY_OPTION) or f"; known: {', '.join(BY_OPTION)}"
            raise UsageError(f"--data {text}: unknown option {word!r}{hint}")
        try:
            values[BY_OPTION[name].field] = parse(BY_OPTION[name], value)
        except SettingError as error:
            raise UsageError(f"--data {text}: {error}") from None
    try:
        source = Source(Path(path), **values)
    except ValueError as error:
        raise UsageError(f"--data {text}: {error}") from None
    _check_there(source, f"--data {text}")
    return source


def _check_there(source: Source, named: str) -> None:
    check_list_file(source.path, named)
    if source.root is not None and not source.root.is_dir():
        raise UsageError(f"{named}: root {source.root} is no folder")
