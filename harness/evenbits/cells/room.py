"""Room for workers in a Ray cluster: how to get in, how much there is, what is free and who holds the rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from evenbits.errors import UsageError

__all__ = ["Place", "amounts", "free", "holders", "join", "places_of", "ray_module", "total", "without_room"]

JOIN_SECONDS = 30.0
"""A cluster that is there answers in a few seconds; Ray itself would go on asking for a quarter of an hour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Room for one worker: `cpus`, `gpus` and `memory` (bytes) as Ray counts them, on some machine of the cluster."""

    cpus: int
    gpus: int
    memory: int


def ray_module() -> Any:
    """Return Ray, which is imported where it is needed; `UsageError` where it is not installed."""
    try:
        return import_module("ray")
    except ImportError:
        raise UsageError("--runner ray needs Ray: pip install 'evenbits[ray]', or take --runner local.") from None


def join(address: str | None) -> None:
    """Join the cluster at `address`, or begin one of this machine's own; `UsageError` where none answers in time."""
    ray = ray_module()
    if ray.is_initialized():
        return
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(address="local", **quiet)
        return
    answers: list[str] = []

    def join() -> None:
        try:
            ray.init(address=address, **quiet)
        except Exception as error:  # noqa: BLE001 - of many kinds, and whatever it is there is no cluster to work on
            answers.append(" ".join(str(error).split()))
        else:
            answers.append("")

    thread = threading.Thread(target=join, daemon=True)  # what hangs in it must not keep the process from ending
    thread.start()
    thread.join(JOIN_SECONDS)
    told = answers[0] if answers else f"nothing answers within {JOIN_SECONDS:.0f} seconds."
    if told:
        raise UsageError(
            f"--ray-address {address}: {told} Start evenbits on a machine of a running cluster (`ray status` says "
            "whether it is), or leave --ray-address out for workers on this machine."
        )


def places_of(nodes: Iterable[Mapping[str, float]], *, memory: int, gpus: int, most: int) -> list[Place]:
    """Return where at most `most` workers have room that need `memory` bytes and `gpus` each; none where nobody has.

    `nodes`: resources of each machine (`CPU`, `GPU`, `memory`). Without GPUs a worker has a core at least, and cores
    are divided among as many workers as memory has room for.
    """
    found: list[Place] = []
    for node in nodes:
        cores = int(node.get("CPU", 0))
        count = min(cores, int(node.get("memory", 0) // memory), int(node.get("GPU", 0) // gpus) if gpus else most)
        found += [Place(cpus=cores // count, gpus=gpus, memory=memory) for _ in range(min(count, most))]
    return found[:most]


def total() -> list[dict[str, float]]:
    """Return the resources of every machine of the cluster."""
    return [node["Resources"] for node in ray_module().nodes() if node["Alive"]]


def free() -> list[dict[str, float]]:
    """Return of every machine the resources that nobody holds; Ray's public functions have but their sum."""
    return list(import_module("ray._private.state").available_resources_per_node().values())


def holders() -> str:
    """Return who else is at work in the cluster, as far as Ray tells: its actors, not its tasks."""
    ray = ray_module()
    mine = ray.get_runtime_context().get_job_id()
    found = [
        f"{one['ActorClassName']} (process {one['Pid']} on {one['Address']['IPAddress']})"
        for one in import_module("ray._private.state").actors().values()
        if one["State"] == "ALIVE" and one["JobID"] != mine
    ]
    more = f" and {len(found) - 3} others" if len(found) > 3 else ""
    return f"; at work there: {', '.join(found[:3])}{more}" if found else ""


def amounts(memory: float, gpus: float) -> str:
    """Return what a worker needs, in words."""
    return f"{memory / 2**30:.1f} GiB of memory{f', {int(gpus)} GPUs' if gpus else ''} and a core"


def without_room(nodes: Sequence[Mapping[str, float]], *, memory: int, gpus: int) -> str:
    """Return the sentence for a cluster of which no machine is large enough, whoever else works there."""
    most = {name: max((one.get(name, 0) for one in nodes), default=0) for name in ("memory", "GPU")}
    there = f"{most['memory'] / 2**30:.1f} GiB"
    if gpus:
        there += f" and {most['GPU']:.0f} GPUs"
    return (
        f"no machine of the cluster has room for a worker with {amounts(memory, gpus)}: the most that one of "
        f"{len(nodes)} has is {there}. Take --dtype bfloat16, a smaller model, or a larger machine."
    )
