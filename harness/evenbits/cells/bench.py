"""One model on the bench: measured variant by variant and language by language, into the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from evenbits.cells.damage import SpecDamage
from evenbits.cells.floor import FLOOR_LANGUAGES, noise_floor
from evenbits.cells.passes import pack, run, unpack
from evenbits.cells.spread import spread_of
from evenbits.cells.variants import FULL_PRECISION, Variant, in_dtype
from evenbits.errors import SpecError
from evenbits.estimates import Estimate
from evenbits.observe.weights.superweights import SpikeProfile, SuperWeightCandidate, super_weight_candidates
from evenbits.progress import Progress, Silent
from evenbits.records import Corpus, Losses, digest_of
from evenbits.store import Store
from evenbits.variants.quantization.spec import QuantSpec

if TYPE_CHECKING:  # torch and transformers are imported when something has to be computed
    from evenbits.models import LoadedModel, LocalModel
    from evenbits.models.records import OnDemand
    from evenbits.observe.weights import WeightStatistics
    from evenbits.scoring import HiddenStates
    from evenbits.variants.quantization.retention import Importance

__all__ = ["DTYPES", "ModelUnderTest"]

SCHEMA = 1
"""Raised whenever the same inputs would give other scores."""

DTYPES = ("bfloat16", "float32")


@dataclass(kw_only=True)
class ModelUnderTest:
    """One model on the bench: loaded on first need, changed only inside variants, measured into the store.

    `probe` is the text that statistics-based retention criteria may look at; it never overlaps the scored text.
    Holds at most one loaded model: asking for another dtype lets the first one go.
    """

    local: LocalModel
    store: Store
    dtype: str = "bfloat16"
    seed: int = 0
    context: int = 1024
    probe: Corpus | None = None
    progress: Progress = field(default_factory=Silent)
    _loaded: dict[str, LoadedModel] = field(default_factory=dict, repr=False)
    _hidden: dict[tuple[str, str], HiddenStates] = field(default_factory=dict, repr=False)

    def loaded(self, dtype: str | None = None) -> LoadedModel:
        """Return the model in memory, in `dtype` (default: the run's)."""
        wanted = dtype or self.dtype
        if wanted not in self._loaded:
            import torch

            from evenbits.models import load

            self._loaded.clear()  # the hidden states stay: the noise floor goes to float32 and back for every grid
            self._loaded[wanted] = load(self.local, dtype=getattr(torch, wanted))
        return self._loaded[wanted]

    def on_demand(self) -> OnDemand:
        """Return the model as what is loaded only where the store lacks something, in the run's dtype."""
        from evenbits.models.records import OnDemand

        return OnDemand(local=self.local, arithmetic=f"torch.{self.dtype}", loader=self.loaded)

    def release(self) -> None:
        """Give the model's memory back; it is loaded again when something has to be computed."""
        self._loaded.clear()
        self._hidden.clear()

    def weight_statistics(self) -> WeightStatistics:
        """Return the statistics of the checkpoint's linear tensors; no model is loaded."""
        from evenbits.observe.weights import weight_statistics

        return weight_statistics(self.local, store=self.store, progress=self.progress)

    def super_weight_candidates(self) -> tuple[SuperWeightCandidate, ...]:
        """Return the weights at which activation spikes of the MLP down projections meet, strongest first.

        Spikes are looked for on the first probe segment of up to eight languages: a super weight shows on any text.
        """
        if self.probe is None:
            raise SpecError("the search for super weights needs probe text")
        sample = self.probe.select(languages=spread_of(self.probe.languages, FLOOR_LANGUAGES), indices=(0,))
        texts = [sample.texts[tag][0] for tag in sample.languages]
        key = {"schema": SCHEMA, "model": self.local.fingerprint, "dtype": self.dtype, "texts": digest_of(texts)}
        entry = self.store.compute("super-weight-candidates", key, lambda: ({}, {"found": self._candidates(texts)}))
        return tuple(SuperWeightCandidate(**row) for row in entry.meta["found"])

    def _candidates(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        from evenbits.observe.activations.spikes import spike_peaks
        from evenbits.variants.quantization.patching import checkpoint_source

        loaded = self.loaded()
        peaks, source = spike_peaks(loaded, texts), checkpoint_source(loaded)
        profiles = [
            SpikeProfile(
                name=block.mlp_output,
                layer=block.index,
                input_peak=peaks[block.mlp_output].inputs,
                output_peak=peaks[block.mlp_output].outputs,
            )
            for block in loaded.anatomy.blocks
        ]
        found = super_weight_candidates(profiles, lambda name, row, column: float(source(name)[row, column]))
        return [asdict(candidate) for candidate in found]

    def losses(self, variant: Variant, corpus: Corpus) -> dict[str, Losses]:
        """Return the scores of `corpus` under `variant` by language; only what the store lacks is computed."""
        dtype = variant.dtype or self.dtype
        stored = {tag: self.store.get("losses", self._key(variant, corpus, tag)) for tag in corpus.languages}
        missing = [tag for tag, entry in stored.items() if entry is None]
        found = {tag: unpack(tag, corpus, entry) for tag, entry in stored.items() if entry is not None}
        self.store.hits += len(found)
        if not missing:
            return {tag: found[tag] for tag in corpus.languages}
        loaded = self.loaded(dtype)
        if variant.divergence:
            self._keep_full_precision(loaded, corpus, missing, dtype)
        with (
            self.progress.task(f"{self.local.text}  {variant.label}", total=len(missing)) as task,
            variant.apply(loaded),
        ):
            for tag in missing:
                task.doing(tag)
                entry = self.store.compute(
                    "losses",
                    self._key(variant, corpus, tag),
                    lambda tag=tag: pack(self._score(loaded, variant, corpus, tag, dtype)),  # type: ignore[misc]
                )
                found[tag] = unpack(tag, corpus, entry)
                task.advance(1)
        return {tag: found[tag] for tag in corpus.languages}

    def sweep(self, variants: Sequence[tuple[int, Variant]], corpus: Corpus) -> list[dict[str, Losses]]:
        """Return the scores of variants that change nothing before a decoder layer, each given with that layer's index.

        The layers before a change run once for all variants. The variants share one arithmetic and go without
        divergence; the scores are those of `losses`, and stand in the store under the same keys.
        """
        if any(variant.divergence or variant.dtype != variants[0][1].dtype for _, variant in variants):
            raise ValueError("a sweep needs variants of one arithmetic and without divergence")
        lacking = [(layer, variant, self._missing(variant, corpus)) for layer, variant in variants]
        wanted = [(layer, variant) for layer, variant, tags in lacking if tags]
        tags = [tag for tag in corpus.languages if any(tag in missing for _, _, missing in lacking)]
        if wanted:
            self._sweep(wanted, corpus, tags)
        return [self.losses(variant, corpus) for _, variant in variants]

    def _missing(self, variant: Variant, corpus: Corpus) -> set[str]:
        return {
            tag for tag in corpus.languages if self.store.get("losses", self._key(variant, corpus, tag)) is None
        }  # fmt: skip

    def _sweep(self, variants: Sequence[tuple[int, Variant]], corpus: Corpus, tags: Sequence[str]) -> None:
        from evenbits.scoring.sweep import Change, sweep

        loaded = self.loaded(variants[0][1].dtype)
        changes = [Change(layer=layer, apply=partial(variant.apply, loaded)) for layer, variant in variants]
        full = in_dtype(FULL_PRECISION, variants[0][1].dtype or self.dtype)
        texts = {tag: corpus.texts[tag] for tag in tags}
        what = f"{self.local.text}  {len(changes)} single changes in {len(tags)} languages"
        with self.progress.task(what) as task:
            for swept in sweep(
                loaded, corpus.segment_ids, texts, changes,
                context=self.context, advance=task.advance, expect=task.expect,
            ):  # fmt: skip
                for variant, by_tag in zip(
                    [full, *(v for _, v in variants)], [swept.full, *swept.changed], strict=True
                ):
                    for tag, losses in by_tag.items():
                        key = self._key(variant, corpus, tag)
                        self.store.compute("losses", key, lambda losses=losses: pack(losses))  # type: ignore[misc]

    def spec_variant(self, spec: QuantSpec) -> Variant:
        """Return `spec` as a variant; specs of 6 bits and more are scored in float32 (their damage is that small)."""
        key: dict[str, Any] = {"spec": str(spec)}
        if spec.keep is not None and spec.keep.criterion == "random":
            key["seed"] = self.seed
        if spec.needs:
            if self.probe is None:
                raise SpecError(
                    f"{spec} needs {', '.join(sorted(spec.needs))}, and there is no probe text to measure on"
                )
            key["probe"] = self.probe.digest
        return Variant(
            label=str(spec),
            key=key,
            apply=lambda loaded: self._quantized(loaded, spec),
            dtype="float32" if spec.needs_float32 else None,
        )

    def damage(self, spec: QuantSpec, corpus: Corpus, *, whole: Corpus | None = None) -> SpecDamage:
        """Measure one spec over `corpus`, with the noise floor of `whole`, of which `corpus` may be a part."""
        variant = self.spec_variant(spec)
        dtype = variant.dtype or self.dtype
        quantized = self.losses(variant, corpus)
        return SpecDamage(
            spec=str(spec),
            dtype=dtype,
            bits_per_weight=self.bits_per_weight(spec),
            floor_bits=self.noise_floor(spec.base, corpus if whole is None else whole),
            full=self.losses(in_dtype(FULL_PRECISION, dtype), corpus),
            quantized=quantized,
        )

    def bits_per_weight(self, spec: QuantSpec) -> float:
        """Return the storage of a linear weight under `spec`; `SpecError` where the spec does not fit the model."""

        def count() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
            from evenbits.variants.quantization import bits_per_weight, plan_for

            return {}, {"bits": bits_per_weight(plan_for(self.local, spec))}

        key = {"schema": SCHEMA, "model": self.local.fingerprint, "spec": str(spec)}
        return float(self.store.compute("plans", key, count).meta["bits"])

    def noise_floor(self, spec: QuantSpec, corpus: Corpus) -> Estimate:
        """Return the noise floor of a language's mean excess bits under `spec`, in bits per segment; see `floor.py`."""
        return noise_floor(self, spec, corpus)

    def _key(self, variant: Variant, corpus: Corpus, tag: str) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": self.local.fingerprint,
            "variant": dict(variant.key),
            "dtype": variant.dtype or self.dtype,
            "context": self.context,
            "divergence": variant.divergence,
            "texts": digest_of([corpus.segment_ids, corpus.texts[tag]]),
        }

    @contextmanager
    def _quantized(self, loaded: LoadedModel, spec: QuantSpec) -> Iterator[None]:
        from evenbits.variants.quantization import quantized

        with quantized(loaded, spec, importance=self._importance(loaded, spec), seed=self.seed):
            yield

    def _importance(self, loaded: LoadedModel, spec: QuantSpec) -> Importance | None:
        if not spec.needs or self.probe is None:
            return None
        from evenbits.observe.activations import ActivationImportance

        return ActivationImportance(loaded, self.probe, store=self.store)

    def _keep_full_precision(self, loaded: LoadedModel, corpus: Corpus, tags: Sequence[str], dtype: str) -> None:
        """Keep the final hidden states of full precision for `tags`; KL is measured against them."""
        wanted = {tag: (dtype, digest_of([corpus.segment_ids, corpus.texts[tag]])) for tag in tags}
        missing = [tag for tag in tags if wanted[tag] not in self._hidden]
        if not missing:
            return
        variant = in_dtype(FULL_PRECISION, dtype)
        with self.progress.task(f"{self.local.text}  full precision", total=len(missing)) as task:
            for tag in missing:
                task.doing(tag)
                losses, hidden = run(loaded, corpus, tag, context=self.context, keep_hidden=True)
                if hidden is not None:  # always, as it was asked for
                    self._hidden[wanted[tag]] = hidden
                self.store.compute("losses", self._key(variant, corpus, tag), lambda losses=losses: pack(losses))  # type: ignore[misc]
                task.advance(1)

    def _score(self, loaded: LoadedModel, variant: Variant, corpus: Corpus, tag: str, dtype: str) -> Losses:
        reference = None
        if variant.divergence:
            reference = self._hidden[dtype, digest_of([corpus.segment_ids, corpus.texts[tag]])]
        small = bool(variant.key.get("small_batches"))
        losses, _ = run(loaded, corpus, tag, context=self.context, reference=reference, small_batches=small)
        return losses
