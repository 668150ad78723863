"""A jump-diffusion with double-exponential jumps (Kou 2002) from hourly returns.

The mixture of `merton` with another law of the jumps. Hours beyond the same threshold u hold one, and an exponential
has no memory: beyond u a jump up, with the diffusion e ~ N(0, s^2) of its hour, is again exponential with mean eta,

    P(J + e > u) = p_up exp(-u / eta + s^2 / (2 eta^2))       for u well above s and s^2 / eta

so that eta is the mean excess, and the count gives p_up; likewise down. s^2 is what the jumps leave of the variance:
the two are solved together. In the slopes that give the betas, e is s^2 / eta on average given a large J + e, not zero.
The rest is as in `merton`.

The exponential carries far below the threshold: most of the jumps that it counts are smaller, and their number, read
off the slope of the tail, is known less well than that of the large ones. Where a resample has few jumps on one side it
runs away, so standard errors are read off quantiles of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.special import log_ndtr

from stress.diffusions import Kou
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
from stress.prices import Bars
from stress.spec import InputError

_NAMES = ("per_day", "up", "mean_up", "mean_down")


@dataclass(frozen=True)
class Jumps:
    """Jumps of an hour, either side apart."""

    chance: Float64[np.ndarray, 2]
    """Of a jump up, and down."""
    mean: Float64[np.ndarray, 2]
    """Mean log size of either, positive."""

    def square(self) -> float:
        """What they add to the variance of an hour."""
        return float(np.sum(self.chance * 2 * self.mean**2))

    def numbers(self) -> np.ndarray:
        """In the order of `_NAMES`."""
        both = self.chance.sum()
        return np.array([DAY * both, self.chance[0] / both if both > 0 else 0.0, *self.mean])


NO_JUMPS = Jumps(np.zeros(2), np.zeros(2))


def fit_tails(values: Float64[np.ndarray, " n"], threshold: float) -> tuple[Jumps, float]:
    """Exponential jumps seen beyond +-threshold only, and the variance of the rest."""
    total = float(np.mean(values**2))
    excess = [side[side > threshold] - threshold for side in (values, -values)]
    mean = np.array([side.mean() if side.size else 0.0 for side in excess])
    counted = np.array([side.size for side in excess]) / len(values)
    size = np.where(mean > 0, mean, np.inf)
    jumps, calm = NO_JUMPS, total
    for _ in range(50):  # converges like the chance of a jump in an hour to the number of turns
        jumps = Jumps(counted * np.exp(threshold / size - calm / (2 * size**2)), mean)
        calm = max(total - jumps.square(), 0.0)
    return jumps, calm


@dataclass(frozen=True)
class Estimate:
    """What one sample of hourly returns says; the leader is the first asset."""

    common: Jumps
    beta: Float64[np.ndarray, " asset"]
    own: tuple[Jumps, ...]
    covariance: Float64[np.ndarray, "asset asset"]
    """Of the diffusion over an hour."""
    total: Float64[np.ndarray, "asset asset"]
    """Second moments of an hour's returns."""
    threshold: float
    detected: int

    def numbers(self) -> dict[str, np.ndarray]:
        """By the names of the config: what gets standard errors."""
        return {
            **volatility(self.covariance),
            "common": self.common.numbers(),
            "beta": self.beta,
            "own": np.stack([jumps.numbers() for jumps in self.own]),
            "total": np.sqrt(DAY * np.diag(self.total)),
        }

    def beyond(self, size: Float64[np.ndarray, " size"]) -> Float64[np.ndarray, " size"]:
        """Chance that the leader moves by more than a size in an hour."""
        sd = np.sqrt(self.covariance[0, 0])
        chance = (1 - self.common.chance.sum()) * 2 * np.exp(log_ndtr(-size / sd))
        for share, mean in zip(self.common.chance, self.common.mean, strict=True):
            if share > 0:
                chance = chance + share * _either_way(size, mean, sd)
        return chance


def _either_way(size: np.ndarray, mean: float, sd: float) -> np.ndarray:
    """Chance that an exponential of this mean plus a normal of this sd lies beyond +-size."""
    parts = 0.0
    for sign in (1, -1):
        smoothed = np.exp(-sign * size / mean + (sd / mean) ** 2 / 2 + log_ndtr(sign * size / sd - sd / mean))
        below = np.exp(log_ndtr(sign * size / sd)) - smoothed
        parts = parts + (1 - below if sign > 0 else below)
    return np.asarray(parts)


def estimate(returns: Float64[np.ndarray, "hour asset"], own: Sequence[bool] | None = None) -> Estimate:
    """The fit to one sample, as the head of this module says; `own` marks assets with own jumps, None finds them."""
    leader, total = returns[:, 0], second_moments(returns)
    threshold = THRESHOLD * truncated_sd(leader)
    big = np.abs(leader) > threshold
    common, calm = fit_tails(leader, threshold)
    square = common.square()
    x = leader[big]
    pulled = np.sum(np.abs(x) * calm / np.where(x > 0, *np.maximum(common.mean, 1e-12))) / (x @ x)
    slope = x @ returns[big] / (x @ x)
    ratio = pulled / max(calm, 1e-300)
    beta = (slope - ratio * total[0]) / (1 - pulled - ratio * square)
    rest = unexplained(returns, ~big)
    jumps = [NO_JUMPS]
    for a in range(1, returns.shape[1]):
        bound = THRESHOLD * truncated_sd(rest[:, a])
        count = int((np.abs(rest[:, a]) > bound).sum())
        wanted = count >= FEWEST if own is None else own[a] and count > 0
        jumps.append(fit_tails(rest[:, a], bound)[0] if wanted else NO_JUMPS)
    extra = np.diag([part.square() for part in jumps])
    covariance = total - square * np.outer(beta, beta) - extra
    return Estimate(common, beta, tuple(jumps), covariance, total, threshold, int(big.sum()))


def fit_estimate(returns: Float64[np.ndarray, "hour asset"]) -> tuple[Estimate, dict[str, np.ndarray]]:
    """The fit and its standard errors, refused where the sample cannot carry one."""
    big = np.abs(returns[:, 0]) > THRESHOLD * truncated_sd(returns[:, 0])
    if big.sum() < FEWEST:
        raise InputError(f"prices: show {big.sum()} common jumps, expected {FEWEST} or more. Give a longer period.")
    fit = estimate(returns)
    if np.linalg.eigvalsh(fit.covariance)[0] <= 0:
        raise InputError("prices: jumps explain more than the variance there is, expected less. Give a longer period.")
    own = [bool(jumps.chance.sum() > 0) for jumps in fit.own]
    return fit, standard_errors(returns, lambda sample: estimate(sample, own).numbers(), by_quantiles=True)


def fit_kou(
    hourly: Mapping[str, Bars], minute: Sequence[Bars] = (), level: float | None = None
) -> tuple[Kou, dict[str, Any]]:
    """A jump-diffusion and its report; the arguments are those of `fit_jumps`."""
    return fit_jumps(Kou, "kou", fit_estimate, _table, _found, hourly, minute, level)


def _found(fit: Estimate, hours: int) -> str:
    return f"{fit.detected} jumps beyond {fit.threshold:.2%} an hour in {hours} hours; most jumps are smaller."


def _table(assets: Sequence[str], numbers: Mapping[str, np.ndarray], fit: Estimate) -> dict[str, Any]:
    """The numbers, or their standard errors, in the shape of the spec."""
    own = {
        asset: dict(zip(_NAMES, rounded(numbers["own"][a]), strict=True))
        for a, asset in enumerate(assets)
        if fit.own[a].chance.sum() > 0
    }
    common = dict(zip(_NAMES, rounded(numbers["common"]), strict=True))
    common = {**common, "beta": by_asset(assets, numbers["beta"])}
    return {**diffusion_table(assets, numbers), "common": common, "own": own}
