"""Sweep: score many changes of single layers without running the layers before them again.

A change of layer k leaves everything before it as it was. So the hidden states that enter a layer are kept for a chunk
of text, every change of that layer runs from there to the end, and then the unchanged layer moves the kept states on.
P layers cost (P + 1) / 2 passes of the decoder instead of P, and the head is reduced without looking for its maximum:
the log-sum-exp of full precision is near enough to shift by.

Two ways, the same as for scoring from the start: the lean forward on packed windows, and for any other architecture the
model's own layers, called again with the arguments that its own forward gave them. The second is checked on the first
batch; where the layers called one by one do not give the model's own result, every change is scored from the start.

Shape legend: N positions of a batch, D hidden, P layers of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from evenbits.models.layout import text_config
from evenbits.records import Losses
from evenbits.scoring import packed
from evenbits.scoring.arithmetic import in_float64, products_for
from evenbits.scoring.batches import Window, batched, context_limit, length_limit
from evenbits.scoring.body import halved, padded_hidden
from evenbits.scoring.head import Head, Prediction, head_of, predict, strips, token_tiles
from evenbits.scoring.likelihood import CONTEXT, _Sheet, batch_tokens_for, read_text, score

if TYPE_CHECKING:
    from evenbits.models.records import LoadedModel

__all__ = [
    "Change",
    "Layers",
    "PackedLayers",
    "ReplayLayers",
    "SweptLosses",
    "Text",
    "close",
    "first_batch",
    "gives_the_same",
    "one_by_one",
    "sweep",
]

KEPT_BYTES = 256 << 20
"""Hidden states kept at once; languages are taken in chunks of this size, so that memory does not grow with text."""

SMALLEST_SUM = 1e-30
"""Sums of shifted exponentials below this have lost digits in float32: those tokens are reduced the ordinary way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A change that touches nothing before decoder layer `layer`; `apply()` is the context in which it holds."""

    layer: int
    apply: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweptLosses:
    """Scores by language: of full precision, and of each change in the order they were given."""

    full: Mapping[str, Losses]
    changed: tuple[Mapping[str, Losses], ...]


class Layers(Protocol):
    """Runs the decoder a layer at a time on the kept state of a batch."""

    def enter(self, batch: Sequence[Window]) -> Any:
        """Return the state of `batch` before the first layer."""

    def step(self, state: Any, layer: int) -> Any:
        """Return the state after `layer`; the state that was given stays as it is."""

    def finish(self, state: Any, batch: Sequence[Window]) -> torch.Tensor:
        """Return the final hidden states of the scored positions, window after window."""


def sweep(
    loaded: LoadedModel,
    segment_ids: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    changes: Sequence[Change],
    *,
    context: int = CONTEXT,
    batch_tokens: int | None = None,
    advance: Callable[[], None] = lambda: None,
    expect: Callable[[int], None] = lambda _total: None,
) -> Iterator[SweptLosses]:
    """Score full precision and every change on `texts` (by language), a chunk of languages at a time.

    Losses are those of `score` on the changed model, to rounding (float32: 1e-5 relative), without divergence.
    `advance` is called after each change of each chunk, `expect` once before with how often that will be. Raises what
    `score` raises.
    """
    limit = context_limit(text_config(loaded.model), context)
    budget = batch_tokens or batch_tokens_for(loaded.model.device)
    lean = packed.supports(loaded.model, context=limit)
    runner: Layers = PackedLayers(loaded.model) if lean else ReplayLayers(loaded)
    sheets = {tag: Text.of(loaded, tag, segment_ids, texts[tag], context) for tag in texts}
    chunks = list(_chunks(sheets, int(text_config(loaded.model).hidden_size)))
    expect(len(changes) * len(chunks))
    for tags in chunks:
        if not gives_the_same(runner, loaded, sheets[tags[0]], budget):
            chosen = [sheets[tag] for tag in tags]
            yield _from_the_start(loaded, chosen, changes, context=context, batch_tokens=budget, advance=advance)
        else:
            yield _Chunk(loaded, runner, [sheets[tag] for tag in tags], budget).run(changes, advance)


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """One language, tokenized."""

    tag: str
    segment_ids: Sequence[str]
    texts: Sequence[str]
    tokens: list[list[int]]
    windows: list[Window]

    @classmethod
    def of(cls, loaded: LoadedModel, tag: str, segment_ids: Sequence[str], texts: Sequence[str], context: int) -> Text:
        tokens, windows = read_text(loaded, tag, segment_ids, texts, context=context)
        return cls(tag=tag, segment_ids=segment_ids, texts=texts, tokens=tokens, windows=windows)

    @property
    def positions(self) -> int:
        return sum(len(window) for window in self.windows)


def _chunks(sheets: Mapping[str, Text], width: int) -> Iterator[list[str]]:
    most = KEPT_BYTES // (4 * width)
    chunk: list[str] = []
    used = 0
    for tag, text in sheets.items():
        if chunk and used + text.positions > most:
            yield chunk
            chunk, used = [], 0
        chunk.append(tag)
        used += text.positions
    if chunk:
        yield chunk


@dataclass(kw_only=True, slots=True)
class _Kept:
    """A batch with its state in the decoder, its targets, and the log-sum-exp of full precision once it is known."""

    text: int
    batch: Sequence[Window]
    state: Any
    places: torch.Tensor
    targets: torch.Tensor
    lse: torch.Tensor


class _Chunk:
    """The sweep over some languages whose hidden states are held at once."""

    def __init__(self, loaded: LoadedModel, runner: Layers, texts: list[Text], batch_tokens: int) -> None:
        self.loaded, self.runner, self.texts = loaded, runner, texts
        self.layers = len(loaded.anatomy.layers)
        self.batch_tokens = batch_tokens
        self.padded = not isinstance(runner, PackedLayers)

    def run(self, changes: Sequence[Change], advance: Callable[[], None]) -> SweptLosses:
        kept, full = self._enter()
        found: list[Mapping[str, Losses]] = [{} for _ in changes]
        order = sorted(range(len(changes)), key=lambda place: changes[place].layer)
        reached = 0
        for place in order:
            while reached < changes[place].layer:
                self._advance(kept, reached)
                reached += 1
            with changes[place].apply():
                found[place] = self._score(kept, reached)
            advance()
        return SweptLosses(full=full, changed=tuple(found))

    def _enter(self) -> tuple[list[_Kept], dict[str, Losses]]:
        """Run every batch through the unchanged model, and keep its state before the first layer."""
        kept: list[_Kept] = []
        sheets = [_Sheet(text.tokens, divergence=False) for text in self.texts]
        apart = length_limit(text_config(self.loaded.model))
        with torch.inference_mode(), self._products():
            head = head_of(self.loaded)

            def entered(batch: Sequence[Window]) -> tuple[Any, torch.Tensor, Prediction]:
                state = self.runner.enter(batch)
                hidden_ND = self._through(state, 0, batch)
                targets = torch.tensor([t for w in batch for t in w.targets], device=hidden_ND.device)
                return state, targets, predict(head, hidden_ND, targets, top1=False)

            for number, text in enumerate(self.texts):
                for whole in batched(text.windows, tokens=self.batch_tokens, padded=self.padded, apart=apart):
                    for batch, (state, targets, scored) in halved(whole, entered, device=self.loaded.model.device):
                        places = torch.cat([torch.arange(w.start, w.start + len(w.targets)) for w in batch])
                        sheets[number].put(places.numpy(), scored)
                        kept.append(
                            _Kept(text=number, batch=batch, state=state, places=places, targets=targets, lse=scored.lse)
                        )
        return kept, self._losses(sheets)

    def _advance(self, kept: Sequence[_Kept], layer: int) -> None:
        with torch.inference_mode(), self._products():
            for one in kept:
                one.state = self.runner.step(one.state, layer)

    def _score(self, kept: Sequence[_Kept], layer: int) -> dict[str, Losses]:
        sheets = [_Sheet(text.tokens, divergence=False) for text in self.texts]
        with torch.inference_mode(), self._products():
            head = head_of(self.loaded)
            for one in kept:
                hidden_ND = self._through(one.state, layer, one.batch)
                nll = _nll(head, hidden_ND, one.targets, one.lse)
                sheets[one.text].nll_N[one.places.numpy()] = nll.cpu().numpy()
        return self._losses(sheets)

    def _through(self, state: Any, layer: int, batch: Sequence[Window]) -> torch.Tensor:
        for later in range(layer, self.layers):
            state = self.runner.step(state, later)
        return self.runner.finish(state, batch)

    def _products(self) -> AbstractContextManager[Any]:
        model: Any = self.loaded.model
        return products_for(model.dtype, model.device)

    def _losses(self, sheets: Sequence[_Sheet]) -> dict[str, Losses]:
        return {
            text.tag: sheet.losses(text.tag, text.segment_ids, text.texts)
            for text, sheet in zip(self.texts, sheets, strict=True)
        }


def _nll(head: Head, hidden_ND: torch.Tensor, targets_N: torch.Tensor, shift_N: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of the true tokens (float64), given a log-sum-exp `shift_N` that is near.

    Without the search for a maximum a tile of logits is passed over three times instead of six. Where the shift was
    not near enough (overflow, or nothing left), the ordinary reduction answers.
    """
    total_N = torch.zeros_like(shift_N)
    near_N = shift_N.float().to(hidden_ND.device)
    target_N = torch.zeros_like(near_N)
    rows = token_tiles(hidden_ND)
    for tile in head.tiles():
        for row in rows:
            for strip, logits_RU in strips(tile, hidden_ND[row]):
                at = slice(row.start + strip.start, row.start + strip.stop)
                place_R = targets_N[at] - tile.begin
                here_R = (place_R >= 0) & (place_R < tile.end - tile.begin)
                place_R = place_R.clamp(0, tile.end - tile.begin - 1)
                found_R = logits_RU.gather(1, place_R[:, None]).squeeze(1)
                target_N[at] = torch.where(here_R, found_R, target_N[at])
                total_N[at] += in_float64(logits_RU.sub_(near_N[at, None]).exp_().sum(dim=1))
    lse_N, true_N = in_float64(near_N) + total_N.log(), in_float64(target_N)
    far_N = ~((total_N > SMALLEST_SUM) & torch.isfinite(total_N))
    if bool(far_N.any()):
        there_N = far_N.to(hidden_ND.device)
        again = predict(head, hidden_ND[there_N], targets_N[there_N], top1=False)
        lse_N[far_N], true_N[far_N] = again.lse, again.target
    return lse_N - true_N


class PackedLayers:
    """The lean forward, a layer at a time: state is (stream N x D in float32, frame)."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def enter(self, batch: Sequence[Window]) -> Any:
        return packed.entered(self.model, [window.inputs for window in batch])

    def step(self, state: Any, layer: int) -> Any:
        stream_ND, frame = state
        return packed.through(self.model.model.layers[layer], stream_ND, frame, keep=True), frame

    def finish(self, state: Any, batch: Sequence[Window]) -> torch.Tensor:
        hidden_ND = packed.left(self.model, *state).to(self.model.dtype)
        ends = torch.tensor([len(window) for window in batch]).cumsum(0).tolist()
        keep = [torch.arange(end - len(w.targets), end) for w, end in zip(batch, ends, strict=True)]
        return hidden_ND[torch.cat(keep).to(hidden_ND.device)]


@dataclass(kw_only=True, slots=True)
class _Calls:
    """What the model's own forward gave each layer besides the hidden states."""

    first: torch.Tensor | None = None
    extra: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)


class ReplayLayers:
    """The model's own layers on right-padded batches: state is (hidden B x T x D, the layers' other arguments).

    `dry`: the arguments are asked for without running a layer, for models that have none of their weights: a layer then
    gives back what it was given, as a `tensor` or as a `tuple` that begins with it.
    """

    def __init__(self, loaded: LoadedModel, *, dry: Literal["tensor", "tuple"] | None = None) -> None:
        self.loaded, self.dry = loaded, dry
        self.model: Any = loaded.model
        self.layers = [loaded.model.get_submodule(name) for name in loaded.anatomy.layers]
        norm = loaded.anatomy.final_norm
        self.norm = None if norm is None else loaded.model.get_submodule(norm)

    def enter(self, batch: Sequence[Window]) -> Any:
        calls = _Calls()

        def listen(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            named = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            if calls.first is None:
                calls.first = args[0] if args else kwargs["hidden_states"]
            calls.extra.append((args[1:], named))

        with ExitStack() as stack:
            for layer in self.layers:
                stack.callback(layer.register_forward_pre_hook(listen, with_kwargs=True).remove)
                if self.dry is not None:
                    stack.enter_context(_passed_over(layer, boxed=self.dry == "tuple"))
            padded_hidden(self.model, batch)
        return calls.first, calls.extra

    def step(self, state: Any, layer: int) -> Any:
        hidden_BTD, extra = state
        args, kwargs = extra[layer]
        output = self.layers[layer](hidden_BTD, *args, **kwargs)
        return (output[0] if isinstance(output, tuple) else output), extra

    def finish(self, state: Any, batch: Sequence[Window]) -> torch.Tensor:
        hidden_BTD = state[0] if self.norm is None else self.norm(state[0])
        return torch.cat(
            [hidden_BTD[row, len(window) - len(window.targets) : len(window)] for row, window in enumerate(batch)]
        )


@contextmanager
def _passed_over(layer: torch.nn.Module, *, boxed: bool) -> Iterator[None]:
    """Let a layer give back the hidden states that it is given, `boxed` in a tuple."""

    def forward(hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states,) if boxed else hidden_states

    layer.__dict__["forward"] = forward
    try:
        yield
    finally:
        del layer.__dict__["forward"]


def gives_the_same(runner: Layers, loaded: LoadedModel, text: Text, batch_tokens: int) -> bool:
    """Return whether the layers called one by one give the model's own hidden states, on one batch.

    The lean forward is held to the model's own by tests; other architectures are asked here.
    """
    if isinstance(runner, PackedLayers) or not text.windows:
        return True
    batch = first_batch(loaded, text, batch_tokens)
    with torch.inference_mode(), products_for(loaded.model.dtype, loaded.model.device):
        return close(padded_hidden(loaded.model, batch), one_by_one(runner, loaded, batch))


def first_batch(loaded: LoadedModel, text: Text, batch_tokens: int) -> list[Window]:
    """Return the first batch in which the model's own forward reads `text`."""
    apart = length_limit(text_config(loaded.model))
    return next(batched(text.windows, tokens=batch_tokens, padded=True, apart=apart))


def one_by_one(
    runner: Layers,
    loaded: LoadedModel,
    batch: Sequence[Window],
    held: Callable[[int], AbstractContextManager[Any]] = lambda _layer: nullcontext(),
) -> torch.Tensor:
    """Return what the layers called one by one give for a batch; `held(layer)`: in which a layer has its weights."""
    state = runner.enter(batch)
    for layer in range(len(loaded.anatomy.layers)):
        with held(layer):
            state = runner.step(state, layer)
    return runner.finish(state, batch)


def close(own_ND: torch.Tensor, ours_ND: torch.Tensor) -> bool:
    """Return whether two ways to final hidden states differ by rounding alone."""
    return own_ND.shape == ours_ND.shape and torch.allclose(own_ND, ours_ND, rtol=1e-4, atol=1e-4)


def _from_the_start(
    loaded: LoadedModel,
    chosen: Sequence[Text],
    changes: Sequence[Change],
    *,
    context: int,
    batch_tokens: int,
    advance: Callable[[], None],
) -> SweptLosses:
    def scored() -> dict[str, Losses]:
        found = {}
        for text in chosen:
            found[text.tag], _ = score(
                loaded, text.tag, text.segment_ids, text.texts, context=context, batch_tokens=batch_tokens
            )
        return found

    full = scored()
    changed = []
    for change in changes:
        with change.apply():
            changed.append(scored())
        advance()
    return SweptLosses(full=full, changed=tuple(changed))
