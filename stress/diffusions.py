"""Shocks that are drawn: a diffusion, with jumps on top or a volatility that changes."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma, log
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stress.spec import Fraction, Many, NonNegative, Number, Positive, Spec

Array = NDArray[np.float64]
Correlation = Annotated[Number, Field(gt=-1, lt=1)] | Many[Many[Number]]


class Diffusion(Spec):
    """Correlated log-returns without drift."""

    daily_volatility: dict[str, NonNegative]
    """Standard deviation of a day's log-return, jumps left out, by asset [1]."""
    correlation: Correlation
    """One number for all pairs, or the matrix in the order of `daily_volatility` [1]."""

    def assets(self) -> list[str]:
        """Assets it moves."""
        return list(self.daily_volatility)

    @model_validator(mode="after")
    def _correlation_fits(self) -> Self:
        matrix = self.matrix(self.assets())
        if matrix.shape != (len(self.daily_volatility),) * 2 or not np.allclose(matrix, matrix.T):
            raise ValueError(
                f"correlation is a table of shape {matrix.shape}, expected a symmetric one with a row for each of "
                f"{', '.join(self.daily_volatility)}. Correct it."
            )
        lowest = float(np.linalg.eigvalsh(matrix)[0])
        if lowest <= 0 or not np.allclose(np.diag(matrix), 1):
            raise ValueError(
                f"correlation has the smallest eigenvalue {lowest:g}, expected a positive definite matrix with ones on "
                "the diagonal. Correct it."
            )
        return self

    def matrix(self, assets: Sequence[str]) -> Array:
        """Correlation matrix in the order of `assets`."""
        names = list(self.daily_volatility)
        if isinstance(self.correlation, float):
            whole = np.full((len(names), len(names)), self.correlation)
            np.fill_diagonal(whole, 1.0)
        else:
            whole = np.array(self.correlation)
        if whole.shape != (len(names), len(names)):
            return whole
        order = [names.index(asset) for asset in assets]
        return whole[np.ix_(order, order)]

    def factor(self, assets: Sequence[str], days: float) -> Array:
        """Lower Cholesky factor of the covariance of log-returns over a time [1]."""
        sd = np.array([self.daily_volatility[asset] for asset in assets]) * np.sqrt(days)
        return sd[:, None] * np.linalg.cholesky(self.matrix(assets))

    def typical(self) -> float:
        """Mean of the volatility over its root mean square: below 1 where it changes [1]."""
        return 1.0

    def diffusion(self, asset: str) -> float:
        """Daily volatility of the diffusion in the mean over time, for what a path does between its steps [1]."""
        return self.typical() * self.daily_volatility[asset]


class Gbm(Diffusion):
    """Geometric Brownian motion."""

    kind: Literal["gbm"]
    source: str = ""


class StudentT(Diffusion):
    """Log-returns of an hour are jointly Student t: their volatility, one for all assets, is drawn anew every hour."""

    kind: Literal["student_t"]
    degrees_of_freedom: Annotated[Number, Field(gt=2)]
    """The fewer, the heavier the tails, and the likelier it is that assets move far in the same hour [1]."""
    source: str = ""

    def typical(self) -> float:
        """Mean of sqrt((nu - 2) / chi2_nu)."""
        nu = self.degrees_of_freedom
        return exp(0.5 * log(nu / 2 - 1) + lgamma((nu - 1) / 2) - lgamma(nu / 2))


class NormalJumps(Spec):
    """Jumps with normal log sizes."""

    per_day: NonNegative
    """Poisson intensity [1/day]."""
    mean: Number
    """Mean log size [1]."""
    sd: NonNegative
    """Standard deviation of the log size [1]."""

    def square(self) -> float:
        """Mean square of the log size [1]."""
        return self.mean**2 + self.sd**2


class ExponentialJumps(Spec):
    """Jumps with exponential log sizes on either side."""

    per_day: NonNegative
    """Poisson intensity [1/day]."""
    up: Fraction
    """Share of jumps that go up [1]."""
    mean_up: NonNegative
    """Mean log size of those [1]."""
    mean_down: NonNegative
    """Mean log size of those that go down, positive [1]."""

    def square(self) -> float:
        """Mean square of the log size [1]."""
        return 2 * (self.up * self.mean_up**2 + (1 - self.up) * self.mean_down**2)


class Common(Spec):
    """What jumps that all assets share have besides a size."""

    minutes: tuple[Positive, Positive] | Many[Positive]
    """A jump is spread evenly over a time drawn uniformly between these two [min]."""
    beta: dict[str, Number]
    """Log size by asset, relative to the common size [1]."""


class CommonNormalJumps(Common, NormalJumps):
    """Jumps that all assets share; their size is that for beta = 1."""


class CommonExponentialJumps(Common, ExponentialJumps):
    """Jumps that all assets share; their size is that for beta = 1."""


class WithNormalJumps(Diffusion):
    """A diffusion, common jumps with betas, and jumps of single assets."""

    common: CommonNormalJumps
    """Jumps that all assets share."""
    own: dict[str, NormalJumps] = {}
    """Own jumps by asset, spread over the same range of minutes as the common ones."""
    source: str = ""


class Merton(WithNormalJumps):
    """Jump-diffusion with normal jumps."""

    kind: Literal["merton"]


class Kou(Diffusion):
    """Jump-diffusion with double-exponential jumps: the tails of either side have a slope of their own."""

    kind: Literal["kou"]
    common: CommonExponentialJumps
    """Jumps that all assets share."""
    own: dict[str, ExponentialJumps] = {}
    """Own jumps by asset, spread over the same range of minutes as the common ones."""
    source: str = ""


class Variance(Spec):
    """A square-root process of mean 1 that multiplies the variance of all assets."""

    half_life_hours: Positive
    """Time in which half of a departure from the mean is gone [h]."""
    sd: NonNegative
    """Standard deviation in the long run [1]; 0 keeps the variance constant."""
    leverage: Annotated[Number, Field(ge=-1, le=1)] = 0.0
    """Correlation of its changes with the returns of the first asset of `daily_volatility` [1]."""
    start: Positive | None = None
    """At the start [1]; without it, drawn from the distribution in the long run, a gamma."""

    def pull(self) -> float:
        """Rate of return to the mean, kappa [1/day]."""
        return 24 * log(2) / self.half_life_hours

    def wobble(self) -> float:
        """Volatility of variance, xi, for a variance of sd^2 = xi^2 / (2 kappa) in the long run [1/sqrt(day)]."""
        return self.sd * (2 * self.pull()) ** 0.5


class Bates(WithNormalJumps):
    """Jump-diffusion with normal jumps whose diffusion has a variance that wanders."""

    kind: Literal["bates"]
    variance: Variance
    """How the diffusion's variance wanders."""

    def typical(self) -> float:
        """Mean of the root of a gamma variable of mean 1."""
        if self.variance.sd == 0:
            return 1.0
        shape = self.variance.sd**-2
        return exp(lgamma(shape + 0.5) - lgamma(shape) - 0.5 * log(shape))


def total_volatility(shock: Diffusion) -> dict[str, float]:
    """Standard deviation of a day's log-return, jumps included, by asset: the `daily_volatility` of [assets] [1]."""
    variance = {asset: sigma**2 for asset, sigma in shock.daily_volatility.items()}
    if isinstance(shock, WithNormalJumps | Kou):
        for asset in variance:
            variance[asset] += shock.common.per_day * shock.common.square() * shock.common.beta.get(asset, 0.0) ** 2
        for asset, jumps in shock.own.items():
            variance[asset] += jumps.per_day * jumps.square()
    return {asset: float(np.sqrt(value)) for asset, value in variance.items()}


def check_jumps(shock: WithNormalJumps | Kou) -> None:
    """`ValueError` unless jumps have a shortest and a longest time and name assets that the diffusion moves."""
    minutes = shock.common.minutes
    if len(minutes) != 2 or minutes[0] > minutes[1]:
        raise ValueError(
            f"shock.common.minutes is {list(minutes)}, expected the shortest and the longest time. Give these two."
        )
    for table, names in (("common.beta", shock.common.beta), ("own", shock.own)):
        for name in names:
            if name not in shock.daily_volatility:
                raise ValueError(
                    f"shock.{table} names {name!r}, expected an asset of shock.daily_volatility. "
                    "Correct it or add the asset."
                )
