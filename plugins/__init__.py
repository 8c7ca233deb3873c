"""The pytest plugins of the harness, in the order in which they must be registered.

The conftest of a checkout and `evenbits run` both load exactly these. Each one imports only modules that stand before
it, so that pytest can rewrite the assertions of every one of them.
"""

from __future__ import annotations

import gc

import pytest

__all__ = ["PLUGINS", "pytest_addoption"]

PLUGINS: tuple[str, ...] = (
    "evenbits.plugins.options",
    "evenbits.plugins.items",
    "evenbits.plugins.selection",
    "evenbits.fixtures.recording",
    "evenbits.fixtures.storing",
    "evenbits.fixtures.corpora",
    "evenbits.fixtures.models",
    "evenbits.fixtures.activations",
    "evenbits.fixtures.damages",
    "evenbits.fixtures.layers",
    "evenbits.fixtures.retention",
    "evenbits.fixtures.predictions",
    "evenbits.fixtures.resilience",
    "evenbits.fixtures.established",
    "evenbits.fixtures.exposure",
    "evenbits.fixtures.gate_cases",
    "evenbits.fixtures.gate",
    "evenbits.fixtures.preparation",
    "evenbits.fixtures.reach",
    "evenbits.fixtures.cost",
    "evenbits.fixtures.progress",
    "evenbits.plugins.outcomes",
    "evenbits.plugins.results",
    "evenbits.plugins.terminal",
    "evenbits.plugins.order",
)


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the plugins when this module is registered, before any of their options is read.

    A `pytest_plugins` list would do the same, but for each of its names pytest reads the entry points of every
    installed package.
    """
    for name in PLUGINS:
        pluginmanager.import_plugin(name)
    gc.freeze()  # modules stay to the end; pytest has the rest collected several times, these with it otherwise
