"""Differences and ratios of two quantities of the same paths, as of two runs on the same random draws.

Intervals are 95 %. Those of means and their ratios are Student's; those of quantiles and shortfalls come from
resampling whole paths, by a fixed seed, so that the same runs give the same figures, and every replicate draws the same
paths of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import stdtrit

from stress.intervals import LEVELS, TAILS, Estimate, Sorted, chance, expected_shortfall, in_order
from stress.results import effective_paths

REPLICATES = 200
"""Draws of a bootstrap."""
_FEWEST_BEYOND = 2
"""Values beyond a quantile, expected; with fewer a bootstrap holds the truth in 70 to 94 % of samples."""
_SEED = 601
_CELLS = 1 << 21


def mean_ratio(over: np.ndarray, under: np.ndarray, weight: np.ndarray | None = None) -> Estimate:
    """Mean of one quantity over that of another of the same paths, [path] each; NaN where there is nothing below.

    The interval is Student's, of `over - ratio x under`: linear in what scatters (Fieller's for a denominator that is
    well known).
    """
    weight = np.ones(len(over)) if weight is None else np.asarray(weight)
    if weight @ under == 0:
        return Estimate(np.nan, np.nan, np.nan)
    ratio = float((weight @ over) / (weight @ under))
    half = _half_width(over - ratio * under, weight) * weight.sum() / abs(weight @ under)
    return Estimate(ratio, ratio - half, ratio + half)


def quantile_ratios(
    over: np.ndarray, under: np.ndarray, levels: Sequence[float] = LEVELS, weight: np.ndarray | None = None
) -> dict[float, Estimate]:
    """`quantile` of one quantity over that of another of the same paths; every replicate draws the same of both.

    Intervals are unbounded as those of `paired_quantile`.
    """
    samples = [in_order(values, weight) for values in (over, under)]
    (draws_over, _), (draws_under, _) = (_bootstrap(sample, levels) for sample in samples)
    points = [[sample.values[sample.rank(level)] for level in levels] for sample in samples]
    found = (_ratio(points[0][i], points[1][i], draws_over[:, i], draws_under[:, i]) for i in range(len(levels)))
    return {
        level: Estimate(of.value, -np.inf, np.inf) if _few_beyond(samples[0], level) and of.value != 1 else of
        for level, of in zip(levels, found, strict=True)
    }


def shortfall_ratio(over: np.ndarray, under: np.ndarray, level: float, weight: np.ndarray | None = None) -> Estimate:
    """`expected_shortfall` of one quantity over that of another of the same paths, as `quantile_ratios`."""
    draws = [_bootstrap(in_order(values, weight), [level])[1][:, 0] for values in (over, under)]
    points = [expected_shortfall(values, level, weight) for values in (over, under)]
    return _ratio(points[0], points[1], draws[0], draws[1])


def paired_mean(difference: np.ndarray, weight: np.ndarray | None = None) -> Estimate:
    """Weighted mean of what differs on each path between two runs, with Student's interval.

    Args:
        difference: Second less first, on the same random draws: [path].
        weight: [path]; equal weights if left out.
    """
    difference = np.asarray(difference, np.float64)
    weight = np.ones(len(difference)) if weight is None else np.asarray(weight)
    mean = float(weight @ difference / weight.sum())
    half = _half_width(difference - mean, weight)
    return Estimate(mean, mean - half, mean + half)


def mean_intervals(values: np.ndarray, weight: np.ndarray | None = None) -> list[Estimate]:
    """Means of several quantities of the same paths, [path quantity], each as `paired_mean`."""
    return [paired_mean(column, weight) for column in values.T]


def paired_quantile(first: np.ndarray, second: np.ndarray, level: float, weight: np.ndarray | None = None) -> Estimate:
    """Difference of two `quantile`s, second less first, with a bootstrap interval that draws the same paths in both.

    It is unbounded where the paths differ and too few of their values lie beyond the quantile to tell.

    Args:
        first: [path] or [path hour].
        second: The same of another run on the same random draws.
        level: Between 0 and 1.
        weight: [path]; equal weights if left out.
    """
    samples = in_order(first, weight), in_order(second, weight)
    # Draws depend on the number of paths alone: both samples get the same.
    before, after = (_bootstrap(sample, [level])[0][:, 0] for sample in samples)
    low, high = (sample.values[sample.rank(level)] for sample in samples)
    if _few_beyond(samples[0], level) and np.any(first != second):
        return Estimate(float(high - low), -np.inf, np.inf)
    return _interval(high - low, after - before)


def paired_chance(first: np.ndarray, second: np.ndarray, weight: np.ndarray | None = None) -> Estimate:
    """Difference of two chances, second less first, with an interval from the paths on which the two differ.

    Of paths on which only one of them happens, each kind has a Clopper-Pearson interval at 97.5 %: together they hold
    at 95 % or more, also where no path differs.

    Args:
        first: Whether it happens on the path: [path].
        second: The same in another run on the same random draws.
        weight: [path]; equal weights if left out.
    """
    weight = np.ones(len(first)) if weight is None else np.asarray(weight)
    tails = (TAILS[0] / 2, 1 - TAILS[0] / 2)
    only = [np.asarray(hit, np.float64) for hit in (second & ~first, first & ~second)]
    more, less = (chance(hit, weight, tails) for hit in only)
    return Estimate(more.value - less.value, more.low - less.high, more.high - less.low)


def _few_beyond(sample: Sorted, level: float) -> bool:
    """Whether too few values lie beyond a quantile to say how it scatters."""
    hours = len(sample.values) // len(sample.weight)
    return bool((1 - level) * hours * effective_paths(sample.weight) < _FEWEST_BEYOND)


def _half_width(residual: np.ndarray, weight: np.ndarray) -> float:
    """Half of Student's interval of a weighted mean, whose paths are worth n = (sum w)^2 / sum w^2; unknown for one."""
    worth = effective_paths(weight)
    if worth <= 1 + 1e-9:
        return np.inf
    error = np.sqrt(np.sum((weight * residual) ** 2) * worth / (worth - 1)) / weight.sum()
    return float(stdtrit(worth - 1, TAILS[1]) * error)


@lru_cache(maxsize=2)
def _resamples(paths: int) -> np.ndarray:
    """How often each replicate draws each path: uint8 [replicate path]."""
    rng = np.random.default_rng(_SEED)
    drawn = np.empty((REPLICATES, paths), np.uint8)
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, paths, paths), minlength=paths)
    drawn.flags.writeable = False
    return drawn


def _resampled_sums(columns: np.ndarray) -> np.ndarray:
    """Sums of columns over the paths of each replicate: [path column] -> [replicate column].

    The first column holds weights: a replicate that drew no weight at all is NaN, and left out of intervals.
    """
    drawn, step = _resamples(len(columns)), max(1, _CELLS // len(columns))
    sums = np.concatenate([drawn[i : i + step].astype(np.float64) @ columns for i in range(0, REPLICATES, step)])
    sums[sums[:, 0] == 0] = np.nan
    return sums


def _bootstrap(sample: Sorted, levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Quantile and expected shortfall of each replicate: two arrays [replicate level].

    A replicate moves a quantile by a few standard errors: only values within eight are gone through one by one, those
    below and above enter as sums by path. A replicate that leaves this window is done over all values.
    """
    quantiles, shortfalls = np.empty((2, REPLICATES, len(levels)))
    for i, level in enumerate(levels):
        todo = np.arange(REPLICATES)
        for window in (_window(sample, level), slice(0, len(sample.values))):
            quantiles[todo, i], shortfalls[todo, i], todo = _replicate(sample, level, window, todo)
    return quantiles, shortfalls


def _window(sample: Sorted, level: float) -> slice:
    """Ranks within eight standard errors, clustered by path, of a quantile."""
    paths, total = len(sample.weight), sample.cumulative[-1]
    hours = len(sample.values) // paths
    below = np.bincount(sample.owner[: sample.rank(level) + 1], minlength=paths) - hours * level
    error = np.sqrt(np.sum((sample.weight * below) ** 2)) / total
    reach = 8 * error + 4 / paths
    start, stop = np.searchsorted(sample.cumulative, [(level - reach) * total, (level + reach) * total])
    return slice(int(start), min(int(stop) + 1, len(sample.values)))


def _replicate(
    sample: Sorted, level: float, window: slice, which: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantile and shortfall of the replicates `which`, and those of them whose quantile lies outside the window."""
    paths, drawn = len(sample.weight), _resamples(len(sample.weight))
    hours = len(sample.values) // paths
    below = sample.weight * np.bincount(sample.owner[: window.start], minlength=paths)
    rest, owners = sample.values[window.stop :], sample.owner[window.stop :]
    above = sample.weight * np.bincount(owners, weights=rest, minlength=paths)
    total, base, tail = _resampled_sums(np.stack([sample.weight * hours, below, above], axis=1))[which].T
    owner, values = sample.owner[window], sample.values[window]
    mass, goal = sample.weight[owner], level * total
    found, shortfall = np.empty((2, len(which)))
    reached = goal - 1e-12 * total
    outside = (base >= reached) & (window.start > 0)
    step = max(1, _CELLS // max(len(values), 1))
    for i in range(0, len(which), step):
        part = slice(i, i + step)
        picked = drawn[which[part]][:, owner] * mass
        cumulative = base[part, None] + np.cumsum(picked, axis=1)
        rank = (cumulative < reached[part, None]).sum(axis=1)
        outside[part] |= (rank == len(values)) & (window.stop < len(sample.values))
        rank = np.minimum(rank, len(values) - 1)
        found[part] = np.where(np.isnan(goal[part]), np.nan, values[rank])
        spare = cumulative[np.arange(len(rank)), rank] - goal[part]
        inner = np.where(np.arange(len(values)) > rank[:, None], picked, 0.0) @ values
        shortfall[part] = (tail[part] + inner + spare * values[rank]) / ((1 - level) * total[part])
    return found, shortfall, which[outside]


def _ratio(over: float, under: float, draws_over: np.ndarray, draws_under: np.ndarray) -> Estimate:
    """A ratio; NaN where there is nothing below, and without the replicates in which there is nothing."""
    if under == 0:
        return Estimate(np.nan, np.nan, np.nan)
    some = draws_under != 0
    return _interval(over / under, draws_over[some] / draws_under[some])


def _interval(point: float, draws: np.ndarray) -> Estimate:
    low, high = np.nanquantile(draws, TAILS)
    return Estimate(float(point), float(low), float(high))
