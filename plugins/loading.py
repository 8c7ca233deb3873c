"""The pytest plugins of the harness, in the order in which they must be registered.

The conftest of a checkout and `evenbits run` both load exactly these. Each one imports only modules that stand before
it, so that pytest can rewrite the assertions of every one of them.
"""

from __future__ import annotations

__all__ = ["PLUGINS", "pytest_plugins"]

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
    "fixtures.gate",
    "fixtures.preparation",
    "fixtures.cost",
    "plugins.outcomes",
    "plugins.results",
    "plugins.terminal",
    "plugins.order",
)

pytest_plugins = list(PLUGINS)
"""Read by pytest when this module itself is loaded as a plugin: `pytest -p plugins.loading`."""
