"""Filtered historical simulation from hourly returns: a GJR-GARCH(1, 1) for each asset.

Variance targeting: the variance in the long run is the realised one, and alpha, gamma and beta are what makes normal
returns of the conditional variance likeliest (quasi-maximum likelihood: the weights come out right in large samples
though the returns are not normal). The residuals themselves are read from the price files at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.optimize import minimize

from stress.fits.gbm import realised
from stress.fits.sample import FROM_FILES, by_asset, hourly_returns, rounded, second_moments, standard_errors
from stress.history import conditional_variance
from stress.prices import Bars
from stress.recorded import Garch
from stress.spec import InputError, validate

_FIRST = np.array([0.08, 0.0, 0.9])
_PERSISTENT = 0.9999
"""Most that alpha + gamma / 2 + beta may be."""


def weights(returns: Float64[np.ndarray, " hour"], first: Float64[np.ndarray, 3] = _FIRST) -> np.ndarray:
    """alpha, gamma and beta of one asset."""
    long_run = float(np.mean(returns**2))

    def loss(at: np.ndarray) -> float:
        alpha, gamma, beta = (float(x) for x in at)
        if min(alpha, alpha + gamma, beta) < 0 or alpha + gamma / 2 + beta > _PERSISTENT:
            return np.inf
        variance = conditional_variance(returns, long_run, alpha, gamma, beta)[:-1]
        return float(np.mean(np.log(variance) + returns**2 / variance))

    simplex = first + np.array([[0, 0, 0], [0.02, 0, -0.02], [0, 0.02, -0.01], [0, 0, 0.02]])
    options = {"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-9}
    return minimize(loss, first, method="Nelder-Mead", options=options).x


def fit_garch(
    hourly: Mapping[str, Bars], minute: Sequence[Bars] = (), level: float | None = None
) -> tuple[Garch, dict[str, Any]]:
    """The shock and its report, as `fit_merton`; minute bars are not used."""
    assets = list(hourly)
    returns, period, scale = hourly_returns(hourly, level)
    if (second_moments(returns).diagonal() <= 0).any():
        raise InputError("prices: an asset does not move, expected prices that do. Leave it out.")
    found = np.stack([weights(column) for column in returns.T])

    def numbers(sample: np.ndarray) -> dict[str, np.ndarray]:
        fits = np.stack([weights(column, at) for column, at in zip(sample.T, found, strict=True)])
        return {"daily_volatility": realised(sample)["daily_volatility"], "weights": fits}

    whole = {"daily_volatility": realised(returns)["daily_volatility"], "weights": found}
    tables = [_table(assets, part) for part in (whole, standard_errors(returns, numbers))]
    start, until = period.split(" to ")
    window = {"start": start, "until": until, "scale": rounded(scale)}
    shock = validate(Garch, {"kind": "garch", **window, **tables[0]}, "fit")
    notes = [
        FROM_FILES,
        "alpha + gamma / 2 + beta, and hours in which half of a rise of variance is gone; kurtosis of residuals:",
    ]
    for a, asset in enumerate(assets):
        alpha, gamma, beta = found[a]
        lasting = alpha + gamma / 2 + beta
        variance = conditional_variance(returns[:, a], float(np.mean(returns[:, a] ** 2)), alpha, gamma, beta)[:-1]
        z = returns[:, a] / np.sqrt(variance)
        kurtosis = np.mean(z**4) / np.mean(z**2) ** 2
        notes.append(f"  {asset:5} {lasting:.4f}; {np.log(0.5) / np.log(lasting):.0f} h; {kurtosis:.1f}")
    return shock, {
        "period": period,
        "hours": len(returns),
        "scale": scale,
        "standard_errors": tables[1],
        "notes": notes,
    }


def _table(assets: Sequence[str], numbers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The numbers, or their standard errors, in the shape of the spec."""
    columns = [numbers["daily_volatility"], *numbers["weights"].T]
    names = ("daily_volatility", "alpha", "gamma", "beta")
    return {name: by_asset(assets, column) for name, column in zip(names, columns, strict=True)}
