"""Mean length of the blocks in which recorded hours are redrawn.

Politis and White (2004), as corrected by Patton, Politis and White (2009): the length that makes the variance of a mean
most accurate when the stationary bootstrap estimates it. What is averaged is the absolute return, because it is
volatility that has a memory; returns themselves have hardly any. Of the assets' lengths the longest is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from stress.fits.gbm import realised
from stress.fits.sample import FROM_FILES, by_asset, hourly_returns, rounded, standard_errors
from stress.prices import Bars
from stress.recorded import BlockBootstrap
from stress.spec import validate


def block_length(values: Float64[np.ndarray, " n"]) -> float:
    """The best mean length of a block [number of values]; at most a third of them and three times the root of them.

    With R(k) the autocovariances up to M, twice the lag m after which they can be taken for zero, and w a flat-top
    weight: length = (G^2 / g^2)^(1/3) n^(1/3), G = sum_k w(k / M) |k| R(k), g = sum_k w(k / M) R(k).
    """
    n = len(values)
    in_a_row = max(5, int(np.sqrt(np.log10(n))))
    most = int(np.ceil(np.sqrt(n))) + in_a_row
    centred = values - values.mean()
    covariance = np.array([centred[: n - k] @ centred[k:] for k in range(most + 1)]) / n
    small = np.abs(covariance[1:] / covariance[0]) < 2 * np.sqrt(np.log10(n) / n)
    runs = np.lib.stride_tricks.sliding_window_view(small, in_a_row).all(axis=1)
    last = max(int(runs.argmax()), 1) if runs.any() else int(np.flatnonzero(~small)[-1]) + 1
    lags = np.arange(1, min(2 * last, most) + 1)
    weight = np.clip(2 * (1 - lags / lags[-1]), 0.0, 1.0)
    pull = 2 * np.sum(weight * lags * covariance[lags])
    level = covariance[0] + 2 * np.sum(weight * covariance[lags])
    longest = min(3 * np.sqrt(n), n / 3)
    return float(np.clip((pull**2 / level**2 * n) ** (1 / 3), 1.0, longest))


def fit_block_bootstrap(
    hourly: Mapping[str, Bars], minute: Sequence[Bars] = (), level: float | None = None
) -> tuple[BlockBootstrap, dict[str, Any]]:
    """The shock and its report, as `fit_merton`; minute bars are not used."""
    assets = list(hourly)
    returns, period, scale = hourly_returns(hourly, level)
    lengths = np.array([block_length(np.abs(column)) for column in returns.T])
    start, until = period.split(" to ")
    window = {"start": start, "until": until, "scale": rounded(scale)}
    shock = validate(
        BlockBootstrap, {"kind": "block_bootstrap", **window, "block_hours": rounded(lengths.max(), 3)}, "fit"
    )
    errors = by_asset(assets, standard_errors(returns, realised)["daily_volatility"], 2)
    each = ", ".join(f"{asset} {length:.0f}" for asset, length in zip(assets, lengths, strict=True))
    notes = [FROM_FILES, f"Best block for each asset [h]: {each}. Daily volatility, for [assets.X].daily_volatility:"]
    for asset, sd in by_asset(assets, realised(returns)["daily_volatility"]).items():
        notes.append(f"  {asset:5} {sd} +- {errors[asset]:.2g}")
    return shock, {"period": period, "hours": len(returns), "scale": scale, "standard_errors": {}, "notes": notes}
