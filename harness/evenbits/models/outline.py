"""Outline: a model's modules without its weights, and which tensor of the checkpoint each of them holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from evenbits.errors import ModelError
from evenbits.models.families import Family, anatomy_of, family_of
from evenbits.models.headers import entries
from evenbits.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evenbits.models.anatomy import Anatomy

__all__ = ["outline", "outline_anatomy", "parameter_names", "weight_names"]


def outline(folder: Path, *, allow_code: bool = False) -> PreTrainedModel:
    """Return the model of `folder` on torch's meta device: shapes and names, no numbers, no memory."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - heavy

    with quiet_transformers(), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=allow_code)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, trust_remote_code=allow_code
        )
        model.tie_weights()
    return model


def outline_anatomy(folder: Path, *, allow_code: bool = False) -> Anatomy:
    """Return the anatomy of the model in `folder` without loading its weights."""
    return anatomy_of(outline(folder, allow_code=allow_code))


def weight_names(folder: Path, *, allow_code: bool = False) -> dict[str, str]:
    """Return module path -> name of its weight in the checkpoint.

    For every linear of the anatomy, the projections, the embedding and the head; a tied head maps to the embedding's
    tensor. Names differ where a checkpoint was saved without the model's prefix (gpt2, bloom) or with older names
    (gpt_neox's `embed_out`). Raises `ModelError` naming the modules whose weight the checkpoint lacks.
    """
    model = outline(folder, allow_code=allow_code)
    anatomy = anatomy_of(model)
    names = parameter_names(model, entries(folder))
    modules = [linear.name for linear in (*anatomy.linears, *anatomy.projections)]
    return {module: names[f"{module}.weight"] for module in (*modules, anatomy.embedding, anatomy.head)}


def parameter_names(model: PreTrainedModel, available: Iterable[str]) -> dict[str, str]:
    """Return parameter name of `model` -> tensor name among `available`; raises `ModelError` for those not found."""
    family = family_of(model.config.model_type)
    known = set(available)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names: dict[str, str] = {}
    for parameter, value in parameters.items():
        found = _found(parameter, known, family)
        if found is None and parameter == f"{family.head}.weight":
            embedding = f"{family.embedding}.weight"
            if value is parameters[embedding]:
                found = _found(embedding, known, family)
        if found is not None:
            names[parameter] = found
    missing = [parameter for parameter in parameters if parameter not in names]
    if missing:
        raise ModelError(
            f"the checkpoint lacks {len(missing)} of {len(parameters)} weights of this {model.config.model_type} "
            f"model: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        )
    return names


def _found(parameter: str, known: set[str], family: Family) -> str | None:
    candidates = [parameter]
    candidates += [old + parameter.removeprefix(new) for old, new in family.legacy.items() if parameter.startswith(new)]
    return next((name for name in candidates if name in known), None)
