"""Fixtures of ours that a project's own hide: `model` in its conftest is what all that evenbits measures would get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from evenbits.paths import as_typed

__all__ = ["definitions_of", "hidden", "is_ours"]

HIDDEN = (
    "the fixture `{name}` of {file} hides the one of evenbits that `{asking}` asks for: rename it. If it is to stand "
    "for ours, write what it gives: `def {name}(...) -> {gives}`."
)


def definitions_of(item: pytest.Item) -> Mapping[str, Sequence[Any]]:
    """Return the definitions of the fixtures that `item` gets, by name; the last of each counts.

    pytest has no public way to ask where a fixture comes from, and its name alone would catch other people's tests.
    """
    return getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})


def is_ours(definition: Any, *, package: str = "evenbits.") -> bool:
    """Whether a fixture comes from `package`."""
    return str(getattr(definition.func, "__module__", "")).startswith(package)


def hidden(item: pytest.Item) -> str | None:
    """Return a sentence about a fixture of ours that one of ours would ask for in vain, None where there is none."""
    found = {name: several for name, several in definitions_of(item).items() if several}
    for name, several in found.items():
        own = next((one for one in several if is_ours(one)), None)
        active = several[-1]
        if own is None or is_ours(active) or _gives(active) == _gives(own):
            continue
        for asking, (*_, one) in found.items():
            if is_ours(one) and name in one.argnames:
                file = Path(active.func.__code__.co_filename)
                shown = as_typed(file, item.config.invocation_params.dir)
                return HIDDEN.format(name=name, file=shown, asking=asking, gives=_gives(own))
    return None


def _gives(definition: Any) -> str:
    """Return the name of what a fixture says it gives, without the modules before it."""
    said = getattr(definition.func, "__annotations__", {}).get("return", "")
    return (said if isinstance(said, str) else getattr(said, "__name__", str(said))).rpartition(".")[2]
