"""Where and with what a report was made. Together with `timing` the only part that two equal runs may differ in."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["PACKAGES", "commit_of", "describe_environment"]

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "statsmodels",
    "datasets",
    "Django",
    "gguf",
    "lm-eval",
    "pytest",
    "pytest-xdist",
)
"""Packages whose version can move a number; they are looked up, not imported."""

CHECKOUT = Path(__file__).resolve().parents[3]
"""Top level of the checkout, where there is one: this file is harness/evenbits/report/environment.py in it."""


def describe_environment(*, seed: int, dtype: str, measured: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the `environment` of the report.

    `measured`: what only the process that loads models knows, such as `device`; its keys are added to the others.
    `commit` and `dirty` are those of the checkout that evenbits runs from, None where it is installed without one.
    """
    commit, dirty = _commit(CHECKOUT)
    return {
        "code": {"version": _version("evenbits"), "commit": commit, "dirty": dirty},
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "device": "cpu",
        "dtype": dtype,
        "seed": seed,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        **(measured or {}),
    }


def commit_of(folder: Path) -> str | None:
    """Return the commit of the repository in which `folder` lies, None where there is none."""
    return _git(folder, "rev-parse", "HEAD")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(root: Path) -> tuple[str | None, bool | None]:
    """Return commit and dirty flag of the checkout whose top level is `root`."""
    if not (root / ".git").exists():  # an installed copy may lie inside somebody else's repository
        return None, None
    commit = commit_of(root)
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit, None if status is None else bool(status)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(root), *arguments],  # noqa: S607 - git from PATH, as the user has it
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
