"""A jump-diffusion with a variance that wanders (Bates 1996) from hourly returns.

The variance v of the diffusion has mean 1 and is the same for all assets; it is seen in what the leader moves.

1. Daily means of the leader's squared returns, j days apart, have the autocovariances of a square-root process,

       (S sd)^2 (2 sinh(kappa / 2) / kappa)^2 exp(-kappa j)        S the leader's variance of an hour at v = 1

   Least squares over ten days give sd and kappa. A day's mean is free of the hour of the day; squares are cut off at
   the threshold of `merton`, as jumps say nothing of v. An hour's return times the next day's squares gives leverage.
2. In the long run v has a gamma distribution. Jumps are what it leaves unexplained of the leader's large moves: the
   likeliest chance, mean and sd given the hours beyond the threshold, and the number of those within.
3. Betas, own jumps and the covariance follow as in `merton`. The three are repeated until they agree.

One factor with one half-life has no memory of weeks, as real volatility has, and knows no quiet hours of a day.
Standard errors: blocks of ten days of the hours and, with them, of the products of step 1; off quantiles, as in `kou`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.optimize import minimize
from scipy.special import ndtr

from stress.diffusions import Bates
from stress.fits.jumps import fit_jumps
from stress.fits.sample import (
    DAY,
    FEWEST,
    THRESHOLD,
    by_asset,
    diffusion_table,
    rounded,
    second_moments,
    standard_errors,
    truncated_sd,
    unexplained,
    volatility,
)
from stress.fits.wandering import gamma_nodes, rows_of, wandering
from stress.prices import Bars
from stress.spec import InputError

_NODES, _TURNS = 64, 4
_LAGS = np.arange(1, 11)
"""Distances of the autocovariances [day]."""
_JUMP = ("per_day", "mean", "sd")


@dataclass(frozen=True)
class Estimate:
    """What one sample says; the leader is the first asset."""

    common: Float64[np.ndarray, 3]
    """Chance in an hour, mean and sd of a common jump."""
    beta: Float64[np.ndarray, " asset"]
    own: Float64[np.ndarray, "asset 3"]
    covariance: Float64[np.ndarray, "asset asset"]
    """Of the diffusion over an hour at v = 1."""
    total: Float64[np.ndarray, "asset asset"]
    variance: Float64[np.ndarray, 3]
    """Half-life [h], sd and leverage of v."""
    threshold: float
    detected: int

    def numbers(self) -> dict[str, np.ndarray]:
        """By the names of the config: what gets standard errors."""
        return {
            **volatility(self.covariance),
            "common": self.common * [DAY, 1, 1],
            "beta": self.beta,
            "own": self.own * [DAY, 1, 1],
            "total": np.sqrt(DAY * np.diag(self.total)),
            "variance": self.variance,
        }

    def beyond(self, size: Float64[np.ndarray, " size"]) -> Float64[np.ndarray, " size"]:
        """Chance that the leader moves by more than a size in an hour."""
        chance, mean, sd = self.common
        v = gamma_nodes(self.variance[1]) * self.covariance[0, 0]
        parts = ((1 - chance, 0.0, v), (chance, mean, sd**2 + v))
        return np.sum([p * _outside(size[:, None], m, np.sqrt(w)).mean(axis=1) for p, m, w in parts], axis=0)


def _outside(bound: Any, mean: float, sd: np.ndarray) -> np.ndarray:
    """Chance of a normal beyond +-bound."""
    return ndtr((-bound - mean) / sd) + ndtr((mean - bound) / sd)


def _density(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Of a normal of mean 0."""
    return np.exp(-(x**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


@dataclass(frozen=True)
class Tail:
    """Normal jumps in returns whose diffusion has a variance that wanders."""

    jump: Float64[np.ndarray, 3]
    """Chance in an hour, mean and sd."""
    calm: float
    """Variance of the diffusion at v = 1."""
    pulled: float
    """Of the sum of squares beyond the bound, the share that is the diffusion's."""

    def square(self) -> float:
        """What jumps add to the variance of an hour."""
        return float(self.jump[0] * (self.jump[1] ** 2 + self.jump[2] ** 2))


def fit_tail(values: Float64[np.ndarray, " n"], bound: float, nodes: Float64[np.ndarray, " node"]) -> Tail:
    """The likeliest given the values beyond +-bound, the number of those within, and the mean square of all."""
    x = values[np.abs(values) > bound][:, None] / bound
    total, count = float(np.mean(values**2)) / bound**2, len(values)

    def parts(at: np.ndarray) -> tuple[float, float, float, float, np.ndarray]:
        chance, mean, sd = float(np.exp(at[0])), float(at[1]), float(np.exp(at[2]))
        calm = max(total - chance * (mean**2 + sd**2), 0.05 * total)
        return chance, mean, sd, calm, nodes * calm

    def loss(at: np.ndarray) -> float:
        chance, mean, sd, _, v = parts(at)
        density = (1 - chance) * _density(x, v) + chance * _density(x - mean, v + sd**2)
        beyond = (1 - chance) * _outside(1.0, 0.0, np.sqrt(v)) + chance * _outside(1.0, mean, np.sqrt(v + sd**2))
        seen = np.log(np.maximum(density.mean(axis=1), 1e-300))
        return -float(np.sum(seen) + (count - len(x)) * np.log1p(-beyond.mean()))

    first = np.array([np.log(3 * len(x) / count), 0.0, np.log(0.6)])
    best = minimize(loss, first, method="L-BFGS-B", bounds=((-14, -0.7), (-1, 1), (-1.6, 1.6))).x
    chance, mean, sd, calm, v = parts(best)
    plain, jumped = (1 - chance) * _density(x, v), chance * _density(x - mean, v + sd**2)
    diffused = (plain * x + jumped * (x - mean) * v / (v + sd**2)).sum(axis=1) / (plain + jumped).sum(axis=1)
    pulled = float(x[:, 0] @ diffused / (x[:, 0] @ x[:, 0]))
    return Tail(np.array([chance, mean * bound, sd * bound]), calm * bound**2, pulled)


def estimate(rows: Float64[np.ndarray, "hour column"], assets: int, own: np.ndarray | None = None) -> Estimate:
    """The fit to one sample, as the head of this module says; `own` marks assets with own jumps, None finds them."""
    returns, moments = rows[:, :assets], np.nanmean(rows[:, assets:], axis=0)
    leader, total = returns[:, 0], second_moments(returns)
    threshold = THRESHOLD * truncated_sd(leader)
    big = np.abs(leader) > threshold
    common = Tail(np.zeros(3), float(total[0, 0]), 0.0)
    for _ in range(_TURNS):
        variance = wandering(moments, common.calm)
        nodes = gamma_nodes(variance[1])
        common = fit_tail(leader, threshold, nodes)
    slope = leader[big] @ returns[big] / (leader[big] @ leader[big])
    ratio = common.pulled / common.calm
    beta = (slope - ratio * total[0]) / (1 - common.pulled - ratio * common.square())
    rest = unexplained(returns, ~big)
    jumps = [Tail(np.zeros(3), 0.0, 0.0)]
    for a in range(1, assets):
        bound = THRESHOLD * truncated_sd(rest[:, a])
        count = int((np.abs(rest[:, a]) > bound).sum())
        wanted = count >= FEWEST if own is None else own[a] and count > 0
        jumps.append(fit_tail(rest[:, a], bound, nodes) if wanted else jumps[0])
    covariance = total - common.square() * np.outer(beta, beta) - np.diag([tail.square() for tail in jumps])
    own_jumps = np.stack([tail.jump for tail in jumps])
    return Estimate(common.jump, beta, own_jumps, covariance, total, variance, threshold, int(big.sum()))


def fit_estimate(returns: Float64[np.ndarray, "hour asset"]) -> tuple[Estimate, dict[str, np.ndarray]]:
    """The fit and its standard errors, refused where the sample cannot carry one."""
    rows, assets = rows_of(returns), returns.shape[1]
    big = np.abs(returns[:, 0]) > THRESHOLD * truncated_sd(returns[:, 0])
    if big.sum() < FEWEST:
        raise InputError(f"prices: show {big.sum()} common jumps, expected {FEWEST} or more. Give a longer period.")
    fit = estimate(rows, assets)
    if np.linalg.eigvalsh(fit.covariance)[0] <= 0:
        raise InputError("prices: jumps explain more than the variance there is, expected less. Give a longer period.")
    own = fit.own[:, 0] > 0
    return fit, standard_errors(rows, lambda sample: estimate(sample, assets, own).numbers(), by_quantiles=True)


def fit_bates(
    hourly: Mapping[str, Bars], minute: Sequence[Bars] = (), level: float | None = None
) -> tuple[Bates, dict[str, Any]]:
    """A jump-diffusion and its report; the arguments are those of `fit_jumps`."""
    return fit_jumps(Bates, "bates", fit_estimate, _table, _found, hourly, minute, level)


def _found(fit: Estimate, hours: int) -> str:
    return f"{fit.detected} hours beyond {fit.threshold:.2%} in {hours}, by jumps or by a high variance."


def _table(assets: Sequence[str], numbers: Mapping[str, np.ndarray], fit: Estimate) -> dict[str, Any]:
    """The numbers, or their standard errors, in the shape of the spec."""
    own = {
        asset: dict(zip(_JUMP, rounded(numbers["own"][a]), strict=True))
        for a, asset in enumerate(assets)
        if fit.own[a, 0] > 0
    }
    common = dict(zip(_JUMP, rounded(numbers["common"]), strict=True))
    common = {**common, "beta": by_asset(assets, numbers["beta"])}
    variance = dict(zip(("half_life_hours", "sd", "leverage"), rounded(numbers["variance"]), strict=True))
    return {**diffusion_table(assets, numbers), "common": common, "own": own, "variance": variance}
