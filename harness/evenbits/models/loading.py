"""Loading: a checked folder becomes a model in memory that gives the same numbers every time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from evenbits.errors import ModelError
from evenbits.foreign import named
from evenbits.models.anatomy import Anatomy
from evenbits.models.checkpoint import check_finite
from evenbits.models.device import CPU, Device, room_on, set_up
from evenbits.models.families import check_type
from evenbits.models.layout import anatomy_of
from evenbits.models.outline import class_of
from evenbits.models.placement import spread
from evenbits.models.quiet import quiet_transformers
from evenbits.models.records import LoadedModel, LocalModel
from evenbits.progress import Progress

__all__ = ["attention_for", "check_vocabulary", "load", "move", "read_tokenizer", "tokenizer_of"]


def load(
    local: LocalModel,
    *,
    dtype: torch.dtype,
    threads: int | None = None,
    progress: Progress | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
    quantized: str | None = None,
    device: Device = CPU,
) -> LoadedModel:
    """Return `local` in evaluation mode, without gradients, in `dtype` on `device`, with torch's own attention kernel.

    `threads` sets torch's threads for this process. `weights`: by name as in a checkpoint, used instead of those in the
    folder; `quantized`: the method they were dequantized from, where the configuration names it. Raises `ModelError`
    naming tensors that the checkpoint lacks or has in another shape, `NonFiniteError` naming the first tensor with NaN
    or infinity, `DeviceError` where the device has no room.
    """
    check_type(local.model_type)
    if threads is not None:
        torch.set_num_threads(threads)
    with quiet_transformers(progress):
        model, unused = _model(local, dtype, weights, quantized)
        tokenizer = read_tokenizer(local.folder, local.fingerprint, local.allow_code)
    anatomy = anatomy_of(model)
    move(model, anatomy, device)
    for name, parameter in model.named_parameters():
        check_finite(name, parameter)
    return LoadedModel(
        local=local, model=model, tokenizer=tokenizer, anatomy=anatomy, dtype=dtype, unused=unused, device=device
    )


def move(model: PreTrainedModel, anatomy: Anatomy, device: Device) -> None:
    """Put the model on `device`, or spread it over several. `DeviceError` where memory does not hold it."""
    if device.names == ("cpu",):
        return
    set_up(device)
    size = sum(parameter.nbytes for parameter in model.parameters())
    with room_on(device, f"this model's {size / 2**30:.1f} GiB of weights (--stream-layers needs less)"):
        if device.beside:
            spread(model, anatomy, device.names)
        else:
            model.to(device.name)  # type: ignore[arg-type]
    embedding, head = model.get_submodule(anatomy.embedding), model.get_submodule(anatomy.head)
    if anatomy.tied and head.weight is not embedding.weight:  # not every backend keeps shared weights shared
        head.weight = embedding.weight


def tokenizer_of(local: LocalModel) -> Any:
    """Return the tokenizer of `local`; no weights are read."""
    with quiet_transformers():
        return read_tokenizer(local.folder, local.fingerprint, local.allow_code)


def attention_for(config: Any) -> str:
    """Return torch's own attention kernel, or a model's own: bloom and xglm bring no other."""
    return "sdpa" if getattr(_known_class(config), "_supports_sdpa", False) else "eager"


def _known_class(config: Any) -> Any:
    """Return the class that transformers has for `config` itself, None where the class is the repository's own."""
    return class_of(config)._model_mapping.get(type(config), None)  # noqa: SLF001 - the public mappings are its parts


def _model(
    local: LocalModel, dtype: torch.dtype, weights: Mapping[str, torch.Tensor] | None, quantized: str | None
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    config = AutoConfig.from_pretrained(local.folder, local_files_only=True, trust_remote_code=local.allow_code)
    if quantized and (getattr(config, "quantization_config", None) or {}).get("quant_method") == quantized:
        del config.quantization_config
    automatic = class_of(config)
    known = _known_class(config)
    # with weights given, the model's own class: the automatic one would look for files
    maker: Any = automatic if weights is None else known or automatic
    loaded: Any = maker.from_pretrained(
        local.folder if weights is None else None,
        config=config,
        state_dict=None if weights is None else dict(weights),
        dtype=dtype,
        attn_implementation=attention_for(config),
        local_files_only=True,
        **({"trust_remote_code": local.allow_code} if maker is automatic else {}),
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # so that they come back in `info` and are named below
        output_loading_info=True,
    )
    model: PreTrainedModel = loaded[0]
    info: dict[str, Any] = loaded[1]
    problems = [
        f"{len(info[kind])} {what}: {_some(info[kind])}"
        for kind, what in (("missing_keys", "missing"), ("mismatched_keys", "of another shape"))
        if info[kind]
    ]
    problems += [str(message) for message in info.get("error_msgs") or []]
    if problems:
        raise ModelError(
            f"the weights in {local.folder} do not fit its config.json; {'; '.join(problems)}. They would have been "
            "filled with random numbers. Fetch the model again, or correct config.json."
        )
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    return model, tuple(sorted(str(name) for name in info["unexpected_keys"]))


@lru_cache(maxsize=4)
def read_tokenizer(folder: Path, _fingerprint: str, allow_code: bool) -> Any:  # noqa: FBT001 - a key; any class
    """Read the tokenizer, once for all loads of a model: a vocabulary of 262,144 entries takes four seconds."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=allow_code, use_fast=True)
    except BaseException as error:
        # The tokenizers library raises bare Exception for a damaged file, and for some a panic of Rust, which is none.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"the tokenizer in {folder} cannot be loaded: {named(str(error))}. Fetch the model again, or install what "
            "the message names."
        ) from error


def check_vocabulary(folder: Path, tokenizer: Any, *, rows: int) -> None:
    """Refuse a tokenizer that gives ordinary text numbers beyond the `rows` of the embedding, or no first token.

    Special tokens may lie beyond (of pictures, of padding): text does not ask for them.
    """
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    numbers = {number: token for token, number in tokenizer.get_vocab().items() if number not in special}
    prefix = next((one for one in (tokenizer.bos_token_id, tokenizer.eos_token_id) if one is not None), None)
    if prefix is None:
        raise ModelError(
            f"the tokenizer in {folder} has neither a BOS nor an EOS token, so the first token of a segment has no "
            "context. Set bos_token or eos_token in tokenizer_config.json."
        )
    try:
        tokenizer(["Aa"], add_special_tokens=False, truncation=False, verbose=False)
    except Exception as error:  # an odd entry of tokenizer_config.json shows at the first text
        raise ModelError(
            f"the tokenizer in {folder} takes no text: {named(str(error))}. Fetch the model again."
        ) from error
    highest = max([prefix, *numbers])
    if highest >= rows:
        which = f", {named(numbers[highest])}" if highest in numbers else ""
        raise ModelError(
            f"the tokenizer in {folder} gives token numbers up to {highest}{which}, but the model embeds only {rows} "
            "tokens (numbers from 0): it belongs to another model, or tokens were added without resizing the model."
        )


def _some(keys: Iterable[Any]) -> str:
    names = sorted(str(key[0]) if isinstance(key, tuple) else str(key) for key in keys)
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
