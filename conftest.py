"""Loads the harness's plugins for a checkout, wherever pytest was started and whatever it takes for its rootdir."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent)
if ROOT not in sys.path:  # the packages of this checkout, also where it is not installed
    sys.path.insert(0, ROOT)

pytest_plugins = ["pytester", "plugins.loading"]
