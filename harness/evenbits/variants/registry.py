"""Which text after `--spec` is whose: `int4-g64` is simulated rounding, `NAME:...` belongs to the module of that name.

A new way to differ is a file of its own and a line in `MODULES`. Its module has `parse(text) -> Spec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NoReturn, Protocol, runtime_checkable

from evenbits.errors import GapError, NotApplicableError, SpecError
from evenbits.rows import plain
from evenbits.variants import rounding
from evenbits.variants.quantization.spec import QuantSpec, parse_spec, split_specs
from evenbits.variants.variant import Original, Variant

__all__ = [
    "MODULES",
    "Artefact",
    "Spec",
    "bare",
    "bits_of",
    "facts_of",
    "needs",
    "parse",
    "parse_specs",
    "simulated",
    "variant_of",
]

MODULES: Mapping[str, str] = {
    "bnb": "libraries",
    "checkpoint": "checkpoint",
    "gguf": "gguf",
    "rescale": "altered",
    "rotate": "altered",
    "served": "served",
    "torchao": "libraries",
}
"""Text before the colon -> module of this package; imported when such a spec is named."""

KIND = "artefacts"
DESCRIBED = ("label", "key", "dtype", "divergence", "first_layer", "lean")


@runtime_checkable
class Artefact(Protocol):
    """A spec that is no simulated rounding: something that exists, or another library's work. `str()` round-trips."""

    def variant(self, original: Original) -> Variant:
        """Return what scores; `EvenbitsError` in a sentence where it cannot, before anything is computed."""

    def bits_per_weight(self, original: Original) -> float | None:
        """Return the mean storage of a weight in bits, None where it cannot be known."""

    def facts(self, original: Original) -> Mapping[str, Any]:
        """Return what the report says of it: engine, version, build, census of tensor types; plain JSON."""


Spec = QuantSpec | Artefact


def parse(text: str) -> Spec:
    """Return the spec named by `text`; `SpecError` says what is not understood."""
    name = text.partition(":")[0]
    if name in MODULES:
        spec: Spec = import_module(f"evenbits.variants.{MODULES[name]}").parse(text)
        return spec
    return parse_spec(text)


def parse_specs(text: str) -> tuple[Spec, ...]:
    """Return the specs in `text`, separated by commas outside brackets, each once."""
    return tuple(dict.fromkeys(parse(one) for one in split_specs(text)))


def simulated(spec: Spec, what: str) -> QuantSpec:
    """Return `spec` where weights are rounded here; `NotApplicableError` where `what` would need that and cannot be."""
    if isinstance(spec, QuantSpec):
        return spec
    raise NotApplicableError(
        f"{what} changes which weights are rounded, and {spec} is measured as it is; name a simulated spec such as "
        "int4-g64 to ask this of the model."
    )


def variant_of(spec: Spec, original: Original) -> Variant:
    """Return what scores text under `spec`."""
    if isinstance(spec, QuantSpec):
        return rounding.rounded(spec, original)
    made: list[Variant] = []

    def find() -> Mapping[str, Any]:
        made.append(spec.variant(original))
        return {name: plain(getattr(made[0], name)) for name in DESCRIBED} | {"in_memory": made[0].in_memory}

    known = _known(spec, original, "variant", find)
    if made:
        return made[0]
    how: Mapping[str, Any] = {"change" if known.pop("in_memory") else "runs": _elsewhere}
    return Variant(**known, **how)


def needs(spec: Spec) -> bool:
    """Return whether statistics on probe text are needed before `spec` can be measured."""
    return bool(getattr(spec, "needs", None))


def bare(spec: Spec) -> Spec:
    """Return what `spec` is without kept weights and protection: its grid, of which the noise floor is measured."""
    return spec.base if isinstance(spec, QuantSpec) else spec


def bits_of(spec: Spec, original: Original) -> float | None:
    """Return the mean storage of a linear weight under `spec` in bits, None where it cannot be known."""
    if isinstance(spec, QuantSpec):
        if spec.grid is None:
            raise SpecError(f"{spec}: full precision is what damage is measured against; name a quantized spec")
        return rounding.bits_per_weight(spec, original)
    bits: float | None = _known(spec, original, "storage", lambda: {"bits": spec.bits_per_weight(original)})["bits"]
    return bits


def facts_of(spec: Spec, original: Original) -> Mapping[str, Any]:
    """Return what the report says of an artefact: engine, build, tensor types. Empty for simulated rounding."""
    return {} if isinstance(spec, QuantSpec) else _known(spec, original, "facts", lambda: spec.facts(original))


def _known(spec: Artefact, original: Original, what: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is found out of an artefact; where only measurements are, what the run found out."""
    return original.store.known(KIND, {"text": str(spec), "model": original.local.fingerprint, "what": what}, find)


def _elsewhere(_: object) -> NoReturn:
    raise GapError("a part of the run is missing, and its artefact is not here. Merge all parts.")
