"""Damage[variant, language, segment]: what each language loses, aligned over segments.

The only place where excess bits, relative increase and KL are computed.

Legend: L languages, S segments, or documents where the corpus knows them: segments of one document move together, so
each document is one column, with the mean over segments unchanged (`statistics.by_cluster`). All intervals and tests
stand on these columns. Arrays are float64, rows in the order of `languages`, columns in that of `segment_ids`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from evenbits.estimates import Estimate
from evenbits.models.device import CPU, Device
from evenbits.records import Losses
from evenbits.statistics import by_cluster, mean_interval, ratio_of_sums, relative_increase

if TYPE_CHECKING:
    from evenbits.cells.tasks import Answers

__all__ = ["FLOORS_NEEDED", "LN2", "Column", "Damage", "joined"]

FloatArray = NDArray[np.float64]

LN2 = math.log(2)
"""Nats of a bit."""

FLOORS_NEEDED = 3.0
"""A damage below this many noise floors is reported as below_floor and enters no ratio (METHOD: three floors)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """Scores of one model under one variant, beside full precision in the same arithmetic.

    `full`, `quantized`: `Losses` by language. `dtype`: arithmetic of both. `bits_per_weight`: mean storage of a
    linear weight under the spec, None where it was not asked for. `floor_bits`: noise floor of a language's mean excess
    bits, in bits per segment. `facts`: what the report says of an artefact: engine, version, build, tensor types.
    """

    spec: str
    dtype: str
    bits_per_weight: float | None
    floor_bits: Estimate
    full: Mapping[str, Losses]
    quantized: Mapping[str, Losses]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def floor(self) -> float:
        """What a language's mean must reach to count: three noise floors, 0 where there is none."""
        return FLOORS_NEEDED * (self.floor_bits.value or 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Damage of one model: specs x languages x segments. `failed`: why, by spec, of those whose engine gave nothing.

    `documents`: of each segment, empty where every segment stands alone. `answers`: what the specs lose in tasks.
    `device`: where the original was measured.
    """

    model: str
    fingerprint: str
    corpus_digest: str
    languages: tuple[str, ...]
    segment_ids: tuple[str, ...]
    columns: Mapping[str, Column]
    failed: Mapping[str, str] = field(default_factory=dict)
    answers: Answers | None = None
    documents: tuple[str, ...] = ()
    device: Device = CPU

    def by_unit(self, values: NDArray[Any]) -> FloatArray:
        """Return numbers of segments [..., S] as those of what was drawn independently: segments, or documents."""
        found = np.asarray(values, dtype=np.float64)
        return by_cluster(found, self.documents) if self.documents else found

    @property
    def specs(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def nll_full(self, spec: str) -> FloatArray:
        """Full-precision NLL in nats, shape (L, S)."""
        full = self.columns[spec].full
        return self.by_unit(np.stack([full[language].nll for language in self.languages]))

    def nll_quantized(self, spec: str) -> FloatArray:
        """Quantized NLL in nats, shape (L, S)."""
        quantized = self.columns[spec].quantized
        return self.by_unit(np.stack([quantized[language].nll for language in self.languages]))

    def nll_bits(self, spec: str) -> FloatArray:
        """Full-precision NLL of each segment in bits, shape (L, S)."""
        return np.asarray(self.nll_full(spec) / LN2)

    def excess_bits(self, spec: str) -> FloatArray:
        """Excess bits per segment, (NLL_quantized - NLL_full) / ln 2, shape (L, S)."""
        return np.asarray((self.nll_quantized(spec) - self.nll_full(spec)) / LN2)

    def relative_increase(self, spec: str) -> FloatArray:
        """Relative increase sum NLL_quantized / sum NLL_full - 1 of each language, shape (L,)."""
        return np.asarray(self.nll_quantized(spec).sum(axis=1) / self.nll_full(spec).sum(axis=1) - 1)

    def perplexity_ratio(self, spec: str) -> float:
        """Perplexity per token under the spec over that of full precision, all languages together."""
        full, quantized = self.columns[spec].full, self.columns[spec].quantized
        tokens = sum(int(full[language].tokens.sum()) for language in self.languages)
        return math.exp(sum(float((quantized[tag].nll - full[tag].nll).sum()) for tag in self.languages) / tokens)

    def kl_bits(self, spec: str) -> FloatArray:
        """KL(full || quantized) summed over each segment's tokens, in bits per segment, shape (L, S)."""
        quantized = self.columns[spec].quantized
        kl = [quantized[language].kl for language in self.languages]
        if any(array is None for array in kl):
            raise ValueError(f"{spec} was scored without a full-precision reference, so it has no KL")
        return self.by_unit(np.stack([array for array in kl if array is not None])) / LN2

    def degradation(self, spec: str) -> dict[str, FloatArray]:
        """The three degradation metrics over segments, each of shape (L, S), by their report names.

        The relative increase of a segment is its excess over the language's mean full-precision NLL, so that the mean
        over segments is the relative increase of the language.
        """
        excess = self.excess_bits(spec)
        scale = self.nll_full(spec).mean(axis=1, keepdims=True) / LN2
        return {"excess_bits": excess, "relative_increase": excess / scale, "kl": self.kl_bits(spec)}

    def above_floor(self, spec: str) -> NDArray[np.bool_]:
        """Whether each language's mean excess bits reach three noise floors, shape (L,)."""
        return np.asarray(np.abs(self.excess_bits(spec).mean(axis=1)) >= self.columns[spec].floor)

    def only(self, languages: Sequence[str]) -> Damage:
        """Return the damage of some of the languages."""
        columns = {
            spec: replace(
                column,
                full={tag: column.full[tag] for tag in languages},
                quantized={tag: column.quantized[tag] for tag in languages},
            )
            for spec, column in self.columns.items()
        }
        return replace(self, languages=tuple(languages), columns=columns)

    def rows(self, *, seed: int, by_segment: bool = False, confidence: float = 0.95) -> list[dict[str, Any]]:
        """Return the report's damage rows, one per spec and language, as plain JSON types.

        Intervals are over segments (`statistics.means`). Each row draws from a generator seeded by `seed` and its
        position among segments alone, so that a shard by language or spec gives the rows of the whole run. `by_segment`
        adds the excess bits of every segment, which a later run needs to be compared with this one in pairs.
        """
        rows = [self._row(spec, language, seed, confidence) for spec in self.specs for language in self.languages]
        if by_segment:
            for row in rows:
                place = self.languages.index(row["language"])
                row["excess_bits_by_segment"] = self.excess_bits(row["spec"])[place].tolist()
        return rows

    def _row(self, spec: str, language: str, seed: int, confidence: float) -> dict[str, Any]:
        column = self.columns[spec]
        full, quantized = column.full[language], column.quantized[language]
        before, after = self.by_unit(full.nll), self.by_unit(quantized.nll)
        estimate = mean_interval((after - before) / LN2, rng=np.random.default_rng(seed), confidence=confidence)
        relative = relative_increase(after, before, rng=np.random.default_rng(seed), confidence=confidence)
        tokens = int(full.tokens.sum())
        answers = None if self.answers is None else self.answers.of(spec, language, seed=seed)
        return {
            "model": self.model,
            "spec": spec,
            "language": language,
            "segments": len(self.segment_ids),
            **({"documents": len(set(self.documents))} if self.documents else {}),
            "tokens": tokens,
            "utf8_bytes": int(full.utf8_bytes.sum()),
            "nll_full": float(full.nll.sum()),
            "nll_quantized": float(quantized.nll.sum()),
            "excess_bits": _with_floor(estimate, column.floor_bits).to_json(),
            "relative_increase": relative.to_json(),
            "kl_nats_per_token": self._kl(quantized, seed=seed, confidence=confidence),
            "mean_delta_p": _share(quantized.delta_p, tokens),
            "rms_delta_p": _share(quantized.square_delta_p, tokens, root=True),
            "top1_changed": _share(quantized.top1_changed, tokens),
            "bits_per_weight": column.bits_per_weight,
            **({"floor_bits": column.floor} if column.floor_bits.value is not None else _no_floor(column.floor_bits)),
            **({"artefact": dict(column.facts)} if column.facts else {}),
            **({"tasks": answers} if answers is not None else {}),
        }

    def _kl(self, losses: Losses, *, seed: int, confidence: float) -> dict[str, Any]:
        """KL by token in nats: mean with interval, median, 99th percentile (the figures of llama.cpp's table)."""
        if losses.token_kl is None:
            nothing: dict[str, Any] = {"mean": None, "p50": None, "p99": None}
            return nothing | ({"reason": losses.no_divergence} if losses.no_divergence else {})
        kl = losses.token_kl.astype(np.float64)
        found: dict[str, Any] = {
            "mean": float(kl.mean()),
            "p50": float(np.quantile(kl, 0.5)),
            "p99": float(np.quantile(kl, 0.99)),
        }
        if losses.kl is not None:
            mean = ratio_of_sums(
                self.by_unit(losses.kl),
                self.by_unit(losses.tokens),
                rng=np.random.default_rng(seed),
                what="mean KL per token",
                confidence=confidence,
            )
            return found | {"low": mean.low, "high": mean.high, "method": mean.method}
        return found


def joined(parts: Sequence[Damage]) -> Damage:
    """Return the damage on several parts of one text, one after the other; the noise floor is that of the first."""
    first = parts[0]

    def both(spec: str, side: Literal["full", "quantized"]) -> dict[str, Losses]:
        columns = [part.columns[spec] for part in parts]
        return {tag: Losses.join([getattr(column, side)[tag] for column in columns]) for tag in first.languages}

    columns = {
        spec: replace(column, full=both(spec, "full"), quantized=both(spec, "quantized"))
        for spec, column in first.columns.items()
    }
    return replace(
        first,
        segment_ids=tuple(name for part in parts for name in part.segment_ids),
        documents=tuple(name for part in parts for name in part.documents),
        columns=columns,
    )


def _no_floor(floor: Estimate) -> dict[str, Any]:
    return {"floor_bits": None, "floor_reason": floor.reason}


def _with_floor(estimate: Estimate, floor: Estimate) -> Estimate:
    """Return `estimate`, marked where it lies below three noise floors."""
    if estimate.value is None or floor.value is None or abs(estimate.value) >= FLOORS_NEEDED * floor.value:
        return estimate
    return Estimate(
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        method=estimate.method,
        reason=f"below_floor: less than {FLOORS_NEEDED:g} times the noise floor of {floor.value:.2g} bits per segment",
    )


def _share(sums: NDArray[Any] | None, tokens: int, *, root: bool = False) -> float | None:
    if sums is None or tokens == 0:
        return None
    share = float(sums.sum()) / tokens
    return math.sqrt(share) if root else share
