"""Scoring several changed models beside full precision, whose logits are made once for all of them.

The head is most of the arithmetic of a small model with a large vocabulary. So each changed model only runs its body
while it is changed; the final hidden states that it leaves are held against full precision together. The same batches
and sums as scoring them one by one, and the same bytes.

Shape legend: N scored positions of a batch, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from evenbits.models.layout import text_config
from evenbits.records import Losses
from evenbits.scoring import packed
from evenbits.scoring.batches import Window, context_limit
from evenbits.scoring.body import final_hidden, halved
from evenbits.scoring.divergence import HiddenStates, diverge_each
from evenbits.scoring.head import Head, kept_head
from evenbits.scoring.likelihood import _batches, _places, _Sheet
from evenbits.scoring.sweep import Text

if TYPE_CHECKING:
    from evenbits.models.records import LoadedModel

__all__ = ["Reading", "read", "score_each"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reading:
    """What a changed model makes of a text: its head, and final hidden states, N x D for each of the batches.

    `pack`: whether the lean forward could be taken while the model was changed; batches depend on it.
    """

    head: Head
    batches: list[list[Window]]
    hidden: list[torch.Tensor]
    pack: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the hidden states, without the shared head."""
        return sum(hidden_ND.nbytes for hidden_ND in self.hidden)


def read(loaded: LoadedModel, text: Text, *, context: int) -> Reading:
    """Run the body of the model as it is now, patches included. `DeviceError` where one window is too much."""
    model: Any = loaded.model
    pack = packed.supports(model, context=context_limit(text_config(model), context))
    batches = _batches(model, text.windows, None, padded=not pack)
    hidden = []
    with torch.inference_mode():
        for batch in batches:
            parts = halved(batch, partial(final_hidden, model, pack=pack), device=model.device)
            hidden.append(torch.cat([part for _, part in parts]))
    return Reading(head=kept_head(loaded), batches=batches, hidden=hidden, pack=pack)


def score_each(text: Text, readings: Sequence[Reading], reference: HiddenStates) -> list[Losses]:
    """Return the losses of each reading of `text`, with divergence from `reference`: those of `score`.

    `NonFiniteError` names segment and language where a model gave NaN or infinity.
    """
    sheets = [_Sheet(text.tokens, divergence=True) for _ in readings]
    device = reference.hidden.device
    with torch.inference_mode():
        for pack in {reading.pack for reading in readings}:
            alike = [place for place, reading in enumerate(readings) if reading.pack is pack]
            for number, batch in enumerate(readings[alike[0]].batches):
                places_N = _places(batch)
                targets_N = torch.tensor([token for w in batch for token in w.targets], device=device)
                changed = [(readings[place].head, readings[place].hidden[number]) for place in alike]
                found = diverge_each(changed, targets_N, reference[places_N.to(device)])
                for place, divergence in zip(alike, found, strict=True):
                    sheets[place].put(places_N.numpy(), divergence)
    return [sheet.losses(text.tag, text.segment_ids, text.texts) for sheet in sheets]
