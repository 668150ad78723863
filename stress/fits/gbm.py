"""A Brownian motion with all of the realised variance and correlation, jumps included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from stress.diffusions import Gbm
from stress.fits.sample import diffusion_table, hourly_returns, second_moments, standard_errors, volatility
from stress.prices import Bars
from stress.spec import validate


def fit_gbm(
    hourly: Mapping[str, Bars], minute: Sequence[Bars] = (), level: float | None = None
) -> tuple[Gbm, dict[str, Any]]:
    """The motion and its report, as `fit_merton`; minute bars are not used."""
    returns, period, scale = hourly_returns(hourly, level)
    numbers = realised(returns), standard_errors(returns, realised)
    tables = [diffusion_table(list(hourly), part) for part in numbers]
    report = {"period": period, "hours": len(returns), "scale": scale, "standard_errors": tables[1], "notes": []}
    return validate(Gbm, {"kind": "gbm", **tables[0]}, "fit"), report


def realised(returns: Float64[np.ndarray, "hour asset"]) -> dict[str, np.ndarray]:
    """Daily volatility and correlation of hourly returns."""
    return volatility(second_moments(returns))
