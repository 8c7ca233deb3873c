"""The pytest plugins of the harness, in the order in which they must be registered.

The conftest of a checkout and `evenbits run` both load exactly these. Each one imports only modules that stand before
it, so that pytest can rewrite the assertions of every one of them.
"""

from __future__ import annotations

import pytest

__all__ = ["PLUGINS", "pytest_addoption"]

PLUGINS: tuple[str, ...] = (
    "plugins.options",
    "plugins.items",
    "plugins.selection",
    "fixtures.recording",
    "fixtures.progress",
    "fixtures.corpora",
    "fixtures.models",
    "fixtures.activations",
    "fixtures.damages",
    "fixtures.layers",
    "fixtures.retention",
    "fixtures.predictions",
    "fixtures.resilience",
    "fixtures.established",
    "fixtures.over_models",
    "fixtures.gate",
    "fixtures.preparation",
    "fixtures.cost",
    "plugins.outcomes",
    "plugins.results",
    "plugins.terminal",
    "plugins.order",
)


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the plugins when this module is registered, before any of their options is read.

    A `pytest_plugins` list would do the same, but for each of its names pytest reads the entry points of every
    installed package.
    """
    for name in PLUGINS:
        pluginmanager.import_plugin(name)
