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

SCHEMA = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """What is known of a model without its weights.

    `shapes`: O x I of every product of the layers, the embedding and the head, by its name. `tensors`: the checkpoint's
    tensors that hold a parameter, by its path in the model: one, or those whose rows make up fused experts. `turned`:
    parameters of experts that are stored the other way round. `share`: of the experts of a layer that a token is sent
    to; 1 where the configuration does not say.
    """

    anatomy: Anatomy
    shapes: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, tuple[str, ...]]
    turned: frozenset[str] = frozenset()
    share: float = 1.0

    @property
    def multiplied(self) -> dict[str, float]:
        """How many products of each shape, as `OxI`, a token takes part in: of experts those that are chosen."""
        found: dict[str, float] = {}
        for linear in (*self.anatomy.linears, *self.anatomy.projections, self.anatomy.head_linear):
            if linear.name in self.shapes:
                rows, columns = self.shapes[linear.name]
                each, count = (rows // linear.experts, self.share * linear.experts) if linear.experts else (rows, 1.0)
                found[f"{each}x{columns}"] = found.get(f"{each}x{columns}", 0.0) + count
        return found

    @property
    def active(self) -> float:
        """Weights that a token is multiplied with."""
        sizes = {shape: tuple(map(int, shape.split("x"))) for shape in self.multiplied}
        return sum(count * sizes[shape][0] * sizes[shape][1] for shape, count in self.multiplied.items())


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
        turned=frozenset(meta["turned"]),
        share=meta["share"],
    )


def _made(local: LocalModel) -> dict[str, Any]:
    from evenbits.models.layout import anatomy_of, text_config
    from evenbits.models.outline import outline, stored_parameters, turned

    model = outline(local.folder, allow_code=local.allow_code)
    anatomy = anatomy_of(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    linears = (*anatomy.linears, anatomy.product(anatomy.embedding), anatomy.head_linear)
    shapes = [[linear.name, *linear.matrix(parameters[linear.parameter]).shape] for linear in linears]
    held = entries(local.folder)
    tensors = {name: list(found) for name, found in stored_parameters(model, held).items()}
    swapped = [
        name
        for name, found in tensors.items()
        if len(found) == 1 and name in parameters and turned(held[found[0]].shape, parameters[name].shape)
    ]
    share = _chosen_share(text_config(model), max((linear.experts for linear in anatomy.linears), default=0))
    return {
        "anatomy": asdict(anatomy),
        "shapes": shapes,
        "tensors": list(tensors.items()),
        "turned": swapped,
        "share": share,
    }


def _chosen_share(config: Any, experts: int) -> float:
    """Return the share of `experts` that a token is sent to, by whatever name the configuration has their number."""
    for name in ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"):
        value = getattr(config, name, None)
        chosen = max(value) if isinstance(value, list | tuple) and value else value
        if isinstance(chosen, int) and 0 < chosen <= experts:
            return chosen / experts
    return 1.0


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
