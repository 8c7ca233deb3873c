"""Function-preserving changes as variants: `rotate:SPEC` and `rescale:CHANNELSxDOSE:SPEC`, rounded as SPEC says.

What the model computes stays equal, so whatever damage differs from SPEC's own is the doing of where its weights lie:
`rotate:int4-g64` turns the residual stream by a random rotation that mixes outliers into all directions;
`rescale:16x64:int4-row` makes the weights that 16 random channels of each MLP meet in its output product 64 times as
large, outliers that widen the grid of every row. The seed draws rotation and channels. Scored in float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from evenbits.errors import SpecError
from evenbits.variants import rounding
from evenbits.variants.quantization.spec import QuantSpec, parse_spec
from evenbits.variants.variant import Original, Variant

if TYPE_CHECKING:
    from torch import Tensor

    from evenbits.models.records import LoadedModel
    from evenbits.variants.interventions import Channels, Into

__all__ = ["Rescaled", "Rotated", "parse", "rescaled_weights", "rescaling"]

Alter = Callable[["LoadedModel"], Mapping[str, "Tensor"]]

SCHEMA = 1
"""Raised whenever the same text would give other weights."""

RESCALE = re.compile(r"(?P<channels>[1-9][0-9]{0,5})x(?P<dose>[0-9]{1,4}(?:\.[0-9]{1,2})?)")


@dataclass(frozen=True, slots=True)
class _Rounded:
    """What is altered, then rounded as `spec` says: as large as what is rounded alone."""

    spec: QuantSpec

    def bits_per_weight(self, original: Original) -> float:
        return rounding.bits_per_weight(self.spec, original)

    def facts(self, _original: Original) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class Rotated(_Rounded):
    """`rotate:SPEC`. For llama-like models whose norms have a gain that folds into what reads them."""

    def __str__(self) -> str:
        return f"rotate:{self.spec}"

    def variant(self, original: Original) -> Variant:
        """Return the variant; `ModelError` for an architecture through which a rotation does not pass."""
        from evenbits.variants.interventions.shape import ROTATABLE

        _refuse_other_architectures(original, ROTATABLE, "rotating")
        alter = partial(_rotated, seed=original.seed)
        return _altered(str(self), {"seed": original.seed}, alter, self.spec, original)


@dataclass(frozen=True, slots=True)
class Rescaled(_Rounded):
    """`rescale:CHANNELSxDOSE:SPEC`: so many random channels of each MLP, their outliers in columns of its output."""

    channels: int
    dose: float

    def __str__(self) -> str:
        return f"rescale:{self.channels}x{self.dose:g}:{self.spec}"

    def variant(self, original: Original) -> Variant:
        """Return the variant; `ModelError` where rescaling would change what the architecture computes."""
        from evenbits.variants.interventions.shape import SCALABLE

        _refuse_other_architectures(original, SCALABLE, "rescaling")
        return _altered(
            str(self), {"seed": original.seed}, partial(self._weights, seed=original.seed), self.spec, original
        )

    def _weights(self, loaded: LoadedModel, *, seed: int) -> Mapping[str, Tensor]:
        from evenbits.variants.interventions import random_channels
        from evenbits.variants.interventions.shape import SCALABLE, llama_shape

        config = loaded.model.config
        size = int(config.intermediate_size)
        if self.channels > size:
            raise SpecError(f"{self}: the MLPs of {loaded.local.text} have {size} channels")
        shape = llama_shape(loaded.anatomy, config, needs=SCALABLE, what="rescaling")
        chosen = random_channels(shape, self.channels, size, rng=np.random.default_rng(seed))
        return rescaled_weights(loaded, channels=chosen, dose=self.dose, into="consumer")


def parse(text: str) -> Rotated | Rescaled:
    """Return the spec named by `text`; `SpecError` says what is not understood."""
    kind, _, rest = text.partition(":")
    if kind == "rotate":
        return Rotated(_rounding(rest, text))
    how, _, spec = rest.partition(":")
    match = RESCALE.fullmatch(how)
    if match is None or not float(match["dose"]) > 0:
        raise SpecError(f"{text}: after rescale: comes CHANNELSxDOSE:SPEC, such as rescale:16x64:int4-row")
    return Rescaled(_rounding(spec, text), int(match["channels"]), float(match["dose"]))


def rescaling(original: Original, spec: QuantSpec, *, channels: Channels, dose: float, into: Into) -> Variant:
    """Return the variant in which chosen `channels` are rescaled and then rounded; see `interventions.rescaled`."""
    places = {"mlp": channels.mlp, "value": channels.value}
    key = {"into": into, "dose": dose} | {
        kind: {str(layer): some.tolist() for layer, some in by_layer.items()} for kind, by_layer in places.items()
    }
    change = partial(rescaled_weights, channels=channels, dose=dose, into=into)
    return _altered(f"{spec} at dose {dose:g}, {into}", key, change, spec, original)


def _rounding(text: str, whole: str) -> QuantSpec:
    spec = parse_spec(text)
    if spec.grid is None or spec.needs or spec.include:
        raise SpecError(
            f"{whole}: name a grid for the linear layers, such as int4-g64, without statistics of channels and without "
            "embeddings: the change moves both"
        )
    return spec


def _refuse_other_architectures(original: Original, allowed: frozenset[str], what: str) -> None:
    from evenbits.models.layout import anatomy_of
    from evenbits.models.outline import outline
    from evenbits.variants.interventions.shape import llama_shape

    model = outline(original.local.folder, allow_code=original.local.allow_code)
    llama_shape(anatomy_of(model), model.config, needs=allowed, what=what)


def _altered(label: str, key: Mapping[str, Any], alter: Alter, spec: QuantSpec, original: Original) -> Variant:
    """Return the variant of the original with the weights that `alter` gives, rounded as `spec` says."""

    @contextmanager
    def change(loaded: LoadedModel) -> Iterator[None]:
        from evenbits.variants.quantization.patching import checkpoint_source, patched, quantized

        weights = alter(loaded)
        stored = checkpoint_source(loaded)

        def source(name: str) -> Tensor:
            full = f"{name}.weight"
            return loaded.anatomy.product(name).matrix(weights[full]).float() if full in weights else stored(name)

        with patched(loaded, weights), quantized(loaded, spec, seed=original.seed, source=source):
            yield

    drawn = {"seed": original.seed} if spec.is_drawn else {}
    return Variant(
        label=label, key={"altered": label, "schema": SCHEMA, **key, **drawn}, change=change, dtype="float32"
    )


def _rotated(loaded: LoadedModel, *, seed: int) -> Mapping[str, Tensor]:
    from evenbits.variants.interventions import rotated, weights_of
    from evenbits.variants.interventions.shape import ROTATABLE, llama_shape

    shape = llama_shape(loaded.anatomy, loaded.model.config, needs=ROTATABLE, what="rotating")
    return rotated(weights_of(loaded), shape, rng=np.random.default_rng(seed))[0]


def rescaled_weights(loaded: LoadedModel, *, channels: Channels, dose: float, into: Into) -> Mapping[str, Tensor]:
    """Return the tensors that `interventions.rescaled` changes, by name; load the model in float32."""
    from evenbits.variants.interventions import rescaled, weights_of
    from evenbits.variants.interventions.shape import SCALABLE, llama_shape

    shape = llama_shape(loaded.anatomy, loaded.model.config, needs=SCALABLE, what="rescaling")
    before = weights_of(loaded)
    after = rescaled(before, shape, channels, dose=dose, into=into)
    return {name: tensor for name, tensor in after.items() if tensor is not before[name]}
