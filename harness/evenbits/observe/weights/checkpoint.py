"""Statistics of a checkpoint's weight matrices, from the store, or measured into it.

What is stored is read without torch; `measurement.py` measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from evenbits.models.anatomy import Anatomy, Linear
from evenbits.models.blueprint import blueprint
from evenbits.models.records import LocalModel
from evenbits.observe.weights.statistics import SigmaCount, TensorStatistics, WeightStatistics
from evenbits.progress import Progress, Silent
from evenbits.store import Entry, Store

__all__ = ["Place", "weight_statistics"]

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
    local: LocalModel,
    anatomy: Anatomy | None = None,
    *,
    store: Store,
    threads: int = 2,
    progress: Progress | None = None,
) -> WeightStatistics:
    """Return the statistics of `local`'s weights, from the store where they are there already.

    `anatomy`: that of the model; None reads it from the configuration. No weights are loaded as a model: peak memory
    is a few pieces per thread, whatever the checkpoint's size. NaN or infinity raises `NonFiniteError` naming the
    tensor; a tensor that is missing or not a floating-point matrix raises `ModelError`.
    """
    drawn = blueprint(local, store=store)
    anatomy = anatomy or drawn.anatomy
    inside = [_place(linear, drawn.tensors) for linear in anatomy.linears]
    outside = [_place(linear, drawn.tensors) for linear in anatomy.projections]
    outside.append(_place_outside(anatomy.embedding, "embedding", drawn.tensors))
    if not anatomy.tied:
        outside.append(_place_outside(anatomy.head, "head", drawn.tensors))
    places = [*inside, *outside]

    def measure() -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        from evenbits.observe.weights.measurement import measured

        with (progress or Silent()).task(f"{local.text}  weight matrices", total=len(places)) as task:
            return _packed(measured(local.folder, places, threads, task))

    key = {"model": local.fingerprint, "schema": SCHEMA, "matrices": [place.to_json() for place in places]}
    every = _unpacked(store.compute("weight-statistics", key, measure))
    return WeightStatistics(fingerprint=local.fingerprint, tensors=every[: len(inside)], outside=every[len(inside) :])


def _place(linear: Linear, tensors: Mapping[str, tuple[str, ...]]) -> Place:
    held = tensors[linear.parameter]
    return Place(
        name=linear.name,
        layer=linear.layer,
        part=linear.part,
        role=linear.role,
        tensor=held[0],
        transposed=linear.transposed,
        experts=linear.experts,
        rows=held if len(held) > 1 else (),
    )


def _place_outside(module: str, part: str, tensors: Mapping[str, tuple[str, ...]]) -> Place:
    role = module.rsplit(".", 1)[-1]
    return Place(name=module, layer=None, part=part, role=role, tensor=tensors[f"{module}.weight"][0])


def _packed(tensors: Sequence[TensorStatistics]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    arrays = {f"{i}.{field}": getattr(t, field) for i, t in enumerate(tensors) for field in TensorStatistics.ARRAYS}
    return arrays, {"tensors": [tensor.to_json() for tensor in tensors]}


def _unpacked(entry: Entry) -> tuple[TensorStatistics, ...]:
    tensors = []
    for i, row in enumerate(entry.meta["tensors"]):
        scalars: dict[str, Any] = {field: row[field] for field in TensorStatistics.SCALARS}
        beyond = tuple(SigmaCount(**count) for count in row["beyond"])
        arrays: dict[str, Any] = {field: entry.arrays[f"{i}.{field}"] for field in TensorStatistics.ARRAYS}
        tensors.append(TensorStatistics(shape=(row["shape"][0], row["shape"][1]), beyond=beyond, **scalars, **arrays))
    return tuple(tensors)
