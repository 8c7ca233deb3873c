"""A variant: one way in which the measured thing differs from the original, and what scores text while it is open.

Rounded weights, kept weights, protected layers, zeroed weights, another checkpoint, a file run by another engine and a
served endpoint are all variants. One file each in this folder; `registry.py` knows which text after `--spec` is whose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from evenbits.models.device import Device
from evenbits.models.records import LoadedModel, LocalModel, OnDemand
from evenbits.progress import Progress
from evenbits.records import Corpus, Losses
from evenbits.store import Store

if TYPE_CHECKING:  # torch and transformers are imported when something has to be computed
    from evenbits.scoring import HiddenStates
    from evenbits.scoring.batches import Window

__all__ = ["FULL_PRECISION", "SMALL_BATCH", "InMemory", "Original", "Scorer", "Variant", "full_beside", "in_dtype"]

SMALL_BATCH = 128
"""Tokens per batch of the other batch composition that the noise floor is measured against."""


class Original(Protocol):
    """The model that variants are of. `probe`: text that statistics may be taken on; it is never scored.

    `device`: where models run. `loaded(dtype)` is the original in memory, loaded on first need; a variant that runs
    elsewhere never asks for it.
    """

    local: LocalModel
    store: Store
    dtype: str
    seed: int
    context: int
    probe: Corpus | None
    device: Device
    progress: Progress

    def loaded(self, dtype: str | None = None) -> LoadedModel: ...

    def on_demand(self) -> OnDemand: ...


class Scorer(Protocol):
    """What scores text while a variant is open: the model in memory, a process, a server.

    `arithmetic` says how, for people: dtype, dtype of the products, device; of a foreign engine name, version, build.
    """

    @property
    def arithmetic(self) -> str: ...

    def score(
        self,
        language: str,
        segment_ids: Sequence[str],
        texts: Sequence[str],
        *,
        reference: HiddenStates | None = None,
        keep_hidden: bool = False,
        small_batches: bool = False,
    ) -> tuple[Losses, HiddenStates | None]:
        """Return the losses of one language, in nats per whole segment, and the hidden states if they are kept.

        `reference`: full precision's hidden states on the same text; the losses then carry KL, top-1 changes and
        probability differences. A scorer whose variant has no `divergence` is never given one.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A way to differ from the original.

    `label` names it for people, `key` identifies it in the store: everything that its scores depend on beside model,
    text, context and arithmetic. It either is a `change(loaded)` of the model in memory, a context manager under which
    the model is changed and after which every byte is as before; or it `runs` elsewhere: `runs(original)` is a context
    manager that gives a scorer. `dtype` overrides the run's arithmetic (of a foreign engine: its name, version and
    build). `divergence`: whether KL against full precision is measured too. `first_layer`: the decoder layer before
    which it changes nothing, so that what stands before may be shared; None where it may change anything. `in_layer`:
    the change of one decoder layer alone, or with None of what stands outside the layers, for models that are read
    layer by layer; None where a change needs to see more at once. `lean`: False where a model in torch is run by its
    own forward alone, as libraries' modules are; so is then what it is held against.
    """

    label: str
    key: Mapping[str, Any]
    change: Callable[[LoadedModel], AbstractContextManager[Any]] | None = None
    runs: Callable[[Original], AbstractContextManager[Scorer]] | None = None
    dtype: str | None = None
    divergence: bool = True
    first_layer: int | None = None
    in_layer: Callable[[LoadedModel, int | None], AbstractContextManager[Any]] | None = None
    lean: bool = True

    def __post_init__(self) -> None:
        if (self.change is None) == (self.runs is None):
            raise ValueError(f"{self.label}: a variant either changes the model in memory or runs elsewhere")

    @property
    def in_memory(self) -> bool:
        """Whether it is the original, changed in memory, so that other arithmetic and shared layers are possible."""
        return self.change is not None

    @contextmanager
    def open(self, original: Original) -> Iterator[Scorer]:
        """Give what scores text under this variant, until the context ends."""
        if self.runs is not None:
            with self.runs(original) as scorer:
                yield scorer
            return
        loaded = original.loaded(self.dtype)
        with self.applied(loaded):
            yield InMemory(loaded, context=original.context, lean=self.lean)

    def applied(self, loaded: LoadedModel) -> AbstractContextManager[Any]:
        """Return the context under which `loaded` is changed."""
        if self.change is None:
            raise ValueError(f"{self.label} runs elsewhere: it is no change of the model in memory")
        return self.change(loaded)


class InMemory:
    """Scores with a loaded model as it is now, patches included.

    `body`: gives final hidden states in its place. `lean`: whether the lean forward may, else the model's own does.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        context: int,
        body: Callable[[Sequence[Window]], Any] | None = None,
        lean: bool = True,
    ) -> None:
        self.loaded, self.context, self.body, self.lean = loaded, context, body, lean

    @property
    def arithmetic(self) -> str:
        """The dtype of weights, that of products where it is another, and the device."""
        from evenbits.scoring.arithmetic import product_dtype

        device = self.loaded.model.device
        dtypes = dict.fromkeys((self.loaded.dtype, product_dtype(self.loaded.dtype, device)))
        return f"{' in '.join(str(one).removeprefix('torch.') for one in dtypes)} on {device.type}"

    def score(
        self,
        language: str,
        segment_ids: Sequence[str],
        texts: Sequence[str],
        *,
        reference: HiddenStates | None = None,
        keep_hidden: bool = False,
        small_batches: bool = False,
    ) -> tuple[Losses, HiddenStates | None]:
        """Return the losses, as `evenbits.scoring.score` does."""
        from evenbits import scoring

        return scoring.score(
            self.loaded,
            language,
            segment_ids,
            texts,
            context=self.context,
            reference=reference,
            keep_hidden=keep_hidden,
            batch_tokens=SMALL_BATCH if small_batches else None,
            lean=self.lean,
            body=self.body,
        )


def _unchanged(_loaded: LoadedModel, _layer: int | None = None) -> AbstractContextManager[None]:
    return nullcontext()


FULL_PRECISION = Variant(
    label="full precision", key={"spec": "full"}, change=_unchanged, in_layer=_unchanged, divergence=False
)


OWN_FORWARD = replace(FULL_PRECISION, key={"spec": "full", "forward": "own"}, in_layer=None, lean=False)
"""Full precision by the model's own forward, whose sums of many layers are in the model's dtype."""


def full_beside(variant: Variant, *, dtype: str) -> Variant:
    """Return full precision as `variant` is computed: in its dtype and by its forward, so that nothing else differs.

    `dtype`: the run's, which it has beside an engine that is not torch.
    """
    if variant.in_memory:
        return in_dtype(FULL_PRECISION, variant.dtype or dtype)
    return in_dtype(FULL_PRECISION, dtype) if variant.lean else in_dtype(OWN_FORWARD, variant.dtype or dtype)


def in_dtype(variant: Variant, dtype: str) -> Variant:
    """Return the variant in another arithmetic."""
    return replace(variant, dtype=dtype)
