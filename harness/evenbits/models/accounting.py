"""Accounting: what a folder holds is the whole model its configuration describes, and nothing but that.

transformers loads what it knows and says little of the rest. So it is asked first: it loads the checkpoint as shapes
without numbers, by its own rules of renaming and putting together, and what is missing, of another shape or left over
after that refuses the model by name. So do entries of the configuration that would change the function if its class
read them, numbers that are none, and a tokenizer that does not fit. Made once per fingerprint, of one tensor at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from evenbits.errors import EvenbitsError, ModelError
from evenbits.foreign import named, shown
from evenbits.models.admission import MASK, read_config
from evenbits.models.checkpoint import DTYPES, check_finite, read, stream
from evenbits.models.headers import TensorEntry, entries
from evenbits.models.loading import check_vocabulary, read_tokenizer
from evenbits.models.outline import SETTINGS, outline
from evenbits.models.quiet import quiet_transformers

__all__ = ["account"]

# Words in the names of entries that change what a layer computes.
TELLING = re.compile(
    r"window|softcap|scaling|multiplier|logit_scale|bidirectional|alibi|expert|causal|qk_norm|qk_layernorm|rotary|rope"
    r"|clip|temperature|layer_types|sparse|parallel_(attn|residual)",
    re.IGNORECASE,
)
# Entries that transformers reads for every type of model, or that mean nothing without another; `_check_rotation` looks
# at partial_rotary_factor.
GENERAL = frozenset({"rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "max_window_layers"})
SCALES = re.compile(r"(scales?(_inv)?|SCB|absmax|qzeros|quant_map|quant_state\..*|g_idx|input_amax)$")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def account(folder: Path, *, fingerprint: str, allow_code: bool) -> int:
    """Return the number of trained numbers of the admitted model in `folder`, tied weights counted once.

    `fingerprint` of the folder's content. Raises `ModelError` naming file and tensor or entry, `NonFiniteError`.
    """
    described = _outline(folder, allow_code=allow_code)
    _check_entries(folder, described)
    _check_rotation(folder, described)
    model = _shapes_only(folder, described)
    _check_tied(folder, model)
    embedding: Any = model.get_input_embeddings()
    check_vocabulary(folder, read_tokenizer(folder, fingerprint, allow_code), rows=len(embedding.weight))
    for name, tensor in stream(folder):
        check_finite(name, tensor)
    return sum(parameter.numel() for parameter in model.parameters())


def _outline(folder: Path, *, allow_code: bool) -> PreTrainedModel:
    try:
        if (folder / "generation_config.json").is_file():  # read at every load, for nothing that is measured
            GenerationConfig.from_pretrained(folder, local_files_only=True)
        return outline(folder, allow_code=allow_code)
    except EvenbitsError:
        raise
    except Exception as error:  # an odd entry fails anywhere in transformers, with any kind of exception
        what = str(error).strip().splitlines()
        raise ModelError(
            f"transformers cannot build a model from {folder / 'config.json'}: {type(error).__name__}"
            f"{f', {named(what[0])}' if what else ''}. Fetch the model again, or correct that entry."
        ) from error


def _check_entries(folder: Path, model: PreTrainedModel) -> None:
    """Refuse entries with a telling name that the type's configuration does not have, nor `outline` looked at.

    Of a multimodal model those of its text part, too.
    """
    where, config, written = folder / "config.json", model.config, read_config(folder)
    parts = [("", config, written)]
    text = config.get_text_config(decoder=True)
    parts += [
        (f"{key}.", text, value)
        for key, value in written.items()
        if text is not config and getattr(config, key, None) is text
    ]
    for place, part, entries_of_part in parts:
        known = {*type(part)().to_dict(), *part.attribute_map, *SETTINGS, *GENERAL}
        for key, value in entries_of_part.items():
            if key not in known and TELLING.search(key) and not _neutral(value):
                raise ModelError(
                    f"{where} has {place}{named(key)} = {shown(value)}, which {part.model_type} models "
                    "do not read: it would be ignored. Give the model its own model_type, or remove the entry if it "
                    "means nothing."
                )


def _check_rotation(folder: Path, model: PreTrainedModel) -> None:
    """Refuse a share of each head to rotate that the rotation does not heed: types know it that pass over it."""
    text = model.config.get_text_config(decoder=True)
    asked = {share for config in (model.config, text) for share in _shares(config)} - {None, 1}
    if asked and not any(_heeds_share(module, text) for module in model.modules()):
        raise ModelError(
            f"{folder / 'config.json'} has partial_rotary_factor = {shown(max(asked))}, which {text.model_type} models "
            "do not read: they rotate the whole of each head, or nothing. Give the model its own model_type, or remove "
            "the entry if it means nothing."
        )


def _shares(config: Any) -> list[Any]:
    """Return every partial_rotary_factor of a configuration, of kinds of layers, too."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [
        getattr(config, "partial_rotary_factor", None),
        *(part.get("partial_rotary_factor") for part in (rope, *rope.values()) if isinstance(part, dict)),
    ]


def _heeds_share(module: Any, config: Any) -> bool:
    """Whether the frequencies of a rotation are others where the whole of each head is rotated."""
    if not any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False)):
        return False
    if getattr(module, "config", None) is not config:
        return False
    whole: Any = deepcopy(config)
    for part in (whole.rope_parameters, *whole.rope_parameters.values()):
        if isinstance(part, dict) and "partial_rotary_factor" in part:
            part["partial_rotary_factor"] = 1.0
    pairs = zip(*(dict(type(module)(one).named_buffers()).values() for one in (config, whole)), strict=True)
    return any(not torch.equal(one, other) for one, other in pairs)


def _neutral(value: Any) -> bool:
    """Whether an entry means nothing: off, a factor of one, or the plain kind in every layer."""
    if isinstance(value, list | dict):
        return all(_neutral(one) for one in (value.values() if isinstance(value, dict) else value))
    return value in (None, False, 0, 1, True, "", "full_attention", "default", "none")


def _shapes_only(folder: Path, model: PreTrainedModel) -> PreTrainedModel:
    """Return the model loaded as shapes; `ModelError` names what transformers would make up or leave out."""
    held = entries(folder)
    state = {name: torch.empty(one.shape, dtype=DTYPES[one.dtype], device="meta") for name, one in held.items()}
    with quiet_transformers():
        loaded: Any = type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=state,
            device_map={"": "meta"},
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    shapes, info = loaded
    kind = model.config.model_type
    total = len({*dict(shapes.named_parameters()), *info["missing_keys"]})  # of tied weights both may be missing
    if missing := info["missing_keys"]:
        raise ModelError(
            f"the checkpoint in {folder} lacks {len(missing)} of {total} weights of this {kind} model: "
            f"{_some(missing)}. They would have been filled with random numbers."
        )
    if mismatched := sorted(info["mismatched_keys"]):
        name, found, expected = mismatched[0]
        raise ModelError(
            f"the checkpoint in {folder} has {len(mismatched)} of {total} weights in another shape than config.json "
            f"gives this {kind} model: {name} is {list(found)} in the file, {list(expected)} in the model"
        )
    if left := [name for name in info["unexpected_keys"] if not MASK.search(name)]:
        raise ModelError(
            f"the checkpoint in {folder} holds {len(left)} tensors that are no part of this {kind} model: "
            f"{_some(left)}. They would have been ignored{_meant(left, shapes)}."
        )
    if problems := info.get("error_msgs"):
        raise ModelError(f"transformers cannot load the checkpoint in {folder}: {problems[0]}")
    return shapes  # type: ignore[no-any-return]


def _meant(left: Iterable[str], model: PreTrainedModel) -> str:
    """Return what left over tensors usually mean, to follow a sentence."""
    if any(SCALES.search(name) for name in left):
        return "; scales beside weights mean that it is already quantized: give the original"
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    beyond = {int(match[1]) for name in left if (match := LAYER.search(name))}
    if layers is not None and beyond and min(beyond) >= layers:
        return f": config.json says {layers} layers, the file has {max(beyond) + 1}"
    return ""


def _check_tied(folder: Path, model: PreTrainedModel) -> None:
    """Tie equal weights, which shapes alone cannot show to be equal; refuse others that the configuration ties."""
    held: Mapping[str, TensorEntry] = entries(folder)
    for name, source in model.all_tied_weights_keys.items():
        if name in held and source in held and not torch.equal(read(folder, name), read(folder, source)):
            raise ModelError(
                f"the checkpoint in {folder} has other numbers in {name} than in {source}, but config.json ties the "
                "two (tie_word_embeddings): one of them is wrong; correct config.json"
            )
    model.tie_weights()


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(named(name) for name in listed[:5]) + (" ..." if len(listed) > 5 else "")
