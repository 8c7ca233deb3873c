"""Devices: where a model runs is part of its arithmetic. Finding out needs torch only where a driver is there."""

from __future__ import annotations

import ctypes
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenbits.errors import DeviceError

if TYPE_CHECKING:
    from evenbits.store import Store

__all__ = [
    "CPU",
    "HELD_TWICE",
    "SPARE_BYTES",
    "Device",
    "describe",
    "device_for",
    "device_of_run",
    "lacks_room",
    "multiplies_bfloat16",
    "parse_device",
    "room_on",
    "set_up",
    "text_libraries",
]

KIND = "devices"

version = cache(metadata.version)  # part of every key, and read from disk

DRIVERS = ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so")
"""A machine without one of these libraries has no CUDA device, and torch need not be asked."""


CPUINFO = Path("/proc/cpuinfo")

HELD_TWICE = 2.0
"""Weights and the replaced matrices of a spec, which lie beside them while it is measured."""

SPARE_BYTES = 2 * 2**30
"""What is needed beside weights: libraries, kept hidden states, a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """`name`: what torch is told (`cpu`, `cuda:0`). `label`: what it calls itself, such as `NVIDIA H200`.

    `libraries`: what computes there, such as `torch 2.11.0, transformers 5.17.0, tokenizers 0.22.1`. `products`: the
    dtype in which a CPU multiplies bfloat16. Both are empty for what is at hand, and known where another machine
    measured. `beside`: further devices, where a model's layers are spread over several (`evenbits.models.placement`);
    `label` then names all of them, such as `2 x NVIDIA H200`.
    """

    name: str = "cpu"
    label: str = ""
    libraries: str = ""
    products: str = ""
    beside: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What torch is told of each of them, in the order of the layers."""
        return (self.name, *self.beside)

    @property
    def make(self) -> str:
        """What kind of device it is, such as `cuda NVIDIA H200`; not which of several."""
        return f"{self.name.partition(':')[0]} {self.label}".strip()

    def key(self, dtype: str) -> str:
        """What identifies arithmetic of `dtype` there in the store: make, libraries, how a CPU multiplies bfloat16."""
        parts = [self.make, self.libraries or _libraries()]
        if dtype == "bfloat16" and self.name == "cpu":
            parts.append(f"products in {self.products or _products()}")
        return ", ".join(parts)

    def arithmetic(self, dtype: str) -> str:
        """Return `dtype` (of torch, or its name) as store keys have it: with all that computing in it depends on."""
        return f"{dtype} on {self.key(dtype.removeprefix('torch.'))}"

    def __str__(self) -> str:
        names = " + ".join(self.names)
        return f"{names} ({self.label})" if self.label else names


CPU = Device()


def parse_device(text: str, *, worker: int = 0) -> Device:
    """Return the device that `text` names: `auto` (a CUDA device where there is one), `cpu`, `cuda`, `cuda:N`, `mps`.

    `worker`: number of this process among several that run beside each other; without a number each takes the next
    device. `DeviceError` where torch does not see the device.
    """
    if text == "cpu" or (text == "auto" and not _has_driver()):
        return CPU
    import torch

    kind, _, number = text.partition(":")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError(f"--device mps: torch {torch.__version__} sees no Apple GPU here; use --device cpu.")
        label = getattr(torch.backends.mps, "get_name", lambda: "Apple GPU")()
        return Device(name="mps:0", label=label, libraries=_libraries(torch.__version__))
    if kind in {"auto", "cuda"}:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count and kind == "auto":
            return CPU
        index = int(number) if number else worker % max(count, 1)
        if index >= count:
            raise DeviceError(
                f"--device {text}: torch {torch.__version__} sees {count or 'no'} CUDA devices here. "
                "Check nvidia-smi and that torch was built for CUDA, start evenbits where there is one (with --runner "
                "ray, too), or use --device cpu."
            )
        label = torch.cuda.get_device_name(index)
        return Device(name=f"cuda:{index}", label=label, libraries=_libraries(torch.__version__))
    return Device(name=text, label=kind)  # another backend that somebody registered with torch


def device_for(text: str, *, weights: float, worker: int = 0) -> Device:
    """Return where a model of so many bytes of `weights` runs under `--device text`.

    With `auto` and `cuda` (no number) a model that one CUDA device has no room for, twice (a spec's replaced matrices
    lie beside the weights) and with 2 GiB to spare, is spread over as few of them as have it together, over all where
    even these have not. Sizes are those of the devices, not what happens to be free: the choice is part of every key.
    `worker`: processes beside each other take one group of devices each.
    """
    first = parse_device(text, worker=worker)
    if text not in {"auto", "cuda"} or first == CPU:
        return first
    import torch

    every = range(torch.cuda.device_count())
    rooms = [torch.cuda.get_device_properties(index).total_memory - SPARE_BYTES for index in every]
    needed = next((n for n in range(1, len(rooms)) if sum(rooms[:n]) >= HELD_TWICE * weights), len(rooms))
    if needed == 1:
        return first
    begin = needed * (worker % (len(rooms) // needed))
    chosen = range(begin, begin + needed)
    labels = Counter(torch.cuda.get_device_name(index) for index in chosen)
    return Device(
        name=f"cuda:{begin}",
        label=" + ".join(f"{count} x {label}" for label, count in labels.items()),
        libraries=first.libraries,
        beside=tuple(f"cuda:{index}" for index in chosen[1:]),
    )


def device_of_run(text: str, *, dtype: str, weights: float, store: Store, worker: int = 0) -> Device:
    """Return `device_for`; in a store that is only judged from, the device on which the run was measured.

    That device need not be here, and has no number. `dtype`: of the run.
    """
    key = {"device": text, "weights": int(weights)}
    if store.sealed:
        return Device(**store.known(KIND, key, dict))
    found = device_for(text, weights=weights, worker=worker)
    kind = found.name.partition(":")[0]
    known = {"name": kind, "label": found.label, "libraries": found.libraries or _libraries()}
    if found == CPU and dtype == "bfloat16":
        known["products"] = _products()
    store.known(KIND, key, lambda: known)
    return found


def set_up(device: Device) -> None:
    """Have torch compute on `device` as exactly and repeatably as it can: no TF32, deterministic where it knows how.

    Does nothing on the CPU. The settings are those of the whole process.
    """
    if device.name == "cpu":
        return
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts; needed to be deterministic
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.benchmark = False
    if device.name.startswith(("cuda", "mps")):
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def room_on(device: object, what: str) -> Iterator[None]:
    """Turn a full memory of `device` into a sentence that says what to do; `what` had no room."""
    try:
        yield
    except RuntimeError as error:
        if not lacks_room(error):
            raise
        raise DeviceError(
            f"{device} has no room for {what}; end other programs that use it, take --dtype bfloat16, a smaller model, "
            "a larger device or more of them, or --device cpu."
        ) from error


def lacks_room(error: RuntimeError) -> bool:
    """Return whether `error` says that a device's memory is full; Apple's says it in words alone."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def describe(device: Device) -> dict[str, Any]:
    """Return what the `environment` of a report says of `device`: its name, and the versions of what computes on it.

    Not which of several equal devices it is: workers that run beside each other say the same.
    """
    described = {"device": device.make}
    if not device.name.startswith(("cuda:", "mps:")):
        return described
    import torch

    if device.name.startswith("mps"):
        gpu = {"name": device.label, "memory_bytes": torch.mps.recommended_max_memory()}
        return described | {"gpu": gpu}
    major, minor = torch.cuda.get_device_capability(device.name)
    return described | {
        "gpu": {
            "name": device.label,
            "memory_bytes": torch.cuda.get_device_properties(device.name).total_memory,
            "capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        },
    }


def _libraries(torch_version: str = "") -> str:
    """Return what numbers depend on: torch, and what cuts the text."""
    return f"torch {torch_version or version('torch')}, {text_libraries()}"


def text_libraries() -> str:
    """Return what cuts text into tokens, with versions: all that is computed here where a foreign engine scores it."""
    return ", ".join(f"{name} {version(name)}" for name in ("transformers", "tokenizers"))


def _products() -> str:
    return "bfloat16" if multiplies_bfloat16() else "float32"


@cache
def multiplies_bfloat16() -> bool:
    """Return whether this CPU has instructions for products of bfloat16: AMX, or AVX-512's dot product.

    Asked of Linux, so that a run that finds everything stored needs no torch; elsewhere of torch.
    """
    try:
        return re.search(r"\b(amx_tile|avx512_bf16)\b", CPUINFO.read_text(encoding="utf-8")) is not None
    except OSError:
        import torch

        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001


def _has_driver() -> bool:
    for name in DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
