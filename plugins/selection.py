"""What `--family NAME` runs: its eval modules, and what its defaults leave out, said before anything is measured."""

from __future__ import annotations

import pytest

from harness.errors import EvenbitsError
from plugins.families import Family
from plugins.items import belongs
from plugins.options import settings

__all__: list[str] = []


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what the family is and how much of the text it takes."""
    chosen = _family(config)
    if chosen is None:
        return []
    whole = settings(config).full or config.getoption("evenbits_segments", None) is not None
    notes = [] if whole else [chosen.left_out()]
    return [chosen.summary(), *notes, *([chosen.in_focus()] if _focused(config, chosen) else [])]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the eval modules that the family does not name, unless files were named, and models out of focus."""
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
        )
    ]
    if spare:
        config.hook.pytest_deselected(items=spare)
        items[:] = [item for item in items if item not in set(spare)]


def _focused(config: pytest.Config, chosen: Family) -> bool:
    """Whether evals of a single model are kept to the family's focus: models named by the user are all measured."""
    return bool(chosen.focus) and not settings(config).full and not config.getoption("evenbits_model", None)


def _beside(item: pytest.Item, chosen: Family) -> bool:
    asked: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return "model" in asked and getattr(asked["model"], "text", None) not in chosen.focus


def _family(config: pytest.Config) -> Family | None:
    try:
        return settings(config).family if config.getoption("evenbits_family", None) else None
    except EvenbitsError:
        return None  # said elsewhere, with exit code 2
