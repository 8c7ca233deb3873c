"""The oldest versions that pyproject.toml allows, as constraints for pip: `python tests/oldest_versions.py FILE`.

Of what a run imports: the dependencies, and the extras that the default tests and those of backends use. The tools of
development stay as new as there are, and torch stays the pinned one: its older versions come for CUDA alone.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
PINNED = Path(__file__).parents[1] / "constraints.txt"


def oldest() -> list[str]:
    """Return `name==version` of each requirement, the version being its lower bound."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def needed(texts: Iterable[str]) -> Iterator[Requirement]:
        for one in map(Requirement, texts):
            if one.name != "evenbits":
                yield one
            for extra in sorted(one.extras if one.name == "evenbits" else ()):
                yield from needed(extras[extra])

    tested = [text for text in extras["dev"] if Requirement(text).name == "evenbits"]
    requirements = needed([*project["dependencies"], *tested, "evenbits[backends]"])
    pins = {one.name: next(bound.version for bound in one.specifier if bound.operator == ">=") for one in requirements}
    lines = PINNED.read_text(encoding="utf-8").splitlines()
    pins["torch"] = next(line.partition("==")[2] for line in lines if line.startswith("torch=="))
    return [f"{name}=={version}" for name, version in pins.items()]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(oldest()) + "\n", encoding="utf-8")
