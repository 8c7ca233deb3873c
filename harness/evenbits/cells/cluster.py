"""Where lacking cells are computed: by workers of a Ray cluster, one model each.

A worker takes some of the languages and computes their cells as `Local` does, into the store that all of them see, so
that numbers are those of a local run. Cells are stored as soon as they are known: a worker that is lost costs what it
had open, and the others go on. Workers take the room that others leave; where there is none, it is waited for.
"""

from __future__ import annotations

import io
import pickle
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from evenbits.cells.cell import Cell
from evenbits.cells.room import amounts, free, holders, join, places_of, ray_module, total, without_room
from evenbits.cells.runner import Local, Runner, lacking
from evenbits.cells.streaming import Streamed
from evenbits.errors import DeviceError, UsageError
from evenbits.models.device import HELD_TWICE, SPARE_BYTES, Device, device_for
from evenbits.models.records import LocalModel
from evenbits.progress import Progress, Task
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants.variant import Original

__all__ = ["Cluster", "need_of", "runner_for", "shares_of"]

POLL_SECONDS = 1.0

FEW_SECONDS = 5.0
"""After which it is said what is waited for. Room of workers that have just ended is back sooner."""

START_SECONDS = 30.0
"""In which a worker that has room begins. Ray does not tell one that is slow from one whose room is gone."""

ORIGINAL = "original"


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What a worker makes its subject of. Paths, `arithmetic` and `evenbits` are the same on every machine."""

    local: LocalModel
    root: Path
    dtype: str
    device: Device
    seed: int
    context: int
    probe: Corpus | None
    threads: int
    arithmetic: str
    evenbits: str


def runner_for(name: str, *, address: str | None = None, layers: bool = False, device: str = "auto") -> Runner:
    """Return the runner called `name`: `local`, or `ray` on the cluster at `address`; `layers`: one at a time.

    `device`: what --device says.
    """
    if name == "local":
        return Streamed() if layers else Local()
    if layers:
        raise UsageError("--stream-layers reads the model in this process: leave --runner ray out, or --stream-layers.")
    return Cluster(address=address, device=device)


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


def need_of(original: Original, cells: Iterable[Cell]) -> dict[str, int]:
    """Return the `memory` (bytes) and the `gpus` that a worker needs for `cells`.

    What is measured in another arithmetic than the run's is taken layer by layer, beside the model or in its place
    (`Local`); only a variant that cannot be has the whole model in it.
    """
    whole = {cell.dtype for cell in cells if cell.variant.in_layer is None} | {original.dtype}
    widest = max(map(original.local.nbytes, whole))
    gpus = len(original.device.names) if original.device.name.startswith("cuda") else 0  # Ray counts no others
    return {"memory": int(HELD_TWICE * widest) + SPARE_BYTES, "gpus": gpus}


@dataclass(kw_only=True)
class Cluster:
    """Workers of the cluster at `address`; None: one of this machine's own, which ends with the process.

    `device`: what --device says, `auto` being where this process runs models.
    """

    together: ClassVar[bool] = False
    address: str | None = None
    device: str = "auto"
    _workers: list[Any] = field(default_factory=list, repr=False)

    def release(self) -> None:
        ray = ray_module()
        for worker in self._workers:
            ray.kill(worker)
        self._workers.clear()

    def run(self, original: Original, cells: Sequence[Cell], *, progress: Progress) -> None:
        """Compute the cells; whoever is lost is replaced, until a round in which nothing was finished."""
        join(self.address)
        self._refuse_idle_gpus(original)
        open_cells = list(cells)
        with progress.task(f"{original.local.text}  on the cluster", total=len(cells)) as task:
            while open_cells:
                self._staff(original, open_cells, task)
                lost = self._round(original, shares_of(open_cells, len(self._workers)), task)
                left = lacking(original.store, open_cells)
                if len(left) == len(open_cells):
                    raise DeviceError(
                        f"{lost} workers were lost before they had measured anything of {original.local.text}: "
                        "look for the reason in Ray's logs (memory is the most frequent), or take --runner local."
                    )
                open_cells = left
        original.store.misses += len(cells)

    def _refuse_idle_gpus(self, original: Original) -> None:
        """Raise `DeviceError` where `auto` means the CPU because this machine has no GPU, and the cluster has some."""
        gpus = int(sum(node.get("GPU", 0) for node in total()))
        if self.address and self.device == "auto" and original.device.name == "cpu" and gpus:
            raise DeviceError(
                f"--device auto is the CPU on this machine, and the cluster's GPUs ({gpus}) would stand idle: start "
                "evenbits on a machine of the cluster that has a GPU (statistics on text are measured there; `ray job "
                "submit --entrypoint-num-gpus 1 -- evenbits ...` finds one), or take --device cpu."
            )

    def _round(self, original: Original, shares: Sequence[Sequence[Cell]], task: Task) -> int:
        """Have every worker compute its share; return how many workers were lost over it.

        A worker whose room somebody took before it could start is given up as soon as others are done: that somebody
        may be a run that waits for the room of these.
        """
        ray = ray_module()
        jobs = {
            worker.run.remote(_packed(original, share)): (worker, share)
            for worker, share in zip(self._workers, shares, strict=False)
        }
        unborn = {worker.__ray_ready__.remote(): worker for worker, _ in jobs.values()}
        began = time.monotonic()
        lost = done = finished = 0
        every = [cell for share in shares for cell in share]
        while jobs:
            ready, _ = ray.wait(list(jobs), timeout=POLL_SECONDS)
            for born in ray.wait(list(unborn), num_returns=len(unborn), timeout=0)[0] if unborn else ():
                del unborn[born]
            known = sum(original.store.has("losses", cell.key()) for cell in every)
            task.advance(known - done)
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
                else:
                    finished += 1
            waiting = [worker for worker, _ in jobs.values() if worker in unborn.values()]
            waited = time.monotonic() - began
            if finished and len(waiting) == len(jobs) and waited > START_SECONDS:
                for worker in waiting:
                    ray.kill(worker)
                    self._workers.remove(worker)
                return lost
            stands = len(waiting) == len(jobs) and waited > FEW_SECONDS
            task.doing(f"waits for a worker to start{holders()}" if stands else "")
        return lost

    def _staff(self, original: Original, cells: Sequence[Cell], task: Task) -> None:
        """Have as many workers as there is room for now, of this model on the run's kind of device; one at least.

        Room that others hold is waited for where there is no worker yet: a moment for all of it, then for any.
        """
        need, texts = need_of(original, cells), len({cell.text_digest for cell in cells})
        wanted = places_of(total(), **need, most=texts)
        if not wanted:
            raise DeviceError(without_room(total(), **need))
        began = time.monotonic()
        while True:
            places = places_of(free(), **need, most=max(0, len(wanted) - len(self._workers)))
            late = time.monotonic() - began > FEW_SECONDS
            if self._workers or len(places) == len(wanted) or (places and late):
                break
            if late:
                task.doing(f"waits for {amounts(need['memory'], need['gpus'])} on one machine{holders()}")
            time.sleep(POLL_SECONDS)
        task.doing("")
        for place in places:
            made = Made(
                local=original.local,
                root=original.store.root.absolute(),
                dtype=original.dtype,
                device=original.device,
                seed=original.seed,
                context=original.context,
                probe=original.probe,
                threads=place.cpus,
                arithmetic=original.device.arithmetic(original.dtype),
                evenbits=version("evenbits"),
            )
            options = {"num_cpus": place.cpus, "num_gpus": place.gpus, "memory": place.memory}
            self._workers.append(ray_module().remote(Worker).options(**options).remote(made))


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
        here, found = socket.gethostname(), version("evenbits")
        if found != made.evenbits:
            raise DeviceError(f"{here} has evenbits {found}, and the machine that asks {made.evenbits}.")
        if not (made.local.folder.is_dir() and made.root.is_dir()):
            raise UsageError(
                f"{here} does not see {made.local.folder} or {made.root}: model and store (--store) must lie on a "
                "disk that every machine of the cluster sees under the same path."
            )
        kind = made.device.name.partition(":")[0]
        device = device_for(kind, weights=made.local.nbytes(made.dtype))  # of those that Ray lent it
        if (computes := device.arithmetic(made.dtype)) != made.arithmetic:
            raise DeviceError(
                f"{here} computes otherwise than the machine that asks: in {computes}, and not in {made.arithmetic}."
            )
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


def _packed(original: Original, cells: Sequence[Cell]) -> bytes:
    """Return the cells for a worker; where a variant holds the original, the worker puts its own in."""

    class Writer(ray_module().cloudpickle.CloudPickler):  # type: ignore[misc]
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
