"""Statistics of a checkpoint's weight matrices, from the store, or measured into it: an entry for each matrix.

What is stored is read without torch; `measurement.py` measures. Of no more than a matrix for each thread are the
statistics of rows and columns in memory, whatever the checkpoint's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from typing import Any

from evenbits.models.anatomy import Linear
from evenbits.models.blueprint import Blueprint, blueprint
from evenbits.models.records import LocalModel
from evenbits.observe.weights.statistics import TensorStatistics, TensorSummary, WeightStatistics
from evenbits.progress import Progress, Silent
from evenbits.store import Entry, Store

__all__ = ["KIND", "Place", "matrix_key", "places_of", "weight_statistics"]

KIND = "weight-statistics"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One matrix to measure: module path, where it belongs, and its tensor in the checkpoint.

    `experts`: how many matrices lie in the tensor one after another. `rows`: where experts are stored one by one, the
    tensors whose rows make up the matrix; `tensor` is then the first.
    """

    name: str
    layer: int | None
    part: str
    role: str
    tensor: str
    transposed: bool = False
    experts: int = 0
    rows: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what identifies the measurement; what only experts have is left out where there are none."""
        return {name: value for name, value in asdict(self).items() if value or name not in {"experts", "rows"}}


def weight_statistics(
    local: LocalModel, *, store: Store, threads: int = 2, progress: Progress | None = None
) -> WeightStatistics:
    """Return the statistics of `local`'s weights, from the store where they are there already.

    No weights are loaded as a model: peak memory is a few pieces per thread, whatever the checkpoint's size. A run that
    was stopped goes on where it was. NaN or infinity raises `NonFiniteError` naming the tensor; a tensor that is
    missing or not a floating-point matrix raises `ModelError`.
    """
    drawn = blueprint(local, store=store)
    places = places_of(drawn)
    inside = [places[linear.name] for linear in drawn.anatomy.linears]
    outside = [place for place in places.values() if place not in inside]
    key = partial(matrix_key, local)

    def entry(place: Place) -> Entry:
        def measure() -> tuple[dict[str, Any], dict[str, Any]]:
            from evenbits.observe.weights.measurement import measured

            found = measured(local.folder, place)
            return {field: getattr(found, field) for field in TensorStatistics.ARRAYS}, found.to_json()

        return store.compute(KIND, key(place), measure)

    lacking = [place for place in places.values() if not store.has(KIND, key(place))]
    if lacking:
        store.refuse_if_sealed(KIND, key(lacking[0]) | {"model": local.text})
        with (progress or Silent()).task(f"{local.text}  weight matrices", total=len(lacking)) as task:

            def fill(place: Place) -> None:
                task.doing(place.name)
                entry(place)
                task.advance()

            # numpy releases the interpreter while it computes, so threads divide the work.
            with ThreadPoolExecutor(max_workers=threads) as pool:
                # Largest first: no thread is left alone with a large matrix at the end.
                list(pool.map(fill, sorted(lacking, key=lambda place: -prod(drawn.shapes.get(place.name, (0,))))))

    def whole(name: str) -> TensorStatistics:
        found = entry(places[name])
        return TensorStatistics.from_json(found.meta, found.arrays)

    return WeightStatistics(
        fingerprint=local.fingerprint,
        tensors=tuple(TensorSummary.from_json(entry(place).meta) for place in inside),
        outside=tuple(TensorSummary.from_json(entry(place).meta) for place in outside),
        whole=whole,
    )


def places_of(drawn: Blueprint) -> dict[str, Place]:
    """Return the matrices that are measured, by name: those inside the layers first."""
    anatomy = drawn.anatomy
    found = [_place(linear, drawn) for linear in (*anatomy.linears, *anatomy.projections)]
    found.append(_place_outside(anatomy.embedding, "embedding", drawn.tensors))
    if not anatomy.tied:
        found.append(_place_outside(anatomy.head, "head", drawn.tensors))
    return {place.name: place for place in found}


def matrix_key(local: LocalModel, place: Place) -> dict[str, Any]:
    """Return what identifies the statistics of a matrix in the store."""
    return {"model": local.fingerprint, "schema": SCHEMA, "matrix": place.to_json()}


def _place(linear: Linear, drawn: Blueprint) -> Place:
    held = drawn.tensors[linear.parameter]
    return Place(
        name=linear.name,
        layer=linear.layer,
        part=linear.part,
        role=linear.role,
        tensor=held[0],
        transposed=linear.transposed != (linear.parameter in drawn.turned),
        experts=linear.experts,
        rows=held if len(held) > 1 else (),
    )


def _place_outside(module: str, part: str, tensors: Mapping[str, tuple[str, ...]]) -> Place:
    role = module.rsplit(".", 1)[-1]
    return Place(name=module, layer=None, part=part, role=role, tensor=tensors[f"{module}.weight"][0])
