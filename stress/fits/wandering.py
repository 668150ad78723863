"""How the variance of a market wanders: a square-root process from the leader's squared hourly returns."""

from __future__ import annotations

from typing import cast

import numpy as np
from jaxtyping import Float64
from scipy.optimize import fminbound
from scipy.stats import gamma as gamma_law

from stress.fits.sample import DAY, THRESHOLD, truncated_sd

_LAGS = np.arange(1, 11)
"""Distances of the autocovariances [day]."""
_NODES = 64


def rows_of(returns: Float64[np.ndarray, "hour asset"]) -> Float64[np.ndarray, "hour column"]:
    """What is resampled: returns, and products of the leader's squares with those of later days.

    Columns: an asset each; the mean square of the leader over the day that begins, squares cut off at the threshold;
    that times the mean j days later, for each j; the leader's return, 0 beyond the threshold, times the mean of the day
    that begins with the next hour. NaN where a day is incomplete.
    """
    leader = returns[:, 0]
    hours, bound = len(leader), THRESHOLD * truncated_sd(leader)
    square = np.minimum(np.abs(leader), bound) ** 2
    day = np.full(hours + DAY * (int(_LAGS[-1]) + 1), np.nan)
    day[: hours - DAY + 1] = np.convolve(square, np.ones(DAY) / DAY, "valid")
    later = [day[:hours] * day[DAY * j : DAY * j + hours] for j in _LAGS]
    calm = np.where(np.abs(leader) < bound, leader, 0.0)
    return np.column_stack([returns, day[:hours], *later, (calm - calm.mean()) * day[1 : hours + 1]])


def wandering(moments: Float64[np.ndarray, " moment"], calm: float) -> Float64[np.ndarray, 3]:
    """Half-life [h], sd and leverage of v.

    Args:
        moments: Means of the columns of `rows_of` that are not returns.
        calm: Variance of the leader's diffusion over an hour at v = 1.
    """
    covariance = (moments[1:-1] - moments[0] ** 2) / calm**2

    def shape(log_kappa: float) -> np.ndarray:
        kappa = np.exp(log_kappa)
        return (2 * np.sinh(kappa / 2) / kappa) ** 2 * np.exp(-kappa * _LAGS)

    def variance(curve: np.ndarray) -> float:
        return max(float(covariance @ curve / (curve @ curve)), 1e-6)

    def loss(log_kappa: float) -> float:
        curve = shape(log_kappa)
        return float(np.sum((covariance - variance(curve) * curve) ** 2))

    best = cast(float, fminbound(loss, np.log(0.02), np.log(5)))
    kappa, sd = np.exp(best), np.sqrt(variance(shape(best)))
    reach = calm**1.5 * sd * np.sqrt(2 * kappa / DAY) * (1 - np.exp(-kappa)) / kappa
    return np.array([DAY * np.log(2) / kappa, sd, np.clip(moments[-1] / reach, -0.99, 0.99)])


def gamma_nodes(sd: float) -> Float64[np.ndarray, " node"]:
    """Means of the bins, equally likely, of a gamma variable of mean 1."""
    shape = max(sd, 1e-3) ** -2
    edges = gamma_law.ppf(np.linspace(0, 1, _NODES + 1), shape)
    return _NODES * np.diff(gamma_law.cdf(edges, shape + 1))
