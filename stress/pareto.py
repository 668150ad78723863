"""Generalised-Pareto tails: fit, likelihood region, goodness of fit.

The 95 % interval of anything that follows from a fitted tail, a quantile far beyond the data too, is its range over the
region in which twice the log-likelihood is less than t^2 below its largest value: the profile-likelihood interval, with
Student's t for the normal (Coles 2001, section 4.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import stdtrit, xlogy

from stress.intervals import TAILS, Estimate, effective_draws
from stress.results import effective_paths

FEWEST = 50
"""Exceedances below which no tail is fitted."""
REPLICATES = 199
"""Samples of the fitted tail with which the test of fit compares."""
SHAPES = -0.5, 2.0
"""Shapes that are looked for; below -0.5 likelihood is not regular (Smith 1985)."""
_DIRECTIONS, _HALVINGS, _REACH = 200, 24, 30.0
_GRID, _GOLDEN, _STEPS = 32, 0.5 * (5**0.5 - 1), 36
_SEED = 1975


@dataclass(frozen=True)
class Pareto:
    """Tails above a threshold u, one or an array of them.

    The chance of more than x is chance (1 + shape (x - u) / scale)^(-1 / shape).
    """

    threshold: float
    chance: Any
    """Of passing the threshold [1]."""
    shape: Any
    """[1]"""
    scale: Any
    """In the unit of the threshold."""

    @property
    def _shape(self) -> np.ndarray:
        """The shape, not so near to zero that powers lose their digits."""
        return np.where(np.abs(self.shape) < 1e-7, 1e-7, self.shape)

    def quantile(self, level: float) -> Any:
        """Value that is passed with chance 1 - level, no larger than that of passing the threshold."""
        return self.threshold + self.scale * np.expm1(self._shape * np.log(self.chance / (1 - level))) / self._shape

    def shortfall(self, level: float) -> Any:
        """Mean of what is larger than the quantile; infinite from a shape of one on."""
        beyond = self.scale + self.shape * (self.quantile(level) - self.threshold)
        finite = np.where(np.asarray(self.shape) < 1, 1 - np.asarray(self.shape), np.nan)
        return np.nan_to_num(self.quantile(level) + beyond / finite, nan=np.inf)

    def exceedance(self, value: float) -> Any:
        """Chance of more than a value at or above the threshold."""
        inside = np.maximum(1 + self._shape * (value - self.threshold) / self.scale, 1e-300)
        return self.chance * np.exp(-np.log(inside) / self._shape)


@dataclass(frozen=True)
class Fit:
    """A tail with the exceedances that it was fitted to."""

    tail: Pareto
    excess: np.ndarray
    """What lies above the threshold, ascending, shape (k)."""
    weight: np.ndarray
    """Of each, summing to one, shape (k)."""
    number: float
    """How many equally weighted exceedances they are worth."""
    draws: float
    """Independent draws that would tell the chance of passing the threshold as well as the paths do."""
    stretch: np.ndarray | None = None
    """Of the likelihood region, under uneven weights: as from `_stretch`."""

    @property
    def even(self) -> bool:
        """Whether the exceedances weigh the same."""
        return self.stretch is None

    def interval(self, figure: Callable[[Pareto], Any]) -> Estimate:
        """A figure of the tail, and its range over the likelihood region."""
        value, over = float(figure(self.tail)), np.asarray(figure(self.region))
        return Estimate(value, min(value, float(over.min())), max(value, float(over.max())))

    def log_likelihood(self, tail: Pareto) -> np.ndarray:
        """Of what lies above the threshold, and of how much does; minus infinity where a value is impossible."""
        scaled = np.multiply.outer(tail._shape / tail.scale, self.excess)
        possible = scaled[..., -1] > -1
        logs = np.log1p(np.where(possible[..., None], scaled, 0.0)) @ self.weight
        size = np.where(possible, -np.log(tail.scale) - (1 + 1 / tail._shape) * logs, -np.inf)
        hits = self.draws * self.tail.chance
        return self.number * size + xlogy(hits, tail.chance) + xlogy(self.draws - hits, 1 - tail.chance)

    @cached_property
    def region(self) -> Pareto:
        """The edge of the likelihood region, in directions that are spread evenly over a sphere.

        The axes are shape, log scale and log chance, in units of about their standard errors.
        """
        best, limit = self.tail, float(stdtrit(max(self.number - 1, 1.0), TAILS[1])) ** 2
        turn = np.arange(_DIRECTIONS) + 0.5
        height, angle = 1 - 2 * turn / _DIRECTIONS, turn * np.pi * (1 + 5**0.5)
        across = np.sqrt(1 - height**2)
        unit = np.array([1 + best.shape, 2**0.5, 1.0]) / np.sqrt(self.number)
        axes = unit[:, None] * [across * np.cos(angle), across * np.sin(angle), height]

        def at(offset: np.ndarray) -> Pareto:
            shape, scale, chance = offset
            chance = np.minimum(best.chance * np.exp(chance), 1 - 1e-12)
            return Pareto(best.threshold, chance, best.shape + shape, best.scale * np.exp(scale))

        inner, outer = np.zeros(_DIRECTIONS), np.full(_DIRECTIONS, _REACH)
        most = self.log_likelihood(best)
        for _ in range(_HALVINGS):
            middle = 0.5 * (inner + outer)
            within = 2 * (most - self.log_likelihood(at(middle * axes))) < limit
            inner, outer = np.where(within, middle, inner), np.where(within, outer, middle)
        return at(inner * axes if self.stretch is None else self.stretch @ (inner * axes))

    def test(self) -> float:
        """Chance that samples of the tail, each fitted anew, have an Anderson-Darling distance as large as this one.

        For equal weights; NaN otherwise.
        """
        if not self.even:
            return np.nan
        size, rng = len(self.excess), np.random.default_rng(_SEED)
        drawn = self.tail.scale * np.expm1(self.tail._shape * rng.exponential(size=(REPLICATES, size)))
        drawn = np.sort(drawn / self.tail._shape, axis=1)
        observed = _anderson_darling(self.excess, self.tail.shape, self.tail.scale)
        larger = np.sum(_anderson_darling(drawn, *maximum_likelihood(drawn, self.weight)) >= observed)
        return float((1 + larger) / (1 + REPLICATES))


def fit(values: np.ndarray, threshold: float, weight: np.ndarray | None = None) -> Fit:
    """Fit a tail to what lies above a threshold, by maximum likelihood; weighted likelihood under uneven weights.

    Args:
        values: One a path: [path].
        threshold: In the unit of `values`.
        weight: Likelihood ratios: [path]; equal if left out.

    Raises:
        ValueError: Fewer than `FEWEST` values are above the threshold.
    """
    weight = np.ones(len(values)) if weight is None else weight
    above = values > threshold
    if above.sum() < FEWEST:
        raise ValueError(f"{above.sum()} values are above {threshold:g}, expected at least {FEWEST}.")
    order = np.argsort(values[above])
    excess, mass = (values[above] - threshold)[order], weight[above][order]
    share, mass = float(mass.sum() / weight.sum()), mass / mass.sum()
    shape, scale = (float(x) for x in maximum_likelihood(excess, mass))
    tail, draws = Pareto(threshold, share, shape, scale), effective_draws(above.astype(np.float64), weight)
    uneven = np.ptp(weight) > 1e-9 * weight.max()
    return Fit(
        tail=tail,
        excess=excess,
        weight=mass,
        number=effective_paths(mass),
        draws=draws,
        stretch=_stretch(excess, mass, tail, draws) if uneven else None,
    )


def _stretch(excess: np.ndarray, weight: np.ndarray, tail: Pareto, draws: float) -> np.ndarray:
    """How the likelihood region of uneven weights is stretched, so that its covariance is the sandwich (3, 3).

    Weights that are small where values are large, and tell most, make the figures better known than as many equally
    weighted exceedances would (Chandler and Bate 2007). With the influence of each exceedance on shape, log scale and
    log chance, the covariance is the sum of its squares; that of the region alone is the one of the likelihood.
    """
    shape, scale, share = tail.shape if abs(tail.shape) > 1e-4 else 1e-4, tail.scale, tail.chance
    part = excess / scale / (1 + shape * excess / scale)
    score = np.stack([np.log1p(shape * excess / scale) / shape**2 - (1 + 1 / shape) * part, (1 + shape) * part - 1])
    inverse = np.linalg.inv((score * weight) @ score.T)
    influence = np.concatenate([inverse @ score, np.full((1, len(excess)), 1 - share)])
    sandwich = (influence * weight**2) @ influence.T
    sandwich[2, 2] = (1 - share) / (share * draws)
    alone = np.zeros((3, 3))
    alone[:2, :2], alone[2, 2] = inverse / effective_paths(weight), sandwich[2, 2]
    return np.linalg.cholesky(sandwich) @ np.linalg.inv(np.linalg.cholesky(alone))


def maximum_likelihood(excess: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape and scale of one sample or several, shape (..., k); the weights, shape (k), sum to one.

    For given t = shape / scale the likeliest shape is the mean of log(1 + t x): what is left is a search over t
    (Grimshaw 1993), by a grid and golden sections in log(t + 1 / largest x).
    """
    largest, mean = excess[..., -1:], (excess @ weight)[..., None]

    def loss(place: np.ndarray) -> np.ndarray:
        shape, scale = _along(place, excess, weight, largest, mean)
        usable = (shape > SHAPES[0]) & (shape < SHAPES[1])
        return np.where(usable, np.log(scale) + shape, np.inf)

    places = np.linspace(-12.0, 12.0, _GRID)
    values = np.stack([loss(place + 0 * mean[..., 0]) for place in places])
    best = places[values.argmin(axis=0)]
    low, high = best - (places[1] - places[0]), best + (places[1] - places[0])
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        lower = at_left < at_right
        low, high = np.where(lower, low, left), np.where(lower, right, high)
        inner = np.where(lower, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_inner = loss(inner)
        left, right = np.where(lower, inner, right), np.where(lower, left, inner)
        at_left, at_right = np.where(lower, at_inner, at_right), np.where(lower, at_left, at_inner)
    return _along(0.5 * (low + high), excess, weight, largest, mean)


def _along(
    place: np.ndarray, excess: np.ndarray, weight: np.ndarray, largest: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Likeliest shape, and the scale, at log((shape / scale + 1 / largest) x largest)."""
    ratio = np.expm1(place)[..., None] / largest
    ratio = np.where(np.abs(ratio) * mean < 1e-8, 1e-8 / mean, ratio)
    shape = np.log1p(ratio * excess) @ weight
    return shape, shape / ratio[..., 0]


def _anderson_darling(excess: np.ndarray, shape: Any, scale: Any) -> np.ndarray:
    """Distance of ascending samples, (..., k), from a tail: -k - sum (2 i - 1) (ln F_i + ln(1 - F_(k+1-i))) / k."""
    shape, scale = np.asarray(shape)[..., None], np.asarray(scale)[..., None]
    shape = np.where(np.abs(shape) < 1e-7, 1e-7, shape)
    log_survival = -np.log(np.maximum(1 + shape * excess / scale, 1e-300)) / shape
    size = excess.shape[-1]
    odd = 2 * np.arange(1, size + 1) - 1
    log_below = np.log(np.maximum(-np.expm1(log_survival), 1e-300))
    return -size - (log_below + log_survival[..., ::-1]) @ odd / size
