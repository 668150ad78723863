"""A multivariate Student t from hourly returns.

Covariance is the realised one, so that every asset's total variance is met exactly; the degrees of freedom nu are what
makes the returns of all assets together likeliest given that covariance S:

    log f(r) = const(nu) - (nu + d) / 2 log(1 + r' S^-1 r / (nu - 2))

One nu for all assets is a compromise: those with calmer tails of their own get heavier ones, and conversely. That each
would have alone stands in the notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float64
from scipy.optimize import fminbound
from scipy.special import gammaln
from scipy.stats import t as student

from stress.diffusions import StudentT
from stress.fits.gbm import realised
from stress.fits.sample import (
    THRESHOLD,
    diffusion_table,
    hourly_returns,
    rounded,
    second_moments,
    standard_errors,
    tail,
    tail_notes,
    truncated_sd,
)
from stress.prices import Bars
from stress.spec import InputError, validate

_LEAST, _MOST = 2.05, 200.0


def degrees_of_freedom(returns: Float64[np.ndarray, "hour asset"]) -> float:
    """The likeliest given the realised covariance; between 2.05 and 200, where a t is normal for all purposes."""
    size = returns.shape[1]
    distance = np.einsum("ti,ij,tj->t", returns, np.linalg.inv(second_moments(returns)), returns)

    def loss(inverse: float) -> float:
        nu = 1 / inverse
        level = gammaln((nu + size) / 2) - gammaln(nu / 2) - size / 2 * np.log(nu - 2)
        return (nu + size) / 2 * float(np.mean(np.log1p(distance / (nu - 2)))) - float(level)

    return 1 / cast(float, fminbound(loss, 1 / _MOST, 1 / _LEAST, xtol=1e-7))


def fit_student_t(
    hourly: Mapping[str, Bars], minute: Sequence[Bars] = (), level: float | None = None
) -> tuple[StudentT, dict[str, Any]]:
    """The shock and its report, as `fit_merton`; minute bars are not used."""
    assets = list(hourly)
    returns, period, scale = hourly_returns(hourly, level)
    if np.linalg.eigvalsh(second_moments(returns))[0] <= 0:
        raise InputError("prices: two assets move as one, expected a covariance of full rank. Leave one out.")

    def numbers(sample: np.ndarray) -> dict[str, np.ndarray]:
        return {**realised(sample), "degrees_of_freedom": np.array(degrees_of_freedom(sample))}

    tables = [
        {**diffusion_table(assets, part), "degrees_of_freedom": rounded(part["degrees_of_freedom"])}
        for part in (numbers(returns), standard_errors(returns, numbers))
    ]
    shock = validate(StudentT, {"kind": "student_t", **tables[0]}, "fit")
    alone = [f"{asset} {degrees_of_freedom(returns[:, [a]]):.2f}" for a, asset in enumerate(assets)]
    nu, sd = shock.degrees_of_freedom, float(np.sqrt(np.mean(returns[:, 0] ** 2)))
    threshold = THRESHOLD * truncated_sd(returns[:, 0])
    rows = tail(returns[:, 0], threshold, lambda size: 2 * student.sf(size / sd * np.sqrt(nu / (nu - 2)), nu))
    notes = [f"Degrees of freedom of each asset alone: {', '.join(alone)}.", *tail_notes(rows)]
    facts = {"period": period, "hours": len(returns), "scale": scale, "standard_errors": tables[1]}
    return shock, {**facts, "tail": rows, "notes": notes}
