"""A Merton jump-diffusion from hourly returns.

An hour's log-return of asset a is a mixture; jumps that all assets share are read off the leader, BTC:

    r_a = beta_a J + J_a + e_a     J ~ N(mean, sd^2) with chance p, J_a ~ N(., .) with chance p_a, e ~ N(0, S)

1. Hours in which the leader moves by more than `THRESHOLD` truncated standard deviations hold a jump. Their number, sum
   and sum of squares give p, mean and sd: maximum likelihood of a normal seen only beyond the threshold, so that jumps
   below it are counted in.
2. Slopes through zero at those hours give the betas, freed of the diffusion in them.
3. Own jumps come by the same rule from what the leader does not explain in the other hours.
4. S is what the jumps leave of the realised second moments, so every asset's total variance is met exactly. Bipower
   variation, which knows nothing of this, is reported beside it, and so are counts of large moves.
5. Standard errors: a bootstrap of blocks of ten days, because volatility comes in weeks.

The model has no changing volatility: what turbulent weeks do to the tail goes into the jumps. A jump that straddles two
hours is seen as two smaller ones; spread over up to 27 minutes that bends intensity and size by less than a tenth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.optimize import minimize
from scipy.special import ndtr

from stress.diffusions import Merton
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


@dataclass(frozen=True)
class Estimate:
    """What one sample of hourly returns says; the leader is the first asset."""

    chance: float
    """Of a common jump in an hour."""
    mean: float
    sd: float
    beta: Float64[np.ndarray, " asset"]
    own: Float64[np.ndarray, "asset 3"]
    """Chance in an hour, mean and sd of own jumps; 0 where there are none."""
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
            "per_day": np.array(DAY * self.chance),
            "mean": np.array(self.mean),
            "sd": np.array(self.sd),
            "beta": self.beta,
            "own": self.own * [DAY, 1, 1],
            "total": np.sqrt(DAY * np.diag(self.total)),
        }

    def beyond(self, size: Float64[np.ndarray, " size"]) -> Float64[np.ndarray, " size"]:
        """Chance that the leader moves by more than a size in an hour."""
        calm = self.covariance[0, 0]
        parts = ((1 - self.chance, 0.0, calm), (self.chance, self.mean, self.sd**2 + calm))
        return np.sum([p * (ndtr((-size - m) / v**0.5) + ndtr((m - size) / v**0.5)) for p, m, v in parts], axis=0)


def fit_tail(values: Float64[np.ndarray, " n"], threshold: float) -> tuple[float, float, float]:
    """A normal seen only beyond +-threshold, by maximum likelihood: (chance of it, mean, sd)."""
    seen = values[np.abs(values) > threshold] / threshold
    first, second = float(np.mean(seen)), float(np.mean(seen**2))

    def beyond(mean: float, sd: float) -> float:
        return float(ndtr((-1 - mean) / sd) + ndtr((mean - 1) / sd))

    def loss(at: np.ndarray) -> float:
        mean, sd = float(at[0]), float(np.exp(at[1]))
        return (second - 2 * mean * first + mean**2) / (2 * sd**2) + at[1] + np.log(beyond(mean, sd))

    best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=((-1, 1), (-1.6, 1.6))).x
    mean, sd = float(best[0]), float(np.exp(best[1]))
    return len(seen) / len(values) / beyond(mean, sd), mean * threshold, sd * threshold


def estimate(returns: Float64[np.ndarray, "hour asset"], own: np.ndarray | None = None) -> Estimate:
    """The fit to one sample, as the head of this module says; `own` marks assets with own jumps, None finds them."""
    leader = returns[:, 0]
    total = second_moments(returns)
    threshold = THRESHOLD * truncated_sd(leader)
    big = np.abs(leader) > threshold
    chance, mean, spread = fit_tail(leader, threshold)
    seen = spread**2 + mean**2  # second moment of an hour with a jump, diffusion included
    jump = (seen - total[0, 0]) / (1 - chance)  # the same without the diffusion
    slope = leader[big] @ returns[big] / (leader[big] @ leader[big])
    beta = (slope * seen - total[0]) / (seen - total[0, 0])
    rest = unexplained(returns, ~big)
    jumps = np.zeros((returns.shape[1], 3))
    for a in range(1, returns.shape[1]):
        bound = THRESHOLD * truncated_sd(rest[:, a])
        count = int((np.abs(rest[:, a]) > bound).sum())
        if count >= FEWEST if own is None else own[a] and count > 0:
            p, m, s = fit_tail(rest[:, a], bound)
            square = (s**2 + m**2 - np.mean(rest[:, a] ** 2)) / (1 - p)
            jumps[a] = p, m, np.sqrt(max(square - m**2, 0.0))
    extra = np.diag(jumps[:, 0] * (jumps[:, 1] ** 2 + jumps[:, 2] ** 2))
    sd = float(np.sqrt(max(jump - mean**2, 0.0)))
    covariance = total - chance * jump * np.outer(beta, beta) - extra
    return Estimate(chance, mean, sd, beta, jumps, covariance, total, threshold, int(big.sum()))


def fit_estimate(returns: Float64[np.ndarray, "hour asset"]) -> tuple[Estimate, dict[str, np.ndarray]]:
    """The fit and its standard errors, refused where the sample cannot carry one."""
    big = np.abs(returns[:, 0]) > THRESHOLD * truncated_sd(returns[:, 0])
    if big.sum() < FEWEST:
        raise InputError(f"prices: show {big.sum()} common jumps, expected {FEWEST} or more. Give a longer period.")
    fit = estimate(returns)
    if np.linalg.eigvalsh(fit.covariance)[0] <= 0:
        raise InputError("prices: jumps explain more than the variance there is, expected less. Give a longer period.")
    return fit, standard_errors(returns, lambda sample: estimate(sample, fit.own[:, 0] > 0).numbers())


def fit_merton(
    hourly: Mapping[str, Bars], minute: Sequence[Bars] = (), level: float | None = None
) -> tuple[Merton, dict[str, Any]]:
    """A jump-diffusion and its report; the arguments are those of `fit_jumps`."""
    return fit_jumps(Merton, "merton", fit_estimate, _table, _found, hourly, minute, level)


def _found(fit: Estimate, hours: int) -> str:
    return f"{fit.detected} jumps beyond {fit.threshold:.2%} an hour in {hours} hours."


def _table(assets: Sequence[str], numbers: Mapping[str, np.ndarray], fit: Estimate) -> dict[str, Any]:
    """The numbers, or their standard errors, in the shape of the spec."""
    common = {name: rounded(numbers[name]) for name in ("per_day", "mean", "sd")}
    own = {
        asset: dict(zip(("per_day", "mean", "sd"), rounded(numbers["own"][a]), strict=True))
        for a, asset in enumerate(assets)
        if fit.own[a, 0] > 0
    }
    beta = by_asset(assets, numbers["beta"])
    return {**diffusion_table(assets, numbers), "common": {**common, "beta": beta}, "own": own}
