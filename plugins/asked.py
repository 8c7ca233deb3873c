"""What a run was asked, in a form that another process can be asked again: which tests, which options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from evenbits.paths import INSTALLED_EVALS, as_typed

from .options import EVALS_INI, settings

__all__ = ["chosen_tests", "stated_options"]

RUNNING = frozenset({"runner", "ray-address", "stream-layers"})
ELSEWHERE = frozenset({"report", "store", "saved", "autosave", "offline", "shard", "policy", "baseline"}) | RUNNING
"""Options that say where things are, or how they are computed; a merge is told its own."""


def chosen_tests(config: pytest.Config) -> tuple[str, ...]:
    """Return pytest's arguments that choose tests: paths (`evenbits.evals/...` if installed), then -m and -k."""
    installed = config.rootpath.resolve() if config.inipath == EVALS_INI else None
    found = [_portable(argument, installed, config.invocation_params.dir) for argument in config.args]
    for flag, value in (("-m", config.option.markexpr), ("-k", config.option.keyword)):
        found += [flag, value] if value else []
    return tuple(found)


def stated_options(config: pytest.Config) -> Mapping[str, Any]:
    """Return the options that were typed or stand in `[tool.evenbits]`, as text, lists of texts or true."""
    chosen = settings(config)
    named: dict[str, Any] = {
        "model": [one.text for one in chosen.models],
        "spec": [str(one) for one in chosen.specs],
        "tasks": ",".join(chosen.tasks) or None,
        "family": None if chosen.family is None else chosen.family.name,
    }
    return {
        name: value if isinstance(value, bool | list) else str(value)
        for name in sorted(chosen.stated - ELSEWHERE)
        if (value := named[name] if name in named else getattr(chosen, name.replace("-", "_"))) is not None
        and value is not False
    }


def _portable(argument: str, installed: Path | None, here: Path) -> str:
    """Return a path and what stands after it: that of `installed` evals by their package, else from `here`."""
    place, colons, case = argument.partition("::")
    path = (here / place).resolve()
    if installed is not None and path.is_relative_to(installed):
        shown = (INSTALLED_EVALS / path.relative_to(installed)).as_posix()
    else:
        shown = str(as_typed(path, here))
    return f"{shown}{colons}{case}"
