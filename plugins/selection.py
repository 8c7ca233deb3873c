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
    return [chosen.summary(), *([] if whole else [chosen.left_out()])]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the eval modules that the family does not name, unless files were named on the command line."""
    chosen = _family(config)
    if chosen is None or not chosen.tests or any(".py" in argument for argument in config.args):
        return
    spare = [item for item in items if belongs(item) and item.path.name not in chosen.tests]
    if spare:
        config.hook.pytest_deselected(items=spare)
        items[:] = [item for item in items if item not in set(spare)]


def _family(config: pytest.Config) -> Family | None:
    try:
        return settings(config).family if config.getoption("evenbits_family", None) else None
    except EvenbitsError:
        return None  # said elsewhere, with exit code 2
