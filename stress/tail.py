"""The tail of a run: quantiles and shortfalls beyond the data, with the thresholds that a fit could start from.

One value a path: its largest hour, its largest 24 hours, the largest fall of a fund. The hours of a path come in
clusters, and their largest stands for them; levels are therefore of runs and not of hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from stress import pareto
from stress.intervals import Estimate, quantile_intervals, shortfall_interval
from stress.pareto import FEWEST, Fit
from stress.results import by_path, independent, read, sound, weights
from stress.spec import InputError

if TYPE_CHECKING:
    import xarray as xr

LEVELS = (0.99, 0.999, 0.9997)
"""Quantiles that are asked for [1]."""
CANDIDATES = 8
"""Thresholds that are compared, from the fewest exceedances to a share of the paths."""
_LARGEST_SHARE = 0.1
_SIGNIFICANCE = 0.1
"""A fit whose test gives less is not taken [1]."""

Variable = Literal["hour", "day", "drawdown"]


@dataclass(frozen=True)
class Candidate:
    """A threshold, and what a tail fitted above it looks like."""

    fit: Fit
    values: np.ndarray
    """[path]"""
    weight: np.ndarray
    """[path]"""

    @property
    def threshold(self) -> float:
        """In the unit of the values."""
        return self.fit.tail.threshold

    @cached_property
    def mean_excess(self) -> Estimate:
        """Mean of what lies above it; grows linearly with the threshold where the tail is generalised-Pareto."""
        above = np.maximum(self.values - self.threshold, 0.0)
        return shortfall_interval(above, 1 - self.fit.tail.chance, self.weight)

    @cached_property
    def shape(self) -> Estimate:
        """Stable from the lowest fitting threshold on."""
        return self.fit.interval(lambda tail: tail.shape)

    @cached_property
    def modified_scale(self) -> Estimate:
        """scale - shape x threshold; stable likewise."""
        return self.fit.interval(lambda tail: tail.scale - tail.shape * tail.threshold)

    @cached_property
    def test(self) -> float:
        """p-value of the Anderson-Darling test, by simulation; NaN under uneven weights."""
        return self.fit.test()


@dataclass(frozen=True)
class AtLevel:
    """Quantile and shortfall at a level, from the paths themselves and from the fitted tail."""

    seen: Estimate
    seen_shortfall: Estimate
    """Open upwards where the tail has no variance: what a mean hangs on is then not among the paths."""
    fitted: Estimate | None
    """None where the level is not beyond the threshold."""
    fitted_shortfall: Estimate | None


@dataclass(frozen=True)
class Tail:
    """A fitted tail with its diagnostics."""

    what: str
    values: np.ndarray
    """[path]"""
    weight: np.ndarray
    """[path]"""
    chosen: Candidate
    reason: str
    """Why this threshold."""
    candidates: Sequence[Candidate]
    """By descending threshold."""
    levels: Mapping[float, AtLevel]

    def exceedance(self, value: float) -> Estimate:
        """Chance that a path has more than a value at or above the threshold."""
        return self.chosen.fit.interval(lambda tail: tail.exceedance(value))


def tail(
    ds: xr.Dataset,
    variable: Variable = "hour",
    *,
    pool: str | None = None,
    threshold: float | None = None,
    levels: Sequence[float] = LEVELS,
) -> Tail:
    """Fit the tail of a run.

    Args:
        ds: The run.
        variable: Largest hour or 24 hours of liquidations of a path, or the largest fall of a fund [USD].
        pool: The fund, for `drawdown`.
        threshold: Where the tail begins [USD]; chosen by `choose` if left out.
        levels: Between 0 and 1.

    Raises:
        InputError: There is no such fund, or it has no part in the variable, or fewer than `FEWEST` paths are above
            the threshold.
    """
    kept = sound(independent(ds))
    what, values = values_of(kept, variable, pool)
    return fitted(what, values, weights(kept), threshold, levels)


def fitted(
    what: str, values: np.ndarray, weight: np.ndarray, threshold: float | None = None, levels: Sequence[float] = LEVELS
) -> Tail:
    """As `tail`, of any values, one a path."""
    places = thresholds(values)
    if threshold is not None:
        _refuse_few(what, values, threshold)
    elif not places:
        _refuse_few(what, values, float(values.min()))
    candidates = [candidate(values, place, weight) for place in places]
    chosen, reason = choose(candidates) if threshold is None else (candidate(values, threshold, weight), "as given")
    quantiles = quantile_intervals(values, levels, weight)
    return Tail(
        what=what,
        values=values,
        weight=weight,
        chosen=chosen,
        reason=reason,
        candidates=candidates,
        levels={level: _at(level, quantiles[level], values, weight, chosen.fit) for level in levels},
    )


def values_of(ds: xr.Dataset, variable: Variable, pool: str | None = None) -> tuple[str, np.ndarray]:
    """What is meant, in words, and one value a path [USD]."""
    if variable == "drawdown":
        names = [str(name) for name in ds["pool"].values]
        if pool not in names:
            given = "missing" if pool is None else f"{pool!r}"
            raise InputError(f"pool is {given}, expected one of the run's: {', '.join(names)}. Give one with --pool.")
        return f"largest fall of {pool} in a run", read(ds, "fund_drawdown").values[:, names.index(pool)]
    if pool is not None:
        raise InputError(
            f"pool is {pool!r} with liquidations of the largest {variable}, expected none: these are of all venues. "
            "Leave --pool out, or give --variable drawdown."
        )
    volume = by_path(ds, "liquidation_volume", "hour")
    hours = 1 if variable == "hour" else min(24, volume.shape[1])
    largest = sliding_window_view(volume, hours, axis=1).sum(axis=-1).max(axis=1)
    return f"liquidations in the largest {'hour' if hours == 1 else f'{hours} hours'} of a run", largest


def thresholds(values: np.ndarray) -> list[float]:
    """Places where a tail may begin, descending: with `FEWEST` exceedances up to a tenth of the values above them."""
    ascending, most = np.sort(values), int(_LARGEST_SHARE * len(values))
    counts = np.unique(np.round(np.geomspace(FEWEST, max(most, FEWEST), CANDIDATES)).astype(int))
    below = np.searchsorted(ascending, ascending[-counts[counts <= len(values)]]) - 1
    return sorted({float(ascending[place]) for place in below if place >= 0}, reverse=True)


def choose(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The lowest threshold whose tail fits, as do those of all above it, with a shape in the intervals of theirs.

    The test alone would go too low: it hardly sees a shape that drifts with the threshold, and that is what a quantile
    far beyond the data hangs on. Under uneven weights, which have no test, the shape decides.

    Args:
        candidates: By descending threshold.
    """
    if candidates[0].test < _SIGNIFICANCE:
        return candidates[0], f"none fits (p below {_SIGNIFICANCE:g} even here): do not rely on the tail"
    chosen = candidates[0]
    for i, candidate in enumerate(candidates):
        if candidate.test < _SIGNIFICANCE:
            break
        if all(above.shape.low <= candidate.shape.value <= above.shape.high for above in candidates[:i]):
            chosen = candidate
    return chosen, f"the lowest that fits (p at least {_SIGNIFICANCE:g}) with a shape as above higher ones"


def paths_needed(level: float) -> int:
    """Equally weighted paths from which on an exact interval of a quantile has an upper end."""
    return int(np.ceil(np.log(0.025) / np.log(level)))


def candidate(values: np.ndarray, threshold: float, weight: np.ndarray) -> Candidate:
    """The tail above a threshold, of values one a path."""
    return Candidate(pareto.fit(values, threshold, weight), values, weight)


def _at(level: float, seen: Estimate, values: np.ndarray, weight: np.ndarray, fit: Fit) -> AtLevel:
    beyond = 1 - level < fit.tail.chance

    def figure(of: Callable[[pareto.Pareto], float]) -> Estimate | None:
        return fit.interval(of) if beyond else None

    return AtLevel(
        seen=seen,
        seen_shortfall=shortfall_interval(values, level, weight),
        fitted=figure(lambda tail: tail.quantile(level)),
        fitted_shortfall=figure(lambda tail: tail.shortfall(level)),
    )


def _refuse_few(what: str, values: np.ndarray, threshold: float) -> None:
    """Raise where fewer than `FEWEST` values are above a threshold."""
    above = int(np.sum(values > threshold))
    if above >= FEWEST:
        return
    possible = [place for place in thresholds(values) if place < threshold]
    lower = f"Lower it to {possible[0]:.4g} USD, or run more paths." if possible else "Run more paths."
    raise InputError(
        f"threshold is {threshold:g} USD, above which lie {above} of {len(values)} paths ({what}), expected at least "
        f"{FEWEST}. {lower}"
    )
