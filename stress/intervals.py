"""Quantiles, shortfalls, exceedance and chances over the paths of a run, each with a 95 % interval.

Paths are independent and the hours of one path are not: every interval takes the path as the unit. All but those of
shortfalls rest on one interval, that of a chance. With one value a path and equal weights it is exact: it covers at
least 95 % whatever the distribution, and so do the quantiles got by inverting it. With several hours a path, or
likelihood ratios of importance sampling (`log_weight`), it is approximate: its number of draws is the one at which
independent draws would scatter as the paths do. `tests/statistical` measures how often each interval holds the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy.special import betaincinv, ndtri, stdtrit

from stress.results import effective_paths

LEVELS = (0.5, 0.95, 0.99, 0.999)
"""Quantiles that are reported [1]."""
TAILS = (0.025, 0.975)
"""Ends of the intervals [1]."""
_SHAPE, _SHAPE_WEIGHTED = 1 / 3, 1e-6
"""Shape of the tail from which the critical values of shortfalls come: returns of crypto assets have a tail index of
2 to 2.5 in early years and about 3 since (Begusic et al. 2018, Takaishi 2020). Under importance sampling the largest
values are drawn often and weigh little: as in an exponential tail."""
_TOO_HEAVY, _ERRORS = 0.6, 1.25
"""Shape from which on the scatter of paths does not bound a mean from above, and within how many standard errors of it
an estimate is taken for it: intervals then hold in 91 to 97 % at shapes up to 0.8, simulated from 10 exceedances on."""
_MOST, _FEWEST = 400, 3
"""Exceedances above which critical values are those of this many, and below which there are none."""
_DRAWS = 10_000
_SEED = 601


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its 95 % interval; an end that the paths cannot tell is infinite."""

    value: float
    low: float
    high: float
    exact: bool = False
    """Whether the interval covers at least 95 % whatever the distribution; otherwise about 95 %."""


@dataclass(frozen=True)
class Weighed(Estimate):
    """A chance under importance sampling."""

    hits: float = 0.0
    """Equally weighted paths that those on which it happens are worth; of the rarer side, if it is likely."""
    draws: float = 0.0
    """Paths without weights by which it would be known as well, p (1 - p) / variance."""


def quantile(values: np.ndarray, levels: Sequence[float], weight: np.ndarray | None = None) -> np.ndarray:
    """Smallest value whose weighted distribution function reaches each level: [level].

    Args:
        values: [path] or [path hour]; the hours of a path share its weight.
        levels: Between 0 and 1.
        weight: [path]; equal weights if left out.
    """
    sample = in_order(values, weight)
    return sample.values[[sample.rank(level) for level in levels]]


def expected_shortfall(values: np.ndarray, level: float, weight: np.ndarray | None = None) -> float:
    """Mean of the largest 1 - `level` of the distribution, the value at its edge counted in part; as `quantile`."""
    sample = in_order(values, weight)
    edge = sample.values[sample.rank(level)]
    return float(edge + sample.excess(edge).sum() / ((1 - level) * sample.weight.sum()))


def quantile_intervals(
    values: np.ndarray, levels: Sequence[float] = LEVELS, weight: np.ndarray | None = None
) -> dict[float, Estimate]:
    """`quantile` at each level, with the values at which the interval of the chance of more just holds 1 - level.

    Woodruff's inversion: with one value a path and equal weights these are order statistics.
    """
    sample = in_order(values, weight)
    return {level: _inverted(sample, level) for level in levels}


def shortfall_interval(values: np.ndarray, level: float, weight: np.ndarray | None = None) -> Estimate:
    """`expected_shortfall` with an interval of its standard error, and critical values for skewed tails.

    With Q the quantile at `level` and y the mean over a path's hours of what lies above Q, the shortfall is
    Q + mean(y) / (1 - level), whose first order in Q vanishes: its standard error is that of mean(y), a ratio of sums
    over paths. Few exceedances are skewed, and those unseen are the largest: critical values are from `_critical`.
    Where the tail may be far heavier than that of these the upper end is open.
    """
    sample = in_order(values, weight)
    edge = float(sample.values[sample.rank(level)])
    excess, share = sample.excess(edge), sample.weight * sample.hits(sample.above(edge))
    total = (1 - level) * sample.weight.sum()
    mean = excess.sum() / sample.weight.sum()
    error = np.sqrt(np.sum((excess - sample.weight * mean) ** 2)) / total
    value = float(edge + excess.sum() / total)
    exceedances = int(effective_paths(share) + 1e-9) if share.any() else 0
    if exceedances < _FEWEST:
        return Estimate(value, _inverted(sample, level).low, np.inf)
    low, high = _critical(min(exceedances, _MOST), _SHAPE if sample.even else _SHAPE_WEIGHTED)
    top = float(value - low * error)
    if sample.even and _may_be_too_heavy(sample.values[sample.values > edge], exceedances):
        top = np.inf
    return Estimate(value, float(value - high * error), top)


def _may_be_too_heavy(values: np.ndarray, exceedances: int) -> bool:
    """Whether a generalised-Pareto tail's shape may be `_TOO_HEAVY`, by probability-weighted moments (Hosking and
    Wallis 1987) and the standard error of maximum likelihood.

    Args:
        values: Beyond the quantile, in ascending order.
        exceedances: Independent ones that they are worth.
    """
    excess = values - values[0]
    weighted = excess * (1 - (np.arange(1, len(excess) + 1) - 0.35) / len(excess))
    mean, spread = float(excess.mean()), float(excess.mean() - 2 * weighted.mean())
    if spread <= 0:
        return False
    shape = 2 - mean / spread
    return shape + _ERRORS * (1 + max(shape, 0.0)) / np.sqrt(exceedances) >= _TOO_HEAVY


def exceedance(values: np.ndarray, thresholds: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Chance of a value above each threshold, and its interval, each by itself: [3 threshold] (value, low, high).

    Args:
        values: [path] or [path hour].
        thresholds: In the unit of `values`.
        weight: [path]; equal weights if left out.
    """
    sample = in_order(values, weight)
    found = [sample.chance(sample.above(threshold)) for threshold in thresholds]
    return np.array([[e.value for e in found], [e.low for e in found], [e.high for e in found]])


def probability(hit: np.ndarray, weight: np.ndarray | None = None) -> Estimate:
    """Chance of what happens on a path: exact (Clopper-Pearson) for equal weights, else a `Weighed`.

    Args:
        hit: Whether it happens on the path: [path].
        weight: Likelihood ratios, of mean 1 but for sampling error: [path]; equal weights if left out.
    """
    hit = np.asarray(hit, dtype=np.float64)
    weight = np.ones(len(hit)) if weight is None else np.asarray(weight)
    return chance(hit, weight) if _even(weight) else _weighed(hit, weight)


def _weighed(hit: np.ndarray, weight: np.ndarray) -> Weighed:
    """Mean of weight x hit, of the rarer of what happens and what does not: [path] each.

    It is unbiased, and not divided by the mean weight: of a rare event the weights of all the other paths would only
    add to the error. Of what happens on no path: as if every one of the few paths that it might have been were as heavy
    as the heaviest.
    """
    likely = 2 * float(weight @ hit) > float(weight.sum())
    rare, paths = 1 - hit if likely else hit, len(hit)
    share = min(float(weight @ rare) / paths, 0.999)  # above a half only where there are very few paths
    if share == 0:
        draws = paths / float(weight.max())
        low, high = 0.0, float(betaincinv(1, draws, TAILS[1]))
    else:
        variance = np.sum((weight * rare - share) ** 2) / paths**2
        draws = float(share * (1 - share) / variance)
        low, high = _around(share, draws, (weight * rare - share) ** 2, TAILS)
    found = share, low, high
    if likely:
        found = 1 - share, 1 - high, 1 - low
    return Weighed(*found, hits=effective_paths(weight * rare), draws=draws)


def effective_draws(hits: np.ndarray, weight: np.ndarray) -> float:
    """Independent draws by which a chance would be known as well: p (1 - p) / variance; of what never or always happens
    the number of paths that the weights are worth.

    Args:
        hits: Share of a path's hours in which it happens: [path].
        weight: [path].
    """
    if np.ptp(hits[weight > 0]) == 0:
        return effective_paths(weight)
    share = weight @ hits / weight.sum()
    return float(share * (1 - share) * weight.sum() ** 2 / np.sum((weight * (hits - share)) ** 2))


def chance(hits: np.ndarray, weight: np.ndarray, tails: tuple[float, float] = TAILS) -> Estimate:
    """Weighted mean of `hits`, the share of a path's hours in which something happens: [path].

    The Clopper-Pearson interval of as many draws as would scatter as much, p (1 - p) / variance (Korn and Graubard
    1998), fewer where the variance is itself uncertain: by (1.96 / t)^2, with the degrees of freedom of the part of its
    scatter that is not a binomial's. For 0 and 1 with equal weights the draws are the paths, and nothing is added.
    """
    if _even(weight) and bool(np.all((hits == 0) | (hits == 1))):
        return _counted(float(hits.sum()), len(hits), tails)
    trials, some = effective_draws(hits, weight), hits[weight > 0]
    if np.ptp(some) == 0:
        return replace(_counted(float(some[0]) * trials, trials, tails), exact=False)
    share = float(weight @ hits / weight.sum())
    return Estimate(share, *_around(share, trials, (weight * (hits - share)) ** 2, tails))


def _counted(count: float, trials: float, tails: tuple[float, float] = TAILS) -> Estimate:
    """The chance of what happens in `count` of so many equal trials, with its Clopper-Pearson interval."""
    low = betaincinv(count, trials - count + 1, tails[0]) if count > 0 else 0.0
    high = betaincinv(count + 1, trials - count, tails[1]) if count < trials else 1.0
    return Estimate(count / trials, float(low), float(high), exact=True)


def _around(share: float, trials: float, squares: np.ndarray, tails: tuple[float, float]) -> tuple[float, float]:
    """Ends of the interval of a chance that so many draws would give, of which each path's share of the variance is as
    `squares`: fewer draws, where the variance is itself uncertain."""
    scatter = (squares @ squares) / squares.sum() ** 2 - 1 / (trials * min(share, 1 - share))
    if scatter > 1e-9:
        trials *= float(ndtri(TAILS[1]) / stdtrit(max(1 / scatter, 1.0), TAILS[1])) ** 2
    count = share * trials
    return float(betaincinv(count, trials - count + 1, tails[0])), float(
        betaincinv(count + 1, trials - count, tails[1])
    )


def _even(weight: np.ndarray) -> bool:
    return bool(np.ptp(weight) <= 1e-9 * weight.max())


@dataclass(frozen=True)
class Sorted:
    """Values in ascending order, with the path each belongs to."""

    values: np.ndarray
    owner: np.ndarray
    weight: np.ndarray
    """By path; the weight of one of its values."""
    cumulative: np.ndarray

    @cached_property
    def even(self) -> bool:
        """Whether all paths weigh the same."""
        return _even(self.weight)

    @property
    def exact(self) -> bool:
        """Whether chances are those of a count: one value a path, and equal weights."""
        return self.even and len(self.values) == len(self.weight)

    def rank(self, level: float) -> int:
        """Position of the quantile; a share reached but for rounding counts as reached."""
        total = self.cumulative[-1]
        return min(int(np.searchsorted(self.cumulative, (level - 1e-12) * total)), len(self.values) - 1)

    def above(self, value: float) -> int:
        """Position of the first larger value."""
        return int(np.searchsorted(self.values, value, side="right"))

    def hits(self, start: int) -> np.ndarray:
        """Share of each path's hours among the values from a position on: [path]."""
        hours = len(self.values) // len(self.weight)
        return np.bincount(self.owner[start:], minlength=len(self.weight)) / hours

    def chance(self, start: int) -> Estimate:
        """That of a value from a position on."""
        if self.exact:
            return _counted(len(self.values) - start, len(self.values))
        return chance(self.hits(start), self.weight)

    def excess(self, edge: float) -> np.ndarray:
        """Weight x mean over a path's hours of what lies above `edge`: [path]."""
        start, paths = self.above(edge), len(self.weight)
        sums = np.bincount(self.owner[start:], self.values[start:] - edge, minlength=paths)
        return self.weight * sums / (len(self.values) // paths)


def in_order(values: np.ndarray, weight: np.ndarray | None) -> Sorted:
    """A sample, [path] or [path hour], by size."""
    values = np.asarray(values, dtype=np.float64)
    rows = values.reshape(len(values), -1)
    shares = np.ones(len(rows)) if weight is None else np.asarray(weight) * (len(rows) / np.sum(weight))
    order = np.argsort(rows, axis=None)
    owner = order // rows.shape[1]
    return Sorted(rows.ravel()[order], owner, shares, np.cumsum(shares[owner]))


def _inverted(sample: Sorted, level: float) -> Estimate:
    """A quantile, the largest value that surely is at or below it, and the smallest at or above it."""
    values, rank, rare = sample.values, sample.rank(level), 1 - level

    def too_high(place: int) -> bool:
        return sample.chance(sample.above(values[place])).high <= rare

    def too_low(place: int) -> bool:
        return sample.chance(int(np.searchsorted(values, values[place]))).low >= rare

    upper = _first(too_high, rank, len(values))
    lower = _first(lambda place: not too_low(place), 0, rank + 1) - 1
    high = float(values[upper]) if upper < len(values) else np.inf
    low = float(values[lower]) if lower >= 0 else -np.inf
    return Estimate(float(values[rank]), low, high, sample.exact)


def _first(true: Callable[[int], bool], start: int, stop: int) -> int:
    """First place in a range from which on a condition holds; `stop` if it never does."""
    while start < stop:
        middle = (start + stop) // 2
        start, stop = (start, middle) if true(middle) else (middle + 1, stop)
    return start


@lru_cache
def _critical(exceedances: int, shape: float) -> tuple[float, float]:
    """Ends of the middle 95 % of (estimate - truth) / standard error of a shortfall, for so many exceedances.

    Of the largest values of a large sample with a generalised-Pareto tail: the chance of more than the j-th is the time
    of the j-th arrival of a Poisson process, over the number of exceedances.
    """
    arrivals = np.cumsum(np.random.default_rng(_SEED).exponential(size=(_DRAWS, exceedances)), axis=1)
    tail = ((arrivals / exceedances) ** -shape - 1) / shape
    error = np.sqrt(np.sum((tail - tail[:, -1:]) ** 2, axis=1)) / exceedances
    low, high = np.quantile((tail.mean(axis=1) - 1 / (1 - shape)) / error, TAILS)
    return float(low), float(high)
