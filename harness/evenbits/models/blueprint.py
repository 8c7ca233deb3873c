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

SCHEMA = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """What is known of a model without its weights.

    `shapes`: O x I of every product of the layers, the embedding and the head, by its name. `tensors`: the checkpoint's
    tensors that hold a parameter, by its path in the model: one, or those whose rows make up fused experts.
    """

    anatomy: Anatomy
    shapes: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, tuple[str, ...]]


def blueprint(local: LocalModel, *, store: Store) -> Blueprint:
    """Return the blueprint of `local`, made once per checkpoint and version of transformers (which names modules).

    `ModelError` names the parameters that the checkpoint lacks.
    """
    key = {"schema": SCHEMA, "model": local.fingerprint, "transformers": version("transformers")}
    meta = store.compute("blueprints", key, lambda: ({}, _made(local))).meta
    return Blueprint(
        anatomy=_anatomy(meta["anatomy"]),
        shapes={name: (rows, columns) for name, rows, columns in meta["shapes"]},
        tensors={name: tuple(tensors) for name, tensors in meta["tensors"]},
    )


def _made(local: LocalModel) -> dict[str, Any]:
    from evenbits.models.layout import anatomy_of
    from evenbits.models.outline import outline, stored_parameters

    model = outline(local.folder, allow_code=local.allow_code)
    anatomy = anatomy_of(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    linears = (*anatomy.linears, anatomy.product(anatomy.embedding), anatomy.head_linear)
    shapes = [[linear.name, *linear.matrix(parameters[linear.parameter]).shape] for linear in linears]
    tensors = [[name, list(held)] for name, held in stored_parameters(model, entries(local.folder)).items()]
    return {"anatomy": asdict(anatomy), "shapes": shapes, "tensors": tensors}


def _anatomy(row: Mapping[str, Any]) -> Anatomy:
    return Anatomy(
        **{
            **row,
            "layers": tuple(row["layers"]),
            "blocks": tuple(Block(**block) for block in row["blocks"]),
            "linears": tuple(Linear(**linear) for linear in row["linears"]),
            "projections": tuple(Linear(**linear) for linear in row["projections"]),
            "kept": tuple(row["kept"]),
        }
    )
