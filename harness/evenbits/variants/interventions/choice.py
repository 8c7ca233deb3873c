"""Which channels to rescale: at random, or those that one language uses more than the others do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evenbits.errors import UsageError
from evenbits.observe.activations.statistics import ActivationStatistics
from evenbits.variants.interventions.scaling import Channels
from evenbits.variants.interventions.shape import LlamaShape

__all__ = ["distinctive_channels", "random_channels"]


def random_channels(shape: LlamaShape, count: int, size: int, *, rng: np.random.Generator) -> Channels:
    """Return `count` of the `size` MLP channels of every layer, drawn without replacement."""
    _checked(count, size)
    return Channels(mlp={layer: np.sort(rng.permutation(size)[:count]) for layer in range(shape.layers)})


def distinctive_channels(
    shape: LlamaShape, statistics: Mapping[str, ActivationStatistics], languages: Sequence[str], count: int
) -> Channels:
    """Return the `count` MLP channels of every layer that `languages` use most, compared with the other languages.

    Use is the share of a layer's activation energy that enters the channel of the down projection, a mean over
    languages; channels are ranked by the ratio of shares. `statistics`: of all languages, on the same segments. Raises
    `UsageError` where a language was not measured or none is left to compare with.
    """
    missing = [tag for tag in languages if tag not in statistics]
    others = [tag for tag in statistics if tag not in languages]
    if missing or not languages or not others:
        raise UsageError(
            f"channels are chosen for some of the measured languages against the others; measured are "
            f"{', '.join(statistics)}, chosen are {', '.join(languages) or 'none'}."
        )
    chosen = {}
    for layer, block in enumerate(shape.anatomy.blocks):
        ours, theirs = (
            np.mean([statistics[tag].energy(block.mlp_product) for tag in tags], axis=0) for tags in (languages, others)
        )
        _checked(count, len(ours))
        ratio = ours / np.maximum(theirs, np.finfo(np.float64).tiny)
        chosen[layer] = np.sort(np.argsort(-ratio, kind="stable")[:count])
    return Channels(mlp=chosen)


def _checked(count: int, size: int) -> None:
    if not 1 <= count <= size:
        raise UsageError(f"a layer has {size} MLP channels; choose 1 to {size} of them, not {count}")
