"""Command-line options made of the fields that :mod:`videomae_fast.recipes` declares."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from videomae_fast.errors import UsageError
from videomae_fast.recipes.fields import Config, Setting, SettingError, sections, settings
from videomae_fast.recipes.load import parse, parse_set
from videomae_fast.recipes.plain import LIST_FIELDS

if TYPE_CHECKING:
    import torch

_METAVARS: Final[dict[Any, str]] = {int: "N", float: "X", str: "NAME", Path: "PATH"}


def add_fields(parser: argparse.ArgumentParser, kind: type[Config]) -> None:
    """An option for each field, in a group for each section, and ``--set`` for all of them.

    They set nothing where they are not given, so that the recipe's value stands.
    """
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field by its dotted name, as in optim.base_lr=1e-3; repeat it for several",
    )
    for name, section in sections(kind).items():
        title = (section.__doc__ or name).strip().splitlines()[0]
        group = parser.add_argument_group(
            name, f"{title} Also as --set {name}.NAME=VALUE; defaults are the recipe's."
        )
        for setting in settings(kind).values():
            if setting.section == name and setting.name not in LIST_FIELDS:
                add_field(group, setting)


def add_field(group: argparse._ActionsContainer, setting: Setting) -> None:
    """The option of one field, which sets nothing where it is not given."""
    group.add_argument(
        setting.flag,
        dest=setting.name,
        default=argparse.SUPPRESS,
        help=help_of(setting),
        **_how_read(setting),
    )


def add_default(
    group: argparse._ActionsContainer, setting: Setting, flag: str = "", **more: Any
) -> None:
    """The option of one field for a command without a recipe: its default stands and is shown.

    Args:
        flag: its name where that is another than a recipe's.
        more: for ``add_argument``, in place of what the field says.
    """
    group.add_argument(
        flag or setting.flag,
        **{
            "default": setting.default,
            "help": f"{setting.meaning} (default: {_shown(setting.default)})".replace("%", "%%"),
            **_how_read(setting),
            **more,
        },
    )


def _shown(value: Any) -> str:
    return {None: "none", True: "yes", False: "no"}.get(value, str(value))


def help_of(setting: Setting) -> str:
    """What ``--help`` says of a field; argparse reads % as its own."""
    said = setting.meaning
    if setting.flat != setting.field:
        said += f" ({setting.name})"
    return said.replace("%", "%%")


def given(args: argparse.Namespace, kind: type[Config]) -> dict[str, Any]:
    """The values of the fields that were given, by dotted name.

    Raises:
        UsageError: a field twice, by its option and by ``--set``; or a bad ``--set``.
    """
    found = {name: getattr(args, name) for name in settings(kind) if hasattr(args, name)}
    found = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    for text in args.set:
        try:
            name, value = parse_set(kind, text)
        except SettingError as error:
            raise UsageError(f"--set {text}: {error}") from None
        if hasattr(args, name):
            flag = settings(kind)[name].flag
            raise UsageError(f"--set {text} and {flag} are the same field: give one of them")
        found[name] = value
    return found


def described(settings: Iterable[Setting]) -> str:
    """Fields by their short names with what they mean, as one text."""
    return "; ".join(f"{one.flat}: {one.meaning}" for one in settings)


def _how_read(setting: Setting) -> dict[str, Any]:
    if setting.choices is not None:
        return {"choices": setting.choices}
    kinds = setting.plain_kinds
    if kinds == (bool,):
        return {"action": argparse.BooleanOptionalAction}
    if len(kinds) == 1 and typing.get_origin(kinds[0]) is tuple:
        inner = typing.get_args(kinds[0])
        return {"nargs": len(inner), "type": inner[0], "metavar": _METAVARS[inner[0]]}
    metavar = "N[xN]" if len(kinds) > 1 else _METAVARS[kinds[0]]
    return {"type": _reader(setting), "metavar": metavar}


def _reader(setting: Setting) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return parse(setting, text)
        except SettingError as error:
            told = str(error).removeprefix(f"{setting.name} ")  # argparse names the option
            raise argparse.ArgumentTypeError(told) from None

    return read


def device_named(name: str) -> torch.device:
    """What "auto", "cpu" or "cuda" of a --device is here.

    Raises:
        UsageError: a GPU is asked for, and there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here (videomae-fast doctor says why)")
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")
