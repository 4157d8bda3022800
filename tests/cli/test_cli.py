"""The command line itself: help, laziness, exit codes, messages."""

from __future__ import annotations

import argparse
import subprocess
import sys
import types

import pytest

from tests.support.processes import run_python
from videomae_fast import cli
from videomae_fast.errors import UsageError, VideoMAEFastError


def test_help_lists_every_command_without_importing_torch() -> None:
    done = run_python(
        "import sys; from videomae_fast.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'numpy', 'av', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    assert done.stdout.endswith("0 []\n"), done.stdout + done.stderr
    for name in ("pretrain", "probe", "prepare", "reconstruct", "flops", "doctor", "demo"):
        assert f"\n    {name} " in done.stdout or f"\n    {name}\n" in done.stdout
    assert "examples:" in done.stdout


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_of_a_command_has_examples_that_parse(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: videomae-fast {name}" in shown
    assert "examples:" in shown
    for line in cli.COMMANDS[name].examples.replace("\\\n", " ").splitlines():
        words = line.split()
        command = words[words.index(name) :]
        if "--help" in command or ">" in command:
            continue
        parser, subparsers = cli.build_parser()
        module = __import__(cli.COMMANDS[name].module, fromlist=["add_arguments"])
        module.add_arguments(subparsers[name])
        _, unknown = parser.parse_known_args(command)
        assert unknown == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("videomae-fast ")


def test_no_command_shows_the_help_and_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["pretrian"], "no command 'pretrian'; did you mean pretrain?"),
        (["xyz"], f"no command 'xyz'; there are {', '.join(cli.COMMANDS)}"),
        (["doctor", "--jsno"], "unknown argument '--jsno'; did you mean --json?"),
        (["doctor", "--js"], "unknown argument '--js'; did you mean --json?"),
        (["reconstruct", "only-one"], "video, --output"),
    ],
)
def test_wrong_use_is_one_sentence_with_a_remedy(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "--help)" in shown
    assert shown.count("\n") == 1


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[BaseException]:
    """`doctor` raises whatever is put into its `error`."""

    class Box(BaseException):
        error: BaseException

    def run(args: argparse.Namespace) -> int:
        raise Box.error

    module = types.ModuleType("failing")
    module.add_arguments = lambda parser: None  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "videomae_fast.cli.doctor", module)
    return Box


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VideoMAEFastError("the disk is on fire: put it out"), 1),
        (UsageError("--ratio 3 is not between 0 and 1"), 2),
        (FileNotFoundError(2, "No such file or directory", "list.csv"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_expected_errors_end_with_their_message_and_code(
    error: BaseException,
    code: int,
    failing: type[BaseException],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing.error = error  # type: ignore[attr-defined]
    assert cli.main(["doctor"]) == code
    shown = capsys.readouterr().err
    assert shown.startswith("videomae-fast doctor: ")
    assert "Traceback" not in shown
    if str(error):
        assert str(error) in shown


@pytest.mark.parametrize("argv", [["--debug", "doctor"], ["doctor", "--debug"]])
def test_debug_shows_the_traceback(
    argv: list[str], failing: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = VideoMAEFastError("a sentence")  # type: ignore[attr-defined]
    assert cli.main(argv) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_bug_is_not_dressed_up_as_an_error_of_the_user(failing: type[BaseException]) -> None:
    failing.error = ZeroDivisionError()  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "videomae_fast", "nothing"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "no command 'nothing'" in done.stderr
