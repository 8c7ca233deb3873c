"""Ablations as variants: the largest or random weights, single weights, channels or heads are zero while it is open.

None of them measures divergence: ablations compare likelihoods.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import ModelError
from evenbits.variants.variant import Variant

if TYPE_CHECKING:
    from evenbits.models.anatomy import Anatomy, Linear
    from evenbits.models.records import LoadedModel

__all__ = [
    "DROPPED_SHARE",
    "Dropped",
    "droppable",
    "dropping",
    "without_largest",
    "without_parts",
    "without_random",
    "without_weight",
]

Dropped = Literal["channel", "head"]

DROPPED_SHARE: dict[Dropped, float] = {"channel": 0.1, "head": 0.125}
"""Dropped of each layer's MLP channels, and of its heads (at least one)."""

WHAT: dict[Dropped, str] = {"channel": "feed-forward channels", "head": "heads of attention"}


def without_largest(
    share: float, *, where: str | None = None, modules: Iterable[str] = (), layer: int | None = None
) -> Variant:
    """Return the variant in which the largest `share` of every linear tensor is zero.

    `where` names a part of the model and `modules` its tensors: only these are changed. `layer`: the one they all lie
    in, None where they lie in several.
    """
    key = {"zeroed": "top", "share": share} | ({} if where is None else {"where": where})
    return Variant(
        label=f"{share:.2%} largest weights{'' if where is None else f' of {where}'} zeroed",
        key=key,
        change=partial(_zeroing, share=share, seed=None, modules=None if where is None else frozenset(modules)),
        divergence=False,
        first_layer=layer,
    )


def without_random(share: float, *, seed: int, draw: int) -> Variant:
    """Return one draw of the variant in which a random `share` of every linear tensor is zero, never the largest."""
    return Variant(
        label=f"{share:.2%} random weights zeroed",
        key={"zeroed": "random", "share": share, "seed": seed, "draw": draw},
        change=partial(_zeroing, share=share, seed=(seed, draw), modules=None),
        divergence=False,
    )


def without_weight(name: str, row: int, column: int) -> Variant:
    """Return the variant in which a single weight is zero."""
    place = f"{name}[{row}, {column}]"
    return Variant(
        label=f"{place} zeroed",
        key={"zeroed": place},
        change=partial(_without_weight, name=name, row=row, column=column),
        divergence=False,
    )


def without_parts(kind: Dropped, *, seed: int, draw: int) -> Variant:
    """Return one draw of the variant in which random channels, or heads, of every layer are dropped."""
    share = DROPPED_SHARE[kind]
    return Variant(
        label=f"{share:.3g} of {kind}s dropped, draw {draw}",
        key={"dropped": f"{kind}s of layers that have them", "share": share, "seed": seed, "draw": draw},
        change=partial(dropping, kind=kind, seed=(seed, draw)),
        divergence=False,
    )


def _zeroing(
    loaded: LoadedModel, *, share: float, seed: Sequence[int] | None, modules: frozenset[str] | None
) -> AbstractContextManager[None]:
    """Zero the largest share of every linear tensor (of those among `modules`), or with a `seed` a random one."""
    import torch

    from evenbits.observe.weights.outliers import random_positions, top_positions
    from evenbits.variants.quantization.patching import checkpoint_source, zeroed

    source = checkpoint_source(loaded)
    places = {}
    for number, linear in enumerate(loaded.anatomy.linears):
        if modules is not None and linear.name not in modules:
            continue
        weight = source(linear.name).float().cpu().numpy()
        chosen = top_positions(weight, share, name=linear.name)
        if seed is not None:
            chosen = random_positions(weight.size, chosen, rng=np.random.default_rng([*seed, number]))
        places[linear.name] = torch.from_numpy(chosen)
    return zeroed(loaded, places)


def _without_weight(loaded: LoadedModel, *, name: str, row: int, column: int) -> AbstractContextManager[None]:
    import torch

    from evenbits.variants.quantization.patching import shapes_of, zeroed

    width = shapes_of(loaded.model, loaded.anatomy)[name][1]
    return zeroed(loaded, {name: torch.tensor([row * width + column])})


def droppable(anatomy: Anatomy, kind: Dropped) -> tuple[Linear, ...]:
    """Return the products that read feed-forward channels, or heads of attention; none where there are none."""
    return tuple(product for _, product in anatomy.feeding()) if kind == "channel" else anatomy.attending()


def dropping(loaded: LoadedModel, *, kind: Dropped, seed: Iterable[int]) -> AbstractContextManager[None]:
    """Drop random channels or heads of every layer that has them while the context lasts; `seed` draws them.

    What the output product reads from them is zero, in every layer at once.
    """
    import torch

    from evenbits.variants.quantization.patching import shapes_of, zeroed

    shapes = shapes_of(loaded.model, loaded.anatomy)
    rng = np.random.default_rng(list(seed))
    places = {}
    anatomy = loaded.anatomy
    products = droppable(anatomy, kind)
    if not products:
        raise ModelError(f"this {anatomy.model_type} model has no {WHAT[kind]} to drop")
    for product in products:
        rows, columns = shapes[product.name]
        matrices = max(1, product.experts)  # each expert has channels of its own
        parts = columns if kind == "channel" else _heads(loaded, columns, product.name)
        count = matrices * parts
        dropped = rng.choice(count, size=max(1, round(DROPPED_SHARE[kind] * count)), replace=False)
        flat = _flat(dropped, parts=parts, rows=rows // matrices, columns=columns)
        places[product.name] = torch.from_numpy(flat)
    return zeroed(loaded, places)


def _heads(loaded: LoadedModel, columns: int, name: str) -> int:
    from evenbits.models.layout import text_config

    heads = int(text_config(loaded.model).num_attention_heads)
    if columns % heads:
        raise ModelError(f"{name} has {columns} inputs, not a multiple of {heads} heads")
    return heads


def _flat(dropped: NDArray[np.int64], *, parts: int, rows: int, columns: int) -> NDArray[np.int64]:
    """Return flat indices into matrices [rows, columns] of the columns that the `dropped` parts hold.

    A matrix has `parts` equal parts of its columns; parts from there on are those of the next one below it.
    """
    width = columns // parts
    matrix, part = np.divmod(dropped, parts)
    chosen = (matrix[:, None] * rows * columns + part[:, None] * width + np.arange(width)).ravel()
    return np.asarray((np.arange(rows)[:, None] * columns + chosen).ravel(), dtype=np.int64)
