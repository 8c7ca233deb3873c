"""The decoder body: windows in, final hidden states out, one row per real position.

Two ways give the same numbers: the model's own forward on right-padded batches (any architecture), and a lean forward
on packed windows (`evenbits.scoring.packed`) for the architectures it knows.

Shape legend: B windows, T positions of the longest window, N scored positions, D hidden.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

from evenbits.models.device import lacks_room, room_on
from evenbits.models.layout import decoder_of
from evenbits.scoring import packed
from evenbits.scoring.arithmetic import products_for
from evenbits.scoring.batches import Window

__all__ = ["final_hidden", "halved", "padded_hidden"]

Result = TypeVar("Result")


def final_hidden(model: Any, batch: Sequence[Window], *, pack: bool) -> torch.Tensor:
    """Return the final hidden states (after the last norm) of every scored position, shape N x D, window after window.

    `pack`: run the lean forward (the caller has asked `packed.supports`), else the model's own. The result is in the
    model's dtype.
    """
    with products_for(model.dtype, model.device):
        if not pack:
            return padded_hidden(model, batch)
        hidden_ND = packed.packed_hidden(model, [window.inputs for window in batch]).to(model.dtype)
    if all(len(window.targets) == len(window) for window in batch):
        return hidden_ND
    ends = itertools.accumulate(len(window) for window in batch)
    keep = [torch.arange(end - len(window.targets), end) for window, end in zip(batch, ends, strict=True)]
    return hidden_ND[torch.cat(keep).to(hidden_ND.device)]


def halved(
    batch: Sequence[Window], compute: Callable[[Sequence[Window]], Result], *, device: torch.device
) -> Iterator[tuple[Sequence[Window], Result]]:
    """Yield `compute(batch)`, or that of its halves, and so on, where the device has no room for the whole.

    `DeviceError` where there is no room for a single window.
    """
    if len(batch) == 1:
        with room_on(device, f"a single window of {len(batch[0])} tokens beside the model"):
            found: Result | None = compute(batch)
    else:
        try:
            found = compute(batch)
        except RuntimeError as error:
            if not lacks_room(error):
                raise
            found = None  # the failed attempt's memory hangs on the exception, so its halves come after it
    if found is not None:
        yield batch, found
        return
    release = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if release is not None:
        release()
    for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
        yield from halved(half, compute, device=device)


def padded_hidden(model: Any, batch: Sequence[Window]) -> torch.Tensor:
    """Run the model's own forward on `batch`, right-padded and without a mask, and gather the scored positions.

    Padding on the right cannot be seen by earlier positions of a causal model. Without a mask every architecture counts
    its positions from zero at the left, and attention takes its causal kernel.
    """
    longest = max(len(window) for window in batch)
    ids_BT = torch.zeros((len(batch), longest), dtype=torch.int64)
    for row, window in enumerate(batch):
        ids_BT[row, : len(window)] = torch.tensor(window.inputs)
    hidden_BTD = decoder_of(model)(input_ids=ids_BT.to(model.device), use_cache=False).last_hidden_state
    rows = [hidden_BTD[row, len(window) - len(window.targets) : len(window)] for row, window in enumerate(batch)]
    return torch.cat(rows)
