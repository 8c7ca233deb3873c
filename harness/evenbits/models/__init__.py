"""Models: named by a user, found on this machine or fetched, checked, fingerprinted, loaded, taken apart by name.

The names below are imported when first used, so that naming a model costs nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenbits.models.anatomy import Anatomy, Block, Linear
    from evenbits.models.families import SUPPORTED
    from evenbits.models.layout import anatomy_of
    from evenbits.models.loading import load
    from evenbits.models.records import LoadedModel, LocalModel
    from evenbits.models.references import ModelRef, parse_model
    from evenbits.models.shipped import expand
    from evenbits.models.sources import resolve

__all__ = [
    "SUPPORTED",
    "Anatomy",
    "Block",
    "Linear",
    "LoadedModel",
    "LocalModel",
    "ModelRef",
    "anatomy_of",
    "expand",
    "load",
    "parse_model",
    "resolve",
]

_HOMES = {
    "SUPPORTED": "families",
    "Anatomy": "anatomy",
    "Block": "anatomy",
    "Linear": "anatomy",
    "LoadedModel": "records",
    "LocalModel": "records",
    "ModelRef": "references",
    "anatomy_of": "layout",
    "expand": "shipped",
    "load": "loading",
    "parse_model": "references",
    "resolve": "sources",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
