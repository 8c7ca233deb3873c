"""Hub: a model from the Hugging Face hub or its local cache, safetensors only, blobs verified by their checksum."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from evenbits.errors import IntegrityError, ModelError, UnsafeModelError
from evenbits.models.fingerprint import file_sha256
from evenbits.models.headers import weight_files
from evenbits.models.references import ModelRef
from evenbits.progress import Progress
from evenbits.store import Store

__all__ = ["fetch"]

WANTED = ("*.safetensors", "*.json", "*.model", "merges.txt", "vocab.txt", "*.jinja")
BELOW = ("*/*",)  # other formats (onnx, original weights) live in subfolders
SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(ref: ModelRef, *, store: Store, offline: bool, progress: Progress, extra: tuple[str, ...] = ()) -> Path:
    """Return the snapshot folder of `ref` in huggingface_hub's cache, downloaded unless `offline` or complete.

    `extra`: further file patterns the user allowed. Raises `ModelError` saying which source was tried and what to do,
    `IntegrityError` where a file differs from the checksum the hub gave for it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    shown = not are_progress_bars_disabled()
    disable_progress_bars()  # one bar of ours instead of several of theirs
    try:
        with progress.task(f"Looking up {ref}" if offline else f"Fetching {ref}"):
            folder = Path(
                snapshot_download(
                    ref.location,
                    revision=ref.revision,
                    local_files_only=offline,
                    allow_patterns=[*WANTED, *extra],
                    ignore_patterns=list(BELOW),
                )
            )
    except Exception as error:
        raise _explained(ref, error, offline=offline) from error
    finally:
        if shown:
            enable_progress_bars()
    _check_formats(ref, folder, offline=offline, extra=extra)
    _check_blobs(folder, store)
    return folder


def _explained(ref: ModelRef, error: Exception, *, offline: bool) -> ModelError:
    from huggingface_hub import errors

    name, revision = ref.location, ref.revision or "main"
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{name} is gated on the Hugging Face hub: accept its terms on its page, then log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{name} has no revision {revision!r} on the Hugging Face hub; see its branches and tags.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"there is no model {name} on the Hugging Face hub (or it is private and you are not logged in), and no "
            "folder of that name here; check the spelling."
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        state = "is not complete" if getattr(error, "snapshot_path", None) else "is not"
        why = "downloads are switched off (--offline or HF_HUB_OFFLINE)" if offline else "the hub could not be reached"
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            why = f"the hub answered: {error.__cause__}"
        remedy = "run once online" if offline else "check the network and try again"
        return ModelError(
            f"{name} (revision {revision}) {state} in the local Hugging Face cache, and {why}; {remedy}, or give a "
            "local folder."
        )
    return ModelError(
        f"{name} could not be fetched from the Hugging Face hub: {error}. Try again, or give a local folder."
    )


def _check_formats(ref: ModelRef, folder: Path, *, offline: bool, extra: tuple[str, ...]) -> None:
    """Say so where a repository offers pickle weights only: they were not downloaded, so the folder cannot tell."""
    if weight_files(folder) or offline or "*.bin" in extra:
        return
    from huggingface_hub import HfApi

    try:
        names = HfApi().list_repo_files(ref.location, revision=ref.revision)
    except Exception:  # noqa: BLE001 - only a better message is lost; admission says that there are no weights
        return
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickles:
        raise UnsafeModelError(
            f"{ref} offers only pickle checkpoints ({', '.join(pickles[:3])}). Unpickling can run any code, so they "
            "are refused. Look for a revision with safetensors, or convert a copy on a machine you trust with "
            "transformers' save_pretrained."
        )


def _check_blobs(folder: Path, store: Store) -> None:
    for file in sorted(path for path in folder.glob("*") if path.is_file()):
        blob: Any = file.resolve()
        # Large files lie in the cache under their SHA-256, small ones under a git hash.
        if blob.parent.name != "blobs" or not SHA256.fullmatch(blob.name):
            continue
        found = file_sha256(blob, store=store)
        if found != blob.name:
            raise IntegrityError(
                f"{file} has SHA-256 {found}, but the hub gave {blob.name}: the cached file is truncated or altered. "
                f"Delete {blob} and fetch the model again."
            )
