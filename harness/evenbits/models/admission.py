"""Admission: what is checked about a folder before anything in it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evenbits.errors import IntegrityError, ModelError, UnsafeModelError
from evenbits.models.families import FAMILIES, SUPPORTED
from evenbits.models.fingerprint import tokenizer_files
from evenbits.models.headers import entries, weight_files

__all__ = ["admit", "pickle_files", "read_config"]

CAUSAL_HEADS = ("ForCausalLM", "LMHeadModel")
SUPPORTED_TEXT = f"supported are decoder-only causal language models of the types {', '.join(SUPPORTED)}"
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
    _check_code(folder, config, allow_code=allow_code)
    _check_weights(folder)
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
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        position = getattr(error, "pos", getattr(error, "start", 0))
        raise IntegrityError(f"{path} is not JSON at byte {position}; fetch the model again.") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{path} names no model_type; {SUPPORTED_TEXT}")
    return config


def pickle_files(folder: Path) -> tuple[Path, ...]:
    """Return the pickle checkpoints (.bin, .pt, .pth, .ckpt) in `folder`."""
    patterns = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "model*.bin")
    return tuple(sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}))


def _check_architecture(folder: Path, config: dict[str, Any]) -> None:
    model_type = config["model_type"]
    architectures = [str(name) for name in config.get("architectures") or []]
    named = f"{folder} holds a {model_type} model" + (f" ({', '.join(architectures)})" if architectures else "")
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{named}, an encoder-decoder; {SUPPORTED_TEXT}")
    if model_type not in FAMILIES:
        encoder = any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures)
        what = ", an encoder without a causal language model" if encoder else ""
        raise ModelError(f"{named}{what}; {SUPPORTED_TEXT}")
    if architectures and not any(name.endswith(CAUSAL_HEADS) for name in architectures):
        raise ModelError(f"{named}, which has no causal language model head; {SUPPORTED_TEXT}")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unnamed method")
        raise ModelError(
            f"{folder} is already quantized ({method}). Damage is measured from full precision: give the original."
        )


def _check_code(folder: Path, config: dict[str, Any], *, allow_code: bool) -> None:
    sources = {"config.json": config}
    tokenizer_config = folder / "tokenizer_config.json"
    if tokenizer_config.is_file():
        try:
            sources["tokenizer_config.json"] = json.loads(tokenizer_config.read_text(encoding="utf-8"))
        except ValueError as error:
            position = getattr(error, "pos", getattr(error, "start", 0))
            raise IntegrityError(
                f"{tokenizer_config} is not JSON at byte {position}; fetch the model again."
            ) from error
    if allow_code:
        return
    for name, content in sources.items():
        if "auto_map" in content:
            raise UnsafeModelError(
                f"{folder / name} has an auto_map: the repository brings its own Python code, which would run on this "
                "machine with your rights. It is refused unless you allow it (allow_code); read the code first, or "
                "remove auto_map where transformers knows the model itself."
            )


def _check_weights(folder: Path) -> None:
    if not weight_files(folder):
        pickles = pickle_files(folder)
        if pickles:
            raise UnsafeModelError(
                f"{folder} holds only pickle checkpoints ({', '.join(file.name for file in pickles)}). Unpickling can "
                "run any code, so they are refused unless you allow it (allow_pickle). Convert them on a machine you "
                "trust: load the model with transformers there and call save_pretrained, which writes safetensors."
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
