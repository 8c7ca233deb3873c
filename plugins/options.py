"""Command line options, markers, and the settings that follow from them.

Options and their checks are `evenbits.settings.OPTIONS`, which the commands have too. `settings(config)` is computed
once per session. What cannot be understood ends the run with one sentence, exit code 2 and nothing written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from evenbits.errors import EvenbitsError, UsageError
from evenbits.printable import printable
from evenbits.settings import OPTIONS, Settings, read_settings

__all__ = [
    "EVALS_INI",
    "USAGE",
    "Settings",
    "end_with_usage_error",
    "is_controller",
    "only_fixtures",
    "only_looks",
    "settings",
]

USAGE = 2
"""Exit code for what cannot be understood. pytest's own usage errors give 4; the harness uses one code everywhere."""

EVALS_INI = Path(__file__).with_name("evals.ini")
"""pytest's configuration under `evenbits run`."""

MARKERS = (
    "hypothesis(id): the hypothesis an eval belongs to, such as H-037",
    "criterion: the programme's success threshold; gives the hypothesis its verdict",
    "prediction: the programme's own prediction",
    "robustness(always): a test of our own that the result survives other choices; --robustness or `always` runs it",
    "established: re-measures a finding the programme takes as known",
    "gate: decides whether a deployment may ship",
    "control: shows that the instrument works, on planted and on null effects",
    "slow: takes more than a few seconds",
    "hub: needs the hub or a local copy of its cache",
)

_EXIT: Any = type("evenbits", (pytest.exit.Exception,), {"__module__": "builtins"})
"""What ends a session with a sentence. pytest shows the name of its class before it: `evenbits: ...`."""

_SETTINGS = pytest.StashKey["Settings"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("evenbits", "evenbits: which languages pay when a model is quantized")
    for one in OPTIONS:
        flag, dest = f"--{one.name}", _dest(one.name)
        told = one.help.replace("%", "%%")
        if one.metavar is None:
            group.addoption(flag, dest=dest, default=None, action="store_true", help=told)
        else:
            action = "append" if one.repeatable else "store"
            group.addoption(flag, dest=dest, default=None, action=action, metavar=one.metavar, help=told)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse what cannot be understood before anything is collected, started or written."""
    config = session.config
    if not is_controller(config):
        return
    typed = any(value is not None for value in _typed(config).values())
    # Workers cannot end a run with a sentence, so under xdist the controller checks the defaults too.
    workers = getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None)
    try:
        if typed or workers:
            chosen = settings(config)
            if workers and chosen.runner == "ray":
                raise UsageError("--runner ray brings workers of its own: leave -n out, or take --runner local.")
        else:
            read_settings({}, here=config.invocation_params.dir, folders=_folders(config), names=())
    except EvenbitsError as error:
        # pytest tells why a session ended on standard error, and a second time at the end of its report; there is none.
        config.pluginmanager.unregister(name="terminalreporter")
        end_with_usage_error(error)


def is_controller(config: pytest.Config) -> bool:
    """Return whether this process writes and decides: the only one, or the controller of xdist's workers."""
    return not hasattr(config, "workerinput")


def only_looks(config: pytest.Config) -> bool:
    """Return whether pytest is asked what there is, so that nothing is measured and nothing may be written."""
    return bool(config.option.collectonly) or only_fixtures(config)


def only_fixtures(config: pytest.Config) -> bool:
    """Return whether pytest is asked for fixtures or the order of set-ups, for which nothing need be named."""
    names = ("showfixtures", "show_fixtures_per_test", "setupplan", "setuponly")
    return any(getattr(config.option, name, False) for name in names)


def end_with_usage_error(error: Exception | str) -> NoReturn:
    """End the session with one sentence and exit code 2."""
    raise _EXIT(printable(str(error), lines=True), USAGE)


def settings(config: pytest.Config) -> Settings:
    """Return the checked settings of this session; `EvenbitsError` says in a sentence what cannot be understood."""
    if _SETTINGS not in config.stash:
        here = config.invocation_params.dir
        config.stash[_SETTINGS] = read_settings(_typed(config), here=here, folders=_folders(config))
    return config.stash[_SETTINGS]


@pytest.fixture(scope="session", name="settings")
def settings_fixture(pytestconfig: pytest.Config) -> Settings:
    """The checked options of this run."""
    return settings(pytestconfig)


def _dest(name: str) -> str:
    return f"evenbits_{name}"


def _typed(config: pytest.Config) -> dict[str, object]:
    return {one.name: config.getoption(_dest(one.name), None) for one in OPTIONS}


def _folders(config: pytest.Config) -> list[Path]:
    """Return where `[tool.evenbits]` is searched from: installed evals stand in a folder that says nothing of a run."""
    here = config.invocation_params.dir
    return [here] if config.inipath == EVALS_INI else [here, config.rootpath]
