"""Admission: what is checked about a folder before anything in it is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenbits.errors import IntegrityError, ModelError, UnsafeModelError
from evenbits.foreign import Entries, fetch_again, named, read_json, shown
from evenbits.models.code import configurations, named_code
from evenbits.models.families import REFUSED, SUPPORTED, WRAPPERS, listed
from evenbits.models.fingerprint import tokenizer_files
from evenbits.models.headers import entries, weight_files

__all__ = ["admit", "check_code", "check_sizes", "pickle_files", "quantization", "read_config"]

CAUSAL_HEADS = ("ForCausalLM", "LMHeadModel")
SUPPORTED_TEXT = listed()
FULL = frozenset({"F64", "F32", "F16", "BF16"})
# Buffers that older checkpoints carry along, which hold no weight: causal masks, positions, counters.
MASK = re.compile(r"(attn|attention)\.(masked_)?bias$|(^|\.)position_ids$|num_batches_tracked$")
QUANTIZED_ENTRIES = ("quantization_config", "compression_config", "quantization", "quant_config")
QUANTIZED_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json", "quanto_qmap.json")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
SIZES = (
    *("hidden_size", "n_embd", "d_model", "vocab_size", "intermediate_size", "ffn_dim", "head_dim"),
    *("num_attention_heads", "n_head", "n_heads", "attention_heads", "max_position_embeddings", "n_positions"),
)
LARGEST_SIZE = 1 << 31
MOST_LAYERS = 2000  # the deepest models known have some hundreds
# A tokenizer is complete with one of these.
VOCABULARIES = {
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
}


def admit(folder: Path, *, allow_code: bool = False) -> dict[str, Any]:
    """Return the configuration of a folder that may be loaded.

    Raises `ModelError` (not a supported model, files missing), `UnsafeModelError` (would run code) or
    `IntegrityError` (truncated or altered files).
    """
    config = read_config(folder)
    _check_architecture(folder, config)
    check_code(folder, allow_code=allow_code)
    _check_weights(folder)
    check_sizes(config, source=folder / "config.json", tensors=len(entries(folder)))
    _check_precision(folder)
    _check_tokenizer(folder)
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of `folder` as a mapping with a `model_type`."""
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(f"{folder} holds an adapter without its base model; merge it into the model and save that")
        inside = sorted(file.name for file in folder.glob("*.gguf"))
        hint = f" It holds {inside[0]}: give the path of that file." if inside else ""
        raise ModelError(f"{folder} has no config.json, so it is not a model folder of transformers.{hint}")
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds an adapter beside its model, which some libraries would load and others leave out: merge "
            "it into the weights, or measure the model without adapter_config.json"
        )
    config = read_json(path, error=fetch_again, infinite=True)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{path} names no model_type; {SUPPORTED_TEXT}")
    if "transformers_weights" in config:
        raise ModelError(
            f"{path} has transformers_weights = {shown(config['transformers_weights'])}, a file of its own choice: "
            "name the weights model.safetensors, or model.safetensors.index.json, and remove the entry."
        )
    return config


def pickle_files(folder: Path) -> tuple[Path, ...]:
    """Return the pickle checkpoints (.bin, .pt, .pth, .ckpt) in `folder`."""
    patterns = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "model*.bin")
    return tuple(sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}))


def _check_architecture(folder: Path, config: dict[str, Any]) -> None:
    model_type = config["model_type"]
    architectures = Entries(config, str(folder / "config.json"), ModelError).texts("architectures", [])
    listed = f" ({named(', '.join(architectures))})" if architectures else ""
    what_it_is = f"{folder} holds a {named(model_type)} model{listed}"
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{what_it_is}, an encoder-decoder; {SUPPORTED_TEXT}")
    if model_type not in SUPPORTED:
        encoder = any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures)
        why = f": {REFUSED[model_type]}" if model_type in REFUSED else ""
        what = ", an encoder without a causal language model" if encoder else why
        raise ModelError(f"{what_it_is}{what}; {SUPPORTED_TEXT}")
    heads = (*CAUSAL_HEADS, "ForConditionalGeneration") if model_type in WRAPPERS else CAUSAL_HEADS
    if architectures and not any(name.endswith(heads) for name in architectures):
        raise ModelError(f"{what_it_is}, which has no causal language model head; {SUPPORTED_TEXT}")
    method = quantization(folder, config)
    if method is not None:
        raise ModelError(
            f"{folder} is already quantized ({method}). Damage is measured from full precision: give the original, and "
            f"this as --spec checkpoint:{folder}."
        )


def quantization(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return by which method the checkpoint in `folder` was quantized, as far as it says so itself; None: it does not.

    The method's name where the configuration has one, else the entry or the file beside it that speaks of it.
    """
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in QUANTIZED_ENTRIES:
            if entry := part.get(key):
                method = entry.get("quant_method") if isinstance(entry, dict) else entry
                return named(method) if isinstance(method, str) else key
    return next((name for name in QUANTIZED_FILES if (folder / name).is_file()), None)


def check_sizes(config: Mapping[str, Any], *, source: Path, tensors: int) -> None:
    """Refuse sizes that are no sizes, and more layers than the file has tensors: building them would take for ever.

    `source`: the file they stand in. `ModelError` names file and entry.
    """
    for part, where in configurations(config, str(source)):
        sizes = Entries(part, where, ModelError)
        for key in (*LAYERS, *SIZES):
            if not isinstance(part.get(key), list):  # of each layer its own
                sizes.whole(key, None, least=1, most=LARGEST_SIZE)
        for key in LAYERS:
            layers = sizes.whole(key, 0) if not isinstance(part.get(key), list) else 0
            if layers > min(tensors, MOST_LAYERS):
                limit = f"has {tensors} tensors" if layers > tensors else f"may have {MOST_LAYERS} here"
                raise ModelError(f"{where}: {key} is {layers}, but the checkpoint {limit}")


def _check_precision(folder: Path) -> None:
    """Refuse tensors in a format of less than 16 bits: codes, whose scales nobody would apply."""
    codes = [entry for entry in entries(folder).values() if entry.dtype not in FULL and not MASK.search(entry.name)]
    if codes:
        raise ModelError(
            f"{folder} is already quantized: {len(codes)} of {len(entries(folder))} tensors are codes, such as "
            f"{codes[0].name}, stored as {codes[0].dtype}. Damage is measured from full precision: give the original."
        )


def check_code(folder: Path, *, allow_code: bool) -> None:
    """Refuse a folder whose files bring Python code to run, unless that is allowed and the code lies in the folder."""
    for file, entry in list(named_code(folder)):
        if not allow_code:
            raise UnsafeModelError(
                f"{file} has an auto_map: the repository brings its own Python code, which would run on this "
                "machine with your rights, and evenbits runs none. Where transformers knows the model itself, remove "
                "auto_map from a copy of the folder."
            )
        if "--" in str(entry):
            raise UnsafeModelError(
                f"{file} has an auto_map that names code of another repository, {shown(entry)}: it may change without "
                "this folder. Copy that code beside the weights, and name it without the repository."
            )


def _check_weights(folder: Path) -> None:
    if not weight_files(folder):
        pickles = pickle_files(folder)
        if pickles:
            raise UnsafeModelError(
                f"{folder} holds only pickle checkpoints ({', '.join(file.name for file in pickles)}). Unpickling can "
                "run any code, so they are refused. Convert them on a machine you trust: load the model with "
                "transformers there and call save_pretrained, which writes safetensors."
            )
        raise ModelError(f"{folder} has no weights: neither model.safetensors nor model.safetensors.index.json")
    if not entries(folder):
        raise IntegrityError(f"{weight_files(folder)[0]} holds no tensor; fetch the model again.")


def _check_tokenizer(folder: Path) -> None:
    if not any(file.name in VOCABULARIES for file in tokenizer_files(folder)):
        raise ModelError(
            f"{folder} has no tokenizer (none of {', '.join(sorted(VOCABULARIES))}); save the tokenizer beside the "
            "model with its save_pretrained"
        )
