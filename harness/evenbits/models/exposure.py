"""Training exposure: how many bytes of each language a model was shown, where that is known exactly.

A file `exposure.json` beside the weights says so, `{"de": 400026, "ga": 12011}`: UTF-8 bytes of training text by
language tag. Models of the reference family carry one; anybody who trained a model can write one for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from evenbits.errors import EvenbitsError, ModelError
from evenbits.foreign import read_json, shown
from evenbits.text.languages import normalise

__all__ = ["FILE", "read_exposure", "trained_languages"]

FILE = "exposure.json"


def read_exposure(folder: Path) -> Mapping[str, int] | None:
    """Return training bytes by normalised language tag, or None where the folder has no `exposure.json`.

    Raises `ModelError` naming file and entry for anything else than an object of whole numbers, 0 or more, and for two
    spellings of one language.
    """
    file = folder / FILE
    if not file.exists():
        return None
    found = read_json(file, error=lambda what: ModelError(f"{what}; mend it, or remove it if exposure is not known"))
    if not isinstance(found, dict) or not found:
        raise ModelError(f'{file} must map language tags to training bytes, such as {{"de": 400000, "ga": 12000}}.')
    exposure: dict[str, int] = {}
    for tag, amount in found.items():
        if isinstance(amount, bool) or not isinstance(amount, int) or amount < 0:
            raise ModelError(f"{file}: {tag} has {shown(amount)}; training bytes are a whole number, 0 or more.")
        try:
            known = normalise(tag)
        except EvenbitsError as error:
            raise ModelError(f"{file}: {error}") from error
        if known in exposure:
            raise ModelError(f"{file} has {known} twice; one of the spellings is {tag!r}.")
        exposure[known] = amount
    return MappingProxyType(exposure)


def trained_languages(exposures: Iterable[Mapping[str, int] | None]) -> tuple[str, ...] | None:
    """Return the languages, sorted, that any model of a run was trained on; None unless all models say theirs.

    Any, not every: an early checkpoint has not met all languages of its run yet, and must not take them from the rest.
    """
    known = list(exposures)
    if not known or any(exposure is None for exposure in known):
        return None
    shown = {tag for exposure in known if exposure is not None for tag, amount in exposure.items() if amount > 0}
    return tuple(sorted(shown)) or None
