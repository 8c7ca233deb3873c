"""Accounting of a GGUF file: every tensor has a place in the model, every weight a tensor, every entry its effect.

transformers fills tensors that a file lacks with random numbers, drops those it has no place for, and reads a part of
the metadata; it says nothing of either. What cannot be said in its configuration refuses the file by name.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from evenbits.errors import ModelError
from evenbits.foreign import named, shown
from evenbits.models.gguf_header import GgufHeader

__all__ = ["ROPE_FREQS", "account", "check_scalars", "entries_of"]

Config = Any  # any transformers configuration

ROPE_FREQS = "rope_freqs.weight"  # factors, not weights; they are in the configuration by now


def entries_of(header: GgufHeader) -> dict[str, Any]:
    """Return the entries of the file's architecture, without its name before them."""
    prefix = f"{header.metadata['general.architecture']}."
    return {key.removeprefix(prefix): value for key, value in header.metadata.items() if key.startswith(prefix)}


def check_scalars(header: GgufHeader) -> None:
    """Refuse what differs from layer to layer, where transformers takes one value for all of them."""
    for name, value in entries_of(header).items():
        if isinstance(value, tuple) and name != "attention.sliding_window_pattern":
            raise _ignored(header, name, value)


def account(header: GgufHeader, config: Config) -> None:
    """Raise `ModelError` for the first entry that would be ignored, and for tensors too few, too many or misshapen."""
    _check_entries(header, config)
    model, places = _places(header, config)
    _check_tensors(header, config, model, places)


# What an entry must be for the model to compute the same: by the entry's name without the architecture, a function of
# its value and of the configuration. Of those here that transformers reads itself, it does not read all.
RULES: Mapping[str, Callable[[Any, Any], bool]] = {
    "attention.key_length": lambda value, config: value == _head_width(config),
    "attention.value_length": lambda value, config: value == _head_width(config),
    "rope.dimension_count": lambda value, config: value == _head_width(config),
    "rope.freq_base": lambda value, config: math.isclose(value, _rope(config).get("rope_theta", 0), rel_tol=1e-6),
    "rope.freq_base_swa": lambda value, config: value == _rope(config, "sliding_attention").get("rope_theta"),
    "rope.scaling.type": lambda value, _config: value in {"none", "linear"},
    "rope.scaling.factor": lambda value, _config: value >= 0,  # in the configuration by now, or of type none
    "rope.scale_linear": lambda value, _config: value >= 0,
    "rope.scaling.original_context_length": lambda _value, _config: True,  # for other types alone
    "rope.scaling.finetuned": lambda _value, _config: True,  # a note
    "rope.scaling.attn_factor": lambda value, _config: value == 1,
    "attention.sliding_window": lambda value, config: value == (getattr(config, "sliding_window", None) or 0),
    "attention.sliding_window_pattern": lambda value, config: _same_windows(value, config.layer_types),
    "attention.causal": lambda value, _config: value is True,
    "attention.scale": lambda value, config: math.isclose(value, _head_width(config) ** -0.5, rel_tol=1e-6),
    "attn_logit_softcapping": lambda value, config: value == getattr(config, "attn_logit_softcapping", None),
    "final_logit_softcapping": lambda value, config: value == getattr(config, "final_logit_softcapping", None),
    "feed_forward_length": lambda value, config: value == _inner_width(config),
    "vocab_size": lambda value, config: value == config.vocab_size,
    "expert_count": lambda value, _config: value == 0,
    "expert_used_count": lambda value, _config: value == 0,
    "pooling_type": lambda value, _config: value == 0,
    "tensor_data_layout": lambda value, _config: value == "Meta AI original pth",
    "context_length": lambda _value, _config: True,  # a limit
}


def _check_entries(header: GgufHeader, config: Config) -> None:
    mapping: Any = import_module("transformers.integrations").GGUF_CONFIG_MAPPING
    architecture = header.metadata["general.architecture"]
    read = {name for name, entry in mapping.get(architecture, {}).items() if entry is not None}
    for name, value in entries_of(header).items():
        rule = RULES.get(name)
        try:
            reached = name in read if rule is None else rule(value, config)
        except (TypeError, ValueError, AttributeError):  # of another type than the entry ever has
            reached = False
        if not reached:
            raise _ignored(header, name, value)


def _ignored(header: GgufHeader, name: str, value: object) -> ModelError:
    key = f"{header.metadata['general.architecture']}.{name}"
    return ModelError(
        f"{header.path} says {named(key)} = {shown(value)}, which transformers does not do: the model would compute "
        "something else. Give the original safetensors model instead."
    )


def _places(header: GgufHeader, config: Config) -> tuple[Any, dict[str, str]]:
    """Return the model as shapes, and the place in it of every tensor name that transformers knows."""
    import torch
    from transformers import AutoModelForCausalLM

    reading: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    making: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = making.from_config(config)
    processor = reading.TENSOR_PROCESSORS.get(header.metadata["general.architecture"], reading.TensorProcessor)
    return model, reading.get_gguf_hf_weights_map(model, processor(config=config.to_dict()))


def _check_tensors(header: GgufHeader, config: Config, model: Any, places: Mapping[str, str]) -> None:
    held = {tensor.name: tensor for tensor in header.tensors}
    left = [name for name in held if name not in places and name != ROPE_FREQS]
    if left:
        raise ModelError(
            f"{header.path} holds {len(left)} tensors that this {config.model_type} model has no place for: "
            f"{_some(left)}. They would have been ignored."
        )
    sources = defaultdict(list)
    for name, place in places.items():
        if name in held:
            sources[place].append(held[name].shape)
    parameters = dict(model.named_parameters())  # a tied head is the embedding's own parameter
    missing = [name for name in parameters if name not in sources]
    if missing:
        raise ModelError(
            f"{header.path} lacks {len(missing)} of {len(parameters)} weights of this {config.model_type} model: "
            f"{_some(missing)}. They would have been filled with random numbers."
        )
    for name, shapes in sources.items():
        expected = tuple(parameters[name].shape) if name in parameters else None
        if (expected and sum(map(math.prod, shapes)) != math.prod(expected)) or (
            expected and len(shapes) == 1 and sorted(shapes[0]) != sorted(expected)
        ):
            raise ModelError(
                f"{header.path} holds {name} in the shape {[list(shape) for shape in shapes]}, its metadata make it "
                f"{list(expected)}"
            )


def _head_width(config: Config) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _inner_width(config: Config) -> int:
    if config.model_type == "bloom":
        return 4 * int(config.hidden_size)
    return int(getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size)


def _rope(config: Config, kind: str = "full_attention") -> dict[str, Any]:
    parameters = getattr(config, "rope_parameters", None) or {}
    return dict(parameters.get(kind) or parameters)


def _same_windows(value: Any, kinds: list[str]) -> bool:
    """Whether the layers that look at a window only are those of the configuration."""
    layers = [kind == "sliding_attention" for kind in kinds]
    if isinstance(value, tuple):
        return [bool(one) for one in value] == layers
    return [(index + 1) % value != 0 for index in range(len(layers))] == layers


def _some(names: list[str]) -> str:
    return ", ".join(named(name) for name in names[:5]) + (" ..." if len(names) > 5 else "")
