"""What the commands that train have in common: recipe, lists, output, and fields as options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from videomae_fast.cli.list_options import check_folder, check_list_file
from videomae_fast.cli.options import add_fields, described, given
from videomae_fast.errors import UsageError, did_you_mean
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.fields import SettingError, settings
from videomae_fast.recipes.load import load, parse
from videomae_fast.recipes.plain import LIST_FIELDS, LISTS
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.recipes.source import BY_OPTION, ListFormat, Source

K = TypeVar("K", bound=PretrainConfig | FinetuneConfig)


def add_run_arguments(
    parser: argparse.ArgumentParser, kind: type[PretrainConfig | FinetuneConfig], recipe: str
) -> None:
    """The options of a command that trains; recipe: its default."""
    main = parser.add_argument_group("what to run")
    main.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        default=recipe,
        help="recipe to start from, an official one by name or a TOML file of your own "
        "(videomae-fast recipes show NAME > mine.toml); every option below overrides it. "
        f"There are: {', '.join(names(kind.task))} (default: {recipe})",
    )
    main.add_argument(
        "--data",
        action="append",
        metavar="LIST[,OPTION=VALUE...]",
        help="data list, in place of the recipe's; repeat it to mix several. Options: "
        f"{described(BY_OPTION.values())}".replace("%", "%%"),
    )
    for name, flag in LIST_FIELDS.items():
        if name in settings(kind) and name != LISTS:
            main.add_argument(
                flag,
                dest=flag.removeprefix("--"),
                action="append",
                metavar="LIST[,OPTION=VALUE...]",
                help=f"{settings(kind)[name].meaning}; options as for --data",
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
    add_fields(parser, kind)


def run_config(
    kind: type[K], args: argparse.Namespace, *, format: ListFormat, line: str, made_by: str
) -> K:
    """The recipe's configuration with the options that were given.

    Args:
        kind: of the configuration.
        args: what was given.
        format: of lists that say none.
        line, made_by: what a line of a list is like, and the command that makes lists.

    Raises:
        UsageError: unknown recipe, bad option value, or a list that is not there.
    """
    values = given(args, kind)
    for name, flag in LIST_FIELDS.items():
        texts = getattr(args, flag.removeprefix("--"), None)
        if texts:
            values[name] = tuple(parse_source(text, flag, format) for text in texts)
    config = load(kind, args.recipe, values)
    if not config.data.lists:
        raise UsageError(
            f"--data is missing: name at least one list, a text file with a line '{line}' per "
            f"video ({made_by} makes one)"
        )
    for name in LIST_FIELDS.keys() & settings(kind).keys() - values.keys():
        for source in getattr(config.data, name.partition(".")[2]):
            _check_there(source, f"{args.recipe}: {name}")
    return config


def check_output(args: argparse.Namespace) -> Path:
    """The output folder.

    Raises:
        UsageError: none is named, a file stands in its place, or there is no checkpoint to resume.
    """
    if args.output is None:
        raise UsageError("--output is missing: name the folder for checkpoints and metrics")
    output: Path = args.output
    check_folder("--output", output)
    if args.resume not in ("auto", "never") and not Path(args.resume).is_dir():
        raise UsageError(
            f"--resume {args.resume}: no such checkpoint folder; give auto, never, or a folder "
            "like OUTPUT/checkpoints/step-00001000"
        )
    return output


def say(line: str) -> None:
    print(line, flush=True)


def finished(train: Callable[[], Any]) -> int:
    """Trains, and says what checkpoint that left.

    Returns:
        0, or 128 + the number of the signal that stopped the run.
    """
    from videomae_fast.training.errors import InterruptedRunError

    try:
        result = train()
    except InterruptedRunError as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    print(f"checkpoint {result.checkpoint}")
    return 0


def parse_source(text: str, flag: str = "--data", format: ListFormat = "pretrain") -> Source:
    """``LIST[,option=value...]`` as a source. A list's path may have commas, but none of the form
    ``,option=``.

    Args:
        text: as it was given.
        flag: the option that it was given to.
        format: of a list that says none.

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
            raise UsageError(f"{flag} {text}: unknown option {word!r}{hint}")
        try:
            values[BY_OPTION[name].field] = parse(BY_OPTION[name], value)
        except SettingError as error:
            raise UsageError(f"{flag} {text}: {error}") from None
    try:
        source = Source(Path(path), **{"format": format, **values})
    except ValueError as error:
        raise UsageError(f"{flag} {text}: {error}") from None
    _check_there(source, f"{flag} {text}")
    return source


def _check_there(source: Source, named: str) -> None:
    check_list_file(source.path, named)
    if source.root is not None and not source.root.is_dir():
        raise UsageError(f"{named}: root {source.root} is no folder")
