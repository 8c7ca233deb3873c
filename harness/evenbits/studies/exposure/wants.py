"""What the effect of exposure takes of a model: damage at 4, 3 and 2 bits, and in two formats of llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping

from evenbits.cells import Subject, variant_cells
from evenbits.errors import EvenbitsError
from evenbits.models.references import reference_name
from evenbits.studies.study import Inputs, Wants
from evenbits.variants.registry import Spec, parse, variant_of

__all__ = ["MIRRORED", "SPECS", "compared", "exposure_tables", "specs_of", "takes_part"]

SPECS = ("int4-g64", "int3-row", "int2-row", "gguf:Q4_K_M", "gguf:Q2_K")
"""From hardly any damage to ruin, in grids of our own and as files have them."""

MIRRORED = ("a1", "a1r", "a2", "a2r")
"""Of the reference family: trained alike but for what was dealt to which language, high and low exchanged in pairs.

Its other recipes change more than exposure.
"""


def takes_part(subject: Subject) -> bool:
    """Return whether exposure is known of a model, and is what tells it from the others."""
    name = reference_name(subject.local.text)
    return subject.local.exposure is not None and (name is None or name in MIRRORED)


def specs_of(subject: Subject) -> tuple[tuple[Spec, ...], dict[str, str]]:
    """Return the specs that can be measured on a model here, and why the others cannot, by text."""
    able: list[Spec] = []
    unable: dict[str, str] = {}
    for text in SPECS:
        try:
            spec = parse(text)
            variant_of(spec, subject)
            able.append(spec)
        except EvenbitsError as error:  # an engine that is not installed, rows too narrow
            unable[text] = str(error)
    return tuple(able), unable


def compared(tier: Mapping[str, str]) -> tuple[str, ...]:
    """Return the languages of which a model was shown little or much: they can be low here and high there."""
    return tuple(tag for tag, level in tier.items() if level in {"low", "high"})


def exposure_tables(given: Inputs) -> Wants:
    """Damage of the languages that are compared under each of `SPECS`, of the models that take part."""
    if not takes_part(given.subject):
        return Wants()
    part = given.corpus.select(languages=compared(given.tier))
    variants = [variant_of(spec, given.subject) for spec in specs_of(given.subject)[0]]
    return Wants(cells=tuple(cell for one in variants for cell in variant_cells(given.subject, one, part)))
