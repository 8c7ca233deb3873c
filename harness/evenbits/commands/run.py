"""`evenbits run` and `evenbits gate`: pytest on the installed evals, wherever it is started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import typer

from evenbits.commands.options import forwarding
from evenbits.errors import UsageError
from evenbits.paths import INSTALLED_EVALS

__all__ = ["PYTEST_OPTIONS", "gate", "pytest_command", "run"]

EVALS = "evals"
"""How people name the installed evals."""

PYTEST_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""How typer takes the command line of a command whose unknown options are pytest's."""

MODELS = ("reference:", "wheel:")
"""How arguments begin that name a model and cannot be a test."""

WITH_VALUE = (
    *("--deselect", "--ignore", "--ignore-glob", "--junitxml", "--rootdir", "--confcutdir", "--basetemp"),
    *("-c", "-k", "-m", "-o", "-p", "-W"),
)
"""Options of pytest whose value may look like a test and chooses none."""

ELSEWHERE = {
    "--cost": "what a run takes, and its tests, is what --collect-only says; nothing is measured",
    "--json": "a run writes report.json into the folder of --report, with everything that it found",
}
"""Options of other commands, and what does the same here."""

DECIDED, NOTHING_COLLECTED = (0, 1), 5
"""Exit codes of pytest. All but those where its tests ran are 2 here: what was not decided must not look decided."""


@forwarding
def run(typed: list[str], context: typer.Context) -> None:
    """Start pytest on the installed evals; FILE::TEST chooses some of them.

    Options of pytest count as well: -k, -m, -x, -v, --collect-only, -n (with pytest-xdist); `pytest --help` has them.
    """
    _refuse_models(context.args)
    raise typer.Exit(_pytest([*typed, *context.args]))


@forwarding
def gate(typed: list[str], context: typer.Context) -> None:
    """Decide whether a model may ship, by --policy, --baseline or both: `run -m gate`; exit code 1 if it may not.

    Options of pytest count as well: -k, -x, -v, --collect-only, -n (with pytest-xdist); `pytest --help` has them.
    """
    _refuse_models(context.args)
    raise typer.Exit(_pytest(["-m", "gate", *typed, *context.args]))


def _refuse_models(arguments: Sequence[str]) -> None:
    """Raise `UsageError` where a model stands as it does after other commands: pytest would look for a file."""
    for before, one in zip(["", *arguments], arguments, strict=False):
        if one.startswith(MODELS) and not before.startswith("-") and not Path(one).exists():
            raise UsageError(f"{one} is no file of evals; name a model with --model {one}")


def _pytest(arguments: list[str]) -> int:
    """Run pytest on the evals installed with this package and return our exit code."""
    _refuse_what_pytest_lacks(arguments)
    evals = _package(INSTALLED_EVALS)
    inside, chosen = [], False
    for before, one in zip(["", *arguments], arguments, strict=False):
        inside.append(_inside(evals, one) if before not in WITH_VALUE or before == "--ignore" else one)
        chosen = chosen or (inside[-1] != one and before not in WITH_VALUE)
    command = pytest_command(inside if chosen else [str(evals), *inside])
    # what lies in the folder at hand must not be imported in place of a module of Python's
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    code = subprocess.run(command, check=False, env=environment).returncode  # noqa: S603 - our own interpreter
    if code == NOTHING_COLLECTED:
        typer.secho("evenbits: no test was selected, so nothing was decided.", err=True, fg="red")
    return code if code in DECIDED else 2


def _refuse_what_pytest_lacks(arguments: Sequence[str]) -> None:
    """Raise `UsageError` for options that are known from elsewhere: pytest would call them unrecognized."""
    for one in arguments:
        name = one.partition("=")[0]
        if name in ELSEWHERE:
            raise UsageError(ELSEWHERE[name])
        if re.fullmatch("-n[0-9]*|--numprocesses|--dist", name) and find_spec("xdist") is None:
            raise UsageError(f'{one} needs pytest-xdist: pip install "evenbits[xdist]"')


def pytest_command(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs pytest with `arguments`; `evenbits.evals/...` are the installed evals.

    Settings of those come from a file of ours: pytest would otherwise look for one above the evals and above every path
    among the arguments, and take over the settings of whatever project this environment happens to live in.
    """
    evals, plugins = _package(INSTALLED_EVALS), _package("evenbits.plugins")
    placed = [
        f"{evals}{one.removeprefix(INSTALLED_EVALS)}" if one.partition("/")[0] == INSTALLED_EVALS else one
        for one in arguments
    ]
    command = [sys.executable, "-m", "pytest", "-p", "evenbits.plugins", "-p", "no:cacheprovider"]
    if any(one.startswith(str(evals)) for one in placed):
        command += ["-c", str(plugins / "evals.ini"), f"--rootdir={evals}"]
    return [*command, *placed]


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"the package `{name}` is not installed: install evenbits again")
    return Path(next(iter(spec.submodule_search_locations)))


def _inside(evals: Path, argument: str) -> str:
    """Return `evals`, or `test_x.py[::case]` with or without `evals/` before it, as a path of the installed evals."""
    file, _, case = argument.partition("::")
    if file == EVALS:
        return str(evals)
    path = evals / Path(file).name
    if not file.endswith(".py") or not path.is_file():
        return argument
    return f"{path}::{case}" if case else str(path)
