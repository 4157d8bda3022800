"""What the commands that train have in common: recipe, lists, output, and fields as options."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from videomae_fast.cli.list_options import check_folder, check_list_file
from videomae_fast.cli.options import add_fields, described, given
from videomae_fast.errors import UsageError, did_you_mean
from videomae_fast.recipes.box_source import BOXES_BY_OPTION, BoxSource
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.detection import DetectConfig
from videomae_fast.recipes.fields import Config, SettingError, settings
from videomae_fast.recipes.load import load, parse
from videomae_fast.recipes.plain import LIST_FIELDS, LISTS, from_plain, source_kind
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.recipes.source import BY_OPTION, ListFormat, Source

K = TypeVar("K", bound=PretrainConfig | FinetuneConfig | DetectConfig)
OPTIONS: Final = {Source: BY_OPTION, BoxSource: BOXES_BY_OPTION}
"""The options of lists, by what they are lists of."""


def add_run_arguments(
    parser: argparse.ArgumentParser,
    kind: type[PretrainConfig | FinetuneConfig | DetectConfig],
    recipe: str,
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
        f"{described(OPTIONS[lists_of(kind)].values())}".replace("%", "%%"),
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


def lists_of(kind: type[Config]) -> type[Source] | type[BoxSource]:
    """What the lists of a configuration are."""
    found = source_kind(settings(kind)[LISTS])
    assert found is not None
    return found


def run_config(
    kind: type[K], args: argparse.Namespace, *, format: ListFormat | None, line: str, of: str
) -> K:
    """The recipe's configuration with the options that were given.

    Args:
        kind: of the configuration.
        args: what was given.
        format: of lists that say none; None leaves it to the list.
        line, of: what a line of a list is like, and what it stands for, with how lists are made.

    Raises:
        UsageError: unknown recipe, bad option value, or a list that is not there.
    """
    values = given(args, kind)
    for name, flag in LIST_FIELDS.items():
        texts = getattr(args, flag.removeprefix("--"), None)
        if texts:
            lists = lists_of(kind)
            values[name] = tuple(parse_list(text, lists, flag, format) for text in texts)
    config = load(kind, args.recipe, values)
    if not config.data.lists:
        raise UsageError(
            f"--data is missing: name at least one list, a text file with a line '{line}' per {of}"
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


def run_of(path: Path, kind: type[K]) -> K | None:
    """The configuration of the run of this kind that weights lie in, or None."""
    for folder in (path, *path.absolute().parents[:3]):
        file = folder / "config.json"
        if file.is_file() and (folder / "checkpoints").is_dir():
            try:
                return from_plain(kind, json.loads(file.read_text(encoding="utf-8")))
            except ValueError:  # of another task
                return None
    return None


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
    if os.environ.get("RANK", "0") == "0":  # one of several processes is enough
        print(f"checkpoint {result.checkpoint}")
    return 0


def parse_source(text: str, flag: str = "--data", format: ListFormat = "pretrain") -> Source:
    """``LIST[,option=value...]`` as a list of videos; see :func:`parse_list`."""
    source = parse_list(text, Source, flag, format)
    assert isinstance(source, Source)
    return source


def parse_list(
    text: str, kind: type[Source] | type[BoxSource], flag: str, format: str | None
) -> Any:
    """``LIST[,option=value...]`` as a source. A list's path may have commas, but none of the form
    ``,option=``.

    Args:
        text: as it was given.
        kind: what it is a list of.
        flag: the option that it was given to.
        format: of a list that says none.

    Raises:
        UsageError: an unknown option, a value that can't be, or no such list.
    """
    options = OPTIONS[kind]
    path, *words = text.split(",")
    while words and "=" not in words[0]:  # commas of the path
        path += f",{words.pop(0)}"
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in options or not equals:
            hint = did_you_mean(name, options) or f"; known: {', '.join(options)}"
            raise UsageError(f"{flag} {text}: unknown option {word!r}{hint}")
        try:
            values[options[name].field] = parse(options[name], value)
        except SettingError as error:
            raise UsageError(f"{flag} {text}: {error}") from None
    try:
        source = kind(Path(path), **{"format": format, **values})
    except ValueError as error:
        raise UsageError(f"{flag} {text}: {error}") from None
    _check_there(source, f"{flag} {text}")
    return source


def _check_there(source: Source | BoxSource, named: str) -> None:
    check_list_file(source.path, named, stores=isinstance(source, Source))
    for name in ("proposals", "exclusions"):
        file = getattr(source, name, None)
        if file is not None and not file.is_file():
            raise UsageError(f"{named}: {name} {file} is no file")
    if source.root is not None and not source.root.is_dir():
        raise UsageError(f"{named}: root {source.root} is no folder")
