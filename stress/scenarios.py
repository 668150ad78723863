"""Shocks: what drives the index prices from outside, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stress.spec import Fraction, Many, NonNegative, Number, Positive, Spec

Array = NDArray[np.float64]
Correlation = Annotated[Number, Field(gt=-1, lt=1)] | Many[Many[Number]]


class Diffusion(Spec):
    """Correlated Brownian log-returns without drift."""

    daily_volatility: dict[str, NonNegative]
    """Standard deviation of a day's log-return, jumps left out, by asset [1]."""
    correlation: Correlation
    """One number for all pairs, or the matrix in the order of `daily_volatility`."""

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

    def diffusion(self, asset: str) -> float:
        """Daily volatility of the diffusion [1]."""
        return self.daily_volatility[asset]


class Gbm(Diffusion):
    """Geometric Brownian motion."""

    kind: Literal["gbm"]
    source: str = ""


class CommonJumps(Spec):
    """Jumps that all assets share."""

    per_day: NonNegative
    """Poisson intensity [1/day]."""
    mean: Number
    """Mean log size for beta = 1 [1]."""
    sd: NonNegative
    """Standard deviation of the log size for beta = 1 [1]."""
    minutes: tuple[Positive, Positive] | Many[Positive]
    """A jump is spread evenly over a time drawn uniformly between these two [min]."""
    beta: dict[str, Number]
    """Log size by asset, relative to the common size."""


class OwnJumps(Spec):
    """Jumps of one asset alone."""

    per_day: NonNegative
    mean: Number
    sd: NonNegative


class Merton(Diffusion):
    """Jump-diffusion: common jumps with betas, and jumps of single assets."""

    kind: Literal["merton"]
    common: CommonJumps
    own: dict[str, OwnJumps] = {}
    """Own jumps by asset, spread over the same range of minutes as the common ones."""
    source: str = ""


class Prescribed(Spec):
    """A path given by points, log-linear between them, the same on every simulated path but for the jitter."""

    kind: Literal["prescribed"]
    minutes: Many[NonNegative]
    """Times of the points [min], ascending; 0 and a move of 0 are implied at the start."""
    moves: dict[str, Many[Annotated[Number, Field(gt=-1)]]]
    """Index against its start at those times, by asset: -0.2 is 20 % down [1]."""
    beta: dict[str, Number] = {}
    """Log-return of assets not in `moves`, per log-return of `beta_of`."""
    beta_of: str = "BTC"
    jitter_size: Fraction = 0.0
    """Each path scales all log-moves by exp(N(0, jitter_size))."""
    jitter_minutes: NonNegative = 0.0
    """Each path shifts all points later by U(0, jitter_minutes) [min]."""
    noise: Gbm | None = None
    """A diffusion on top."""
    source: str = ""

    def assets(self) -> list[str]:
        """Assets it moves."""
        noise = set(self.noise.daily_volatility) if self.noise else None
        moved = [*self.moves, *(asset for asset in self.beta if asset not in self.moves)]
        return [asset for asset in moved if noise is None or asset in noise]

    def diffusion(self, asset: str) -> float:
        """Daily volatility of the diffusion [1]."""
        return self.noise.daily_volatility[asset] if self.noise else 0.0

    def log_path(self, asset: str, minutes: Array) -> Array:
        """Log index at given times, without jitter and noise; level after the last point."""
        beta = 1.0 if asset in self.moves else self.beta[asset]
        points = self.moves[asset if asset in self.moves else self.beta_of]
        known = np.concatenate([[0.0], self.minutes]) if self.minutes[:1] != (0.0,) else np.array(self.minutes)
        logs = np.log1p(np.array(points))
        return beta * np.interp(minutes, known, np.concatenate([[0.0], logs]) if len(known) > len(logs) else logs)

    @model_validator(mode="after")
    def _points(self) -> Self:
        if any(late <= early for early, late in zip(self.minutes, self.minutes[1:], strict=False)):
            raise ValueError(f"minutes is {list(self.minutes)}, expected ascending times. Sort the points.")
        if self.beta and self.beta_of not in self.moves:
            raise ValueError(f"beta_of is '{self.beta_of}', expected an asset of moves. Correct it.")
        for asset, moves in self.moves.items():
            if len(moves) != len(self.minutes):
                raise ValueError(
                    f"moves.{asset} has {len(moves)} values, expected {len(self.minutes)}, one for each of minutes. "
                    "Add or remove some."
                )
        return self


class Replay(Spec):
    """Recorded prices, from the price files of the run."""

    kind: Literal["replay"]
    start: str
    """First instant, ISO 8601, UTC."""
    pin_index: bool = False
    """Leave the endogenous part out of the index: recorded prices contain it already."""
    scale: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Exogenous share of the recorded log-returns."""
    source: str = ""

    def diffusion(self, asset: str) -> float:
        """Recorded prices carry their own extremes."""
        return 0.0

    @model_validator(mode="after")
    def _counts_impact_once(self) -> Self:
        if self.pin_index and self.scale != 1.0:
            raise ValueError(f"pin_index = true with scale = {self.scale:g}, expected one or the other. Remove one.")
        return self


Shock = Annotated[Gbm | Merton | Prescribed | Replay, Field(discriminator="kind")]
