"""What a run was asked, in a form that another process can be asked again: which tests, which options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .options import settings

__all__ = ["chosen_tests", "stated_options"]

EVALS = "evals"

RUNNING = frozenset({"runner", "ray-address", "stream-layers"})
ELSEWHERE = frozenset({"report", "store", "saved", "autosave", "offline", "shard", "policy", "baseline"}) | RUNNING
"""Options that say where things are, or how they are computed; a merge is told its own."""


def chosen_tests(config: pytest.Config) -> tuple[str, ...]:
    """Return pytest's arguments that choose tests: paths, of installed evals from `evals/` on, then -m and -k."""
    installed = Path(str(config.rootpath))
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


def _portable(argument: str, evals: Path, here: Path) -> str:
    """Return a path and what stands after it: of installed evals as `evals/...`, else from where pytest started."""
    place, colons, case = argument.partition("::")
    path = (here / place).resolve()
    if evals.name == EVALS and path.is_relative_to(evals):
        shown = str(Path(EVALS) / path.relative_to(evals))
    else:
        shown = str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
    return f"{shown}{colons}{case}"
