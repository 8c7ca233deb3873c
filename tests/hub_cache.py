"""A cache laid out as huggingface_hub's, filled with tiny models."""

import hashlib

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put(cache, repository, model, *, revision="main", commit=COMMIT):
    """Put the files of the folder `model` into `cache` as `repository`; `revision`: a branch or tag, or the commit."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        content = file.read_bytes()
        large = file.suffix == ".safetensors"  # such files lie under their SHA-256, small ones under git's SHA-1
        name = (hashlib.sha256(content) if large else hashlib.sha1(content, usedforsecurity=False)).hexdigest()
        (root / "blobs" / name).write_bytes(content)
        (snapshot / file.name).symlink_to(f"../../blobs/{name}")
    if revision != commit:
        (root / "refs" / revision).write_text(commit)
    return root
