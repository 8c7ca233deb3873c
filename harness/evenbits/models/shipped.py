"""The reference family: models that ship with evenbits, as data.

Whoever installs them declares where they lie, in the entry point `reference` of the group `evenbits.models`: a package
whose folder `models` holds a folder per model. An installation may lack them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from evenbits.errors import ModelError
from evenbits.models.references import ModelRef, parse_model

__all__ = ["expand", "reference_names", "reference_root"]

GROUP, NAME = "evenbits.models", "reference"


def reference_root() -> Path | None:
    """Return the folder of the reference models, or None where they are not installed."""
    for declared in entry_points(group=GROUP, name=NAME):
        spec = find_spec(declared.value)
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            if (root := Path(place) / "models").is_dir():
                return root
    return None


def reference_names(root: Path | None) -> tuple[str, ...]:
    """Return the names of the reference models below `root`, sorted."""
    if root is None or not root.is_dir():
        return ()
    return tuple(sorted(path.name for path in root.iterdir() if (path / "config.json").is_file()))


def expand(refs: Sequence[ModelRef], *, root: Path | None = None) -> tuple[ModelRef, ...]:
    """Return `refs` with `reference` replaced by every reference model, each model once, in order.

    `root`: folder of the reference models, by default that of this installation. `ModelError` where it has none.
    """
    found: dict[str, ModelRef] = {}
    for ref in refs:
        if ref.kind == "reference" and not ref.location:
            names = reference_names(reference_root() if root is None else root)
            if not names:
                raise ModelError(
                    "`reference` names the reference family, but no reference model is installed here. Install "
                    "evenbits again."
                )
            found.update((f"reference:{name}", parse_model(f"reference:{name}")) for name in names)
        else:
            found.setdefault(ref.text, replace(ref))
    return tuple(found.values())
