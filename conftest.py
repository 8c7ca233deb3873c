"""Loads the plugin of evenbits for this checkout, which has to be installed: `pip install -e .[dev]`, or tox."""

from __future__ import annotations

pytest_plugins = ["pytester", "evenbits.plugins"]
