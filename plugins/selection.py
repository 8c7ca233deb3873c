"""What `--family NAME` runs: its eval modules, and what its defaults leave out, said before anything is measured."""

from __future__ import annotations

import pytest
from evenbits.errors import EvenbitsError
from evenbits.families import Family

from .items import belongs
from .options import settings

__all__: list[str] = []


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what the family is and how much of the text it takes."""
    chosen = _family(config)
    if chosen is None:
        return []
    whole = settings(config).full or "segments" in settings(config).typed
    notes = [] if whole else [chosen.left_out()]
    focus = [chosen.in_focus()] if _focused(config, chosen) else []
    dear = [chosen.dear()] if _spared(config, chosen) else []
    return [chosen.summary(), *notes, *focus, *dear]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the family does not run by default: other eval modules, models out of focus, tests that cost much.

    Modules and tests named on the command line run.
    """
    chosen = _family(config)
    if chosen is None:
        return
    named = any(".py" in argument for argument in config.args)
    spare = [
        item
        for item in items
        if belongs(item)
        and (
            (bool(chosen.tests) and not named and item.path.name not in chosen.tests)
            or (_focused(config, chosen) and _beside(item, chosen))
            or getattr(item, "originalname", item.name) in _spared(config, chosen)
        )
    ]
    if spare:
        config.hook.pytest_deselected(items=spare)
        items[:] = [item for item in items if item not in set(spare)]


def _focused(config: pytest.Config, chosen: Family) -> bool:
    """Whether evals of a single model are kept to the family's focus: models named by the user are all measured."""
    asked = settings(config)
    return bool(chosen.focus) and not asked.full and "model" not in asked.typed


def _spared(config: pytest.Config, chosen: Family) -> frozenset[str]:
    """Return the tests left out for their cost: none with --full, and none that the command line names."""
    if settings(config).full:
        return frozenset()
    asked = {argument.rpartition("::")[2].partition("[")[0] for argument in config.args if "::" in argument}
    return frozenset(chosen.without) - asked


def _beside(item: pytest.Item, chosen: Family) -> bool:
    asked: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return "model" in asked and getattr(asked["model"], "text", None) not in chosen.focus


def _family(config: pytest.Config) -> Family | None:
    try:
        return settings(config).family if config.getoption("evenbits_family", None) else None
    except EvenbitsError:
        return None  # said elsewhere, with exit code 2
