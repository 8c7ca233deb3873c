"""Outline: a model's modules without its weights, and which tensors of the checkpoint each of them holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenbits.errors import ModelError
from evenbits.models.headers import entries
from evenbits.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from evenbits.models.anatomy import Anatomy

__all__ = [
    "LOGIT_SCALES",
    "class_of",
    "in_place",
    "outline",
    "outline_anatomy",
    "parameter_names",
    "parameters_by_tensor",
    "stored_parameters",
    "turned",
    "weight_names",
]


def class_of(config: Any) -> Any:
    """Return the class of the language model of `config`: causal, or a wrapper that reads images too."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    wrapper: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    if wrapper is not None and (causal is None or causal.config_class is not type(config)):
        return AutoModelForImageTextToText  # a causal class of the text part alone would leave the rest of the file out
    return AutoModelForCausalLM


def outline(folder: Path, *, allow_code: bool = False) -> PreTrainedModel:
    """Return the model of `folder` on torch's meta device: shapes and names, no numbers, no memory."""
    import torch
    from transformers import AutoConfig

    with quiet_transformers(), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=allow_code)
        _check_settings(folder, config)
        model: PreTrainedModel = class_of(config).from_config(config, trust_remote_code=allow_code)
        model.tie_weights()
    return model


LOGIT_SCALES: Mapping[str, int] = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}
"""Settings by which families scale their logits, by the power in which they do: Cohere, Falcon-H1, Granite."""

AFTER_HEAD = (*LOGIT_SCALES, "final_logit_softcapping")
"""Settings that change what comes out of the head."""

SETTINGS = (
    "sliding_window",
    "attention_chunk_size",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    "attn_logit_softcapping",
    *AFTER_HEAD,
)
"""Settings that change what a model computes, and that transformers passes over where a type does not know them."""

HEEDING = ("gemma4", "gemma4_unified", "hyperclovax_vision_v2")
"""Multimodal types that do with the logits what their text part says; others hand on what the head gives."""


def _check_settings(folder: Path, config: Any) -> None:
    """Raise `ModelError` where config.json asks for something that transformers' model of this type would not do."""
    text = config.get_text_config(decoder=True)
    where = f"{folder / 'config.json'} of a {config.model_type} model"
    if getattr(text, "use_bidirectional_attention", None) in {True, "all"} or getattr(text, "is_causal", True) is False:
        raise ModelError(f"{where} asks for attention in both directions: it is no causal language model")
    unheeded = () if text is config or config.model_type in HEEDING else AFTER_HEAD
    for name in unheeded:
        if (value := getattr(text, name, None)) not in {None, False, 1}:
            raise ModelError(
                f"{where} sets {name} to {value}, which transformers ignores in models of this type: its scores would "
                "not be those that the text part was trained for. Measure the text part, saved as a model of its own."
            )
    known = {*getattr(type(text), "__dataclass_fields__", SETTINGS), *(text.attribute_map or {})}
    for name in SETTINGS:
        value = getattr(text, name, None)
        off = name == "sliding_window" and (
            getattr(text, "use_sliding_window", True) is False
            or (value or 0) >= (getattr(text, "max_position_embeddings", None) or float("inf"))
        )
        if name not in known and value not in {None, False, 1} and not off:
            raise ModelError(
                f"{where} sets {name} to {value}, which a {text.model_type} model of transformers ignores: every score "
                "would be that of another function. If the model is of another type, name that type; if the entry "
                "means nothing, remove it."
            )


def outline_anatomy(folder: Path, *, allow_code: bool = False) -> Anatomy:
    """Return the anatomy of the model in `folder` without loading its weights."""
    from evenbits.models.layout import anatomy_of

    return anatomy_of(outline(folder, allow_code=allow_code))


def weight_names(folder: Path, *, allow_code: bool = False) -> dict[str, str]:
    """Return module path -> name of its weight in the checkpoint, where that is one tensor.

    For every linear of the anatomy, the projections, the embedding and the head; a tied head maps to the embedding's
    tensor. Names differ where a checkpoint was saved without the model's prefix (gpt2, bloom) or with older names
    (gpt_neox's `embed_out`). Raises `ModelError` naming the modules whose weight the checkpoint lacks.
    """
    from evenbits.models.layout import anatomy_of

    model = outline(folder, allow_code=allow_code)
    anatomy = anatomy_of(model)
    names = parameter_names(model, entries(folder))
    linears = (*anatomy.linears, *anatomy.projections, anatomy.product(anatomy.embedding), anatomy.head_linear)
    return {linear.name: names[linear.parameter] for linear in linears if linear.parameter in names}


def parameter_names(model: PreTrainedModel, available: Iterable[str]) -> dict[str, str]:
    """Return parameter name of `model` -> tensor name among `available`, for parameters stored as one tensor."""
    return {name: tensors[0] for name, tensors in stored_parameters(model, available).items() if len(tensors) == 1}


def stored_parameters(model: PreTrainedModel, available: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return name of a parameter, or saved buffer, of `model` -> the tensors among `available` that hold it.

    One tensor, as the model has it, or with its last two dimensions swapped (see `turned`); or the tensors whose rows
    make up the parameter, first to last, each output x input: experts that are stored one by one, parts that the model
    has in one. `in_place` puts them together. Names are those that transformers' loading gives them. A buffer that is
    not found is left out: loading leaves it as it is made. Raises `ModelError` for parameters not found, or stored in
    another way.
    """
    values = model.state_dict(keep_vars=True)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    single, fused, order = _renamed(model, available, values)
    found: dict[str, tuple[str, ...]] = {}
    for name, value in values.items():
        if name in single:
            found[name] = (single[name],)
        elif name in fused:
            found[name] = _rows(name, fused[name], order[name])
        else:
            twin = next((other for other, same in values.items() if same is value and other in single), None)
            if twin is not None:
                found[name] = (single[twin],)
    missing = [name for name in parameters if name not in found]
    if missing:
        raise ModelError(
            f"the checkpoint lacks {len(missing)} of {len(parameters)} weights of this {model.config.model_type} "
            f"model: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        )
    return {name: found[name] for name in values if name in found}


def turned(stored: Sequence[int], parameter: Sequence[int]) -> bool:
    """Return whether fused experts are stored input x output where their parameter is output x input, by both shapes.

    Equal shapes are not: so transformers has it for the types in which that may be (`check_dims` of its `Transpose`).
    """
    return (
        len(stored) == 3 and tuple(stored) != tuple(parameter) and (stored[0], stored[2], stored[1]) == tuple(parameter)
    )


def in_place(read: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Return a parameter of `shape`, given the tensors that hold it as `stored_parameters` names them."""
    import torch

    value = read[0] if len(read) == 1 else torch.cat(list(read))
    return value.transpose(1, 2).contiguous() if turned(value.shape, shape) else value.reshape(tuple(shape))


def parameters_by_tensor(model: PreTrainedModel, available: Iterable[str]) -> dict[str, str]:
    """Return tensor among `available` -> the parameter, or saved buffer, of `model` that it is or is a part of.

    By the names that transformers' loading gives them; what it has no place for is left out.
    """
    single, fused, _ = _renamed(model, available, model.state_dict(keep_vars=True))
    parts = {tensor: name for name, found in fused.items() for tensors in found.values() for tensor in tensors}
    return {tensor: name for name, tensor in single.items()} | parts


def _renamed(
    model: PreTrainedModel, available: Iterable[str], values: dict[str, Any]
) -> tuple[dict[str, str], dict[str, dict[str, list[str]]], dict[str, Any]]:
    """Apply transformers' renamings: parameters stored as one tensor, and by pattern those that a conversion makes."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    changes = get_model_conversion_mapping(model)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    single: dict[str, str] = {}
    fused: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    order: dict[str, Any] = {}
    prefix = model.base_model_prefix
    for tensor in sorted(available, key=dot_natural_key):
        name, pattern = rename_source_key(tensor, renamings, converters, prefix, values)
        if name not in values:
            name, pattern = rename_source_key(tensor, [], [], prefix, values)
        if name not in values:
            continue
        if pattern is None:
            single.setdefault(name, tensor)
        else:
            fused[name][pattern].append(tensor)
            order[name] = by_pattern[pattern]
    return single, fused, order


def _rows(name: str, by_pattern: Mapping[str, list[str]], converter: Any) -> tuple[str, ...]:
    """Return the tensors that make up a parameter in the order of its rows: of each expert, pattern by pattern."""
    steps = [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations]
    plain = steps in (
        [("MergeModulelist", 0)],
        [("MergeModulelist", 0), ("Concatenate", 1)],
        [("Concatenate", 0)],
    )
    swapped = [getattr(step, "check_dims", False) and (step.dim0, step.dim1) == (1, 2) for step in converter.operations]
    columns = [by_pattern.get(pattern, []) for pattern in converter.source_patterns]
    if not (plain or swapped == [True]) or len({len(column) for column in columns}) != 1:
        raise ModelError(
            f"{name} is put together from {sum(map(len, columns))} tensors of the checkpoint in a way that is not "
            f"understood ({', '.join(kind for kind, _ in steps)})"
        )
    return tuple(tensor for expert in zip(*columns, strict=True) for tensor in expert)
