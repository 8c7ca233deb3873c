"""Blueprint: a model's anatomy, the shapes of its matrices and their names in the checkpoint, read from the store.

Making it builds the model's outline with transformers, some seconds of imports; everything that is stored of a model
can be found with the blueprint alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from evenbits.models.anatomy import Anatomy, Block, Linear
from evenbits.models.headers import entries
from evenbits.models.records import LocalModel
from evenbits.store import Store

__all__ = ["Blueprint", "blueprint"]

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """What is known of a model without its weights.

    `shapes`: O x I of every linear module of the layers, the embedding and the head, by module path. `tensors`: name in
    the checkpoint of every parameter, by its path in the model.
    """

    anatomy: Anatomy
    shapes: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, str]


def blueprint(local: LocalModel, *, store: Store) -> Blueprint:
    """Return the blueprint of `local`, made once per checkpoint and version of transformers (which names modules).

    `ModelError` names the parameters that the checkpoint lacks.
    """
    key = {"schema": SCHEMA, "model": local.fingerprint, "transformers": version("transformers")}
    meta = store.compute("blueprints", key, lambda: ({}, _made(local))).meta
    return Blueprint(
        anatomy=_anatomy(meta["anatomy"]),
        shapes={name: (rows, columns) for name, rows, columns in meta["shapes"]},
        tensors=dict(meta["tensors"]),
    )


def _made(local: LocalModel) -> dict[str, Any]:
    from evenbits.models.families import anatomy_of  # noqa: PLC0415 - imports torch
    from evenbits.models.outline import outline, parameter_names  # noqa: PLC0415 - imports transformers

    model = outline(local.folder, allow_code=local.allow_code)
    anatomy = anatomy_of(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    turned = {linear.name for linear in anatomy.linears if linear.transposed}
    shapes = []
    for name in (*(linear.name for linear in anatomy.linears), anatomy.embedding, anatomy.head):
        rows, columns = parameters[f"{name}.weight"].shape
        shapes.append([name, columns, rows] if name in turned else [name, rows, columns])
    names = parameter_names(model, entries(local.folder))
    return {"anatomy": asdict(anatomy), "shapes": shapes, "tensors": [[name, names[name]] for name in names]}


def _anatomy(row: Mapping[str, Any]) -> Anatomy:
    return Anatomy(
        **{
            **row,
            "layers": tuple(row["layers"]),
            "blocks": tuple(Block(**block) for block in row["blocks"]),
            "linears": tuple(Linear(**linear) for linear in row["linears"]),
            "projections": tuple(Linear(**linear) for linear in row["projections"]),
        }
    )
