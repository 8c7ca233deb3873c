"""Where lacking cells are computed: by workers of a Ray cluster, one model each.

A worker takes some of the languages and computes their cells as `Local` does, into the store that all of them see, so
that numbers are those of a local run. Cells are stored as soon as they are known: a worker that is lost costs what it
had open, and the others go on.
"""

from __future__ import annotations

import io
import pickle
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from evenbits.cells.cell import Cell
from evenbits.cells.runner import Local, Runner, lacking
from evenbits.cells.streaming import Streamed
from evenbits.errors import DeviceError, UsageError
from evenbits.models.device import HELD_TWICE, SPARE_BYTES, Device, device_for
from evenbits.models.records import LocalModel
from evenbits.progress import Progress
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants.variant import Original

__all__ = ["Cluster", "Place", "places_of", "runner_for", "shares_of"]

POLL_SECONDS = 1.0

ORIGINAL = "original"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Room for one worker: `cpus`, `gpus` and `memory` (bytes) as Ray counts them, on some machine of the cluster."""

    cpus: int
    gpus: int
    memory: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What a worker makes its subject of. The paths are the same on every machine, and so are `versions`."""

    local: LocalModel
    root: Path
    dtype: str
    device: Device
    seed: int
    context: int
    probe: Corpus | None
    threads: int
    versions: Mapping[str, str]


def runner_for(name: str, *, address: str | None = None, layers: bool = False) -> Runner:
    """Return the runner called `name`: `local`, or `ray` on the cluster at `address`; `layers`: one at a time."""
    if name == "local":
        return Streamed() if layers else Local()
    if layers:
        raise UsageError("--stream-layers reads the model in this process: leave --runner ray out, or --stream-layers.")
    return Cluster(address=address)


def shares_of(cells: Sequence[Cell], count: int) -> list[list[Cell]]:
    """Divide cells among at most `count` workers: all of one text to one of them, the largest first to the least busy.

    What a worker keeps of full precision on a text serves all variants on it.
    """
    by_text: dict[str, list[Cell]] = {}
    for cell in cells:
        by_text.setdefault(cell.text_digest, []).append(cell)
    sizes = {digest: len(of_one) * sum(map(len, of_one[0].texts)) for digest, of_one in by_text.items()}
    shares: list[list[Cell]] = [[] for _ in range(min(count, len(by_text)))]
    busy = [0] * len(shares)
    for digest in sorted(by_text, key=lambda one: -sizes[one]):
        least = busy.index(min(busy))
        shares[least] += by_text[digest]
        busy[least] += sizes[digest]
    return shares


def places_of(nodes: Iterable[Mapping[str, float]], *, memory: int, gpus: int, most: int) -> list[Place]:
    """Return where at most `most` workers have room that need `memory` bytes and `gpus` each.

    `nodes`: resources of each machine (`CPU`, `GPU`, `memory`). Without GPUs a worker has a core at least, and cores
    are divided among as many workers as memory has room for. `DeviceError` where there is no room for one.
    """
    found: list[Place] = []
    held = list(nodes)
    for node in held:
        cores = int(node.get("CPU", 0))
        count = min(cores, int(node.get("memory", 0) // memory), int(node.get("GPU", 0) // gpus) if gpus else most)
        found += [Place(cpus=cores // count, gpus=gpus, memory=memory) for _ in range(min(count, most))]
    if not found:
        raise DeviceError(
            f"no machine of the cluster has room for a worker with {memory / 2**30:.1f} GiB of memory"
            f"{f' and {gpus} GPUs' if gpus else ''}: the largest of {len(held)} has "
            f"{max((one.get('memory', 0) for one in held), default=0) / 2**30:.1f} GiB. Take --dtype bfloat16, a "
            "smaller model, or a larger machine."
        )
    return found[:most]


@dataclass(kw_only=True)
class Cluster:
    """Workers of the cluster at `address`; None: one of this machine's own, which ends with the process."""

    together: ClassVar[bool] = False
    address: str | None = None
    _workers: list[Any] = field(default_factory=list, repr=False)

    def release(self) -> None:
        ray = _ray()
        for worker in self._workers:
            ray.kill(worker)
        self._workers.clear()

    def run(self, original: Original, cells: Sequence[Cell], *, progress: Progress) -> None:
        """Compute the cells; whoever is lost is replaced, until a round in which nothing was finished."""
        ray = _ray()
        if not ray.is_initialized():
            ray.init(address=self.address or "local", include_dashboard=False, log_to_driver=False)
        open_cells = list(cells)
        with progress.task(f"{original.local.text}  on the cluster", total=len(cells)) as task:
            while open_cells:
                shares = shares_of(open_cells, len(self._places(original, open_cells)))
                self._staffed(original, open_cells, len(shares))
                lost = self._round(original, shares, task.advance)
                left = lacking(original.store, open_cells)
                if len(left) == len(open_cells):
                    raise DeviceError(
                        f"{lost} workers were lost before they had measured anything of {original.local.text}: "
                        "look for the reason in Ray's logs (memory is the most frequent), or take --runner local."
                    )
                open_cells = left
        original.store.misses += len(cells)

    def _round(self, original: Original, shares: Sequence[Sequence[Cell]], advance: Callable[[int], None]) -> int:
        """Have every worker compute its share; return how many workers were lost over it."""
        ray = _ray()
        jobs = {
            worker.run.remote(_packed(original, share)): (worker, share)
            for worker, share in zip(self._workers, shares, strict=False)
        }
        lost = done = 0
        every = [cell for share in shares for cell in share]
        while jobs:
            ready, _ = ray.wait(list(jobs), timeout=POLL_SECONDS)
            known = sum(original.store.has("losses", cell.key()) for cell in every)
            advance(known - done)
            done = known
            for job in ready:
                worker, _ = jobs.pop(job)
                try:
                    ray.get(job)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
                    self._workers.remove(worker)
                    lost += 1
        return lost

    def _places(self, original: Original, cells: Sequence[Cell]) -> list[Place]:
        widest = max(original.local.nbytes(cell.dtype) for cell in cells)
        memory = int(HELD_TWICE * widest) + SPARE_BYTES
        nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
        languages = len({cell.text_digest for cell in cells})
        gpus = len(original.device.names) if original.device.name.startswith("cuda") else 0  # Ray counts no others
        return places_of(nodes, memory=memory, gpus=gpus, most=languages)

    def _staffed(self, original: Original, cells: Sequence[Cell], count: int) -> None:
        """Have at least `count` workers, of this model on the run's kind of device."""
        ray = _ray()
        for place in self._places(original, cells)[len(self._workers) : count]:
            made = Made(
                local=original.local,
                root=original.store.root.absolute(),
                dtype=original.dtype,
                device=original.device,
                seed=original.seed,
                context=original.context,
                probe=original.probe,
                threads=place.cpus,
                versions=_versions(),
            )
            options = {"num_cpus": place.cpus, "num_gpus": place.gpus, "memory": place.memory}
            self._workers.append(ray.remote(Worker).options(**options).remote(made))


class Worker:
    """One process of the cluster with one model, on the device that Ray lent it."""

    def __init__(self, made: Made) -> None:
        self.made = made
        self.subject: Any = None

    def run(self, packed: bytes) -> None:
        """Compute cells into the store."""
        if self.subject is None:
            self.subject = self._subject()
        cells = _Reader(io.BytesIO(packed), self.subject).load()
        open_cells = lacking(self.subject.store, cells)
        if open_cells:
            self.subject.runner.run(self.subject, open_cells, progress=self.subject.progress)

    def _subject(self) -> Any:
        import torch

        from evenbits.cells.subject import Subject

        made = self.made
        torch.set_num_threads(made.threads)
        here, found = socket.gethostname(), _versions()
        differing = [f"{name} {found[name]}" for name in found if found[name] != made.versions[name]]
        if differing:
            raise DeviceError(f"{here} computes otherwise than the machine that asks: it has {', '.join(differing)}.")
        if not (made.local.folder.is_dir() and made.root.is_dir()):
            raise UsageError(
                f"{here} does not see {made.local.folder} or {made.root}: model and store (--store) must lie on a "
                "disk that every machine of the cluster sees under the same path."
            )
        kind = made.device.name.partition(":")[0]
        device = device_for(kind, weights=made.local.nbytes(made.dtype))  # of those that Ray lent it
        if device.key(made.dtype) != made.device.key(made.dtype):
            raise DeviceError(f"{here} has {device}, and this run is measured on {made.device.label}.")
        return Subject(
            local=made.local,
            store=Store(made.root),
            dtype=made.dtype,
            device=device,
            seed=made.seed,
            context=made.context,
            probe=made.probe,
            runner=Local(),
        )


def _versions() -> dict[str, str]:
    """Return what numbers depend on beside the device."""
    import torch

    from evenbits.scoring.arithmetic import product_dtype

    products = product_dtype(torch.bfloat16, torch.device("cpu"))
    named = {name: version(name) for name in ("evenbits", "torch", "transformers")}
    return named | {"products of bfloat16 in": str(products).removeprefix("torch.")}


def _packed(original: Original, cells: Sequence[Cell]) -> bytes:
    """Return the cells for a worker; where a variant holds the original, the worker puts its own in."""

    class Writer(_ray().cloudpickle.CloudPickler):  # type: ignore[misc]
        def persistent_id(self, value: object) -> str | None:
            return ORIGINAL if value is original else None

    buffer = io.BytesIO()
    Writer(buffer).dump(list(cells))
    return buffer.getvalue()


class _Reader(pickle.Unpickler):
    """Reads what `_packed` wrote; it comes from the process that started this worker."""

    def __init__(self, file: io.BytesIO, subject: object) -> None:
        super().__init__(file)
        self.subject = subject

    def persistent_load(self, _: str) -> object:
        return self.subject


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise UsageError("--runner ray needs Ray: pip install 'evenbits[ray]', or take --runner local.") from None
