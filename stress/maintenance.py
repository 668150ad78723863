"""Maintenance schedules of a venue: its own brackets, one flat rate, or the expected shortfall of a liquidation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stress.spec import NonNegative, Number, Positive, Spec

Array = NDArray[np.float64]
Rate = Annotated[Number, Field(gt=0, lt=1)]
_DAY_MINUTES = 1440.0


class Listed(Spec):
    """The brackets that each market lists."""

    kind: Literal["listed"]

    def schedule(self, floor: Array, rate: Array, adv: float, daily_volatility: float) -> tuple[Array, Array]:
        """As given."""
        return floor, rate


class Flat(Spec):
    """One rate for every size in every market."""

    kind: Literal["flat"]
    rate: Rate
    """Maintenance over notional [1]."""
    source: str = ""

    def schedule(self, floor: Array, rate: Array, adv: float, daily_volatility: float) -> tuple[Array, Array]:
        """One bracket."""
        return np.zeros(1), np.array([self.rate])


class ExpectedShortfall(Spec):
    """What a position is expected to lose, in the worst cases, until it is closed; at the run's volatility.

    A position of n USD takes h(n) = minutes + n / (participation ADV) to close. Its maintenance is
    M(n) = n x scale x sigma sqrt(h(n)) x ES, with sigma the asset's daily volatility and ES the expected shortfall of a
    return of unit variance. M is convex; brackets keep the floors that the market lists and agree with it at each.
    """

    kind: Literal["expected_shortfall"]
    level: Annotated[Number, Field(ge=0.5, lt=1)] = 0.99
    """The worst 1 - level of cases [1]."""
    minutes: Positive = 60.0
    """Time to close a small position [min]."""
    participation: Annotated[Number, Field(gt=0, le=1)] = 0.1
    """Share of the market's average daily volume at which a large one is closed [1]."""
    degrees_of_freedom: Annotated[Number, Field(gt=2)] | None = None
    """Of a Student t return; normal where absent [1]."""
    scale: Positive = 1.0
    """Factor on the expected shortfall [1]."""
    minimum: NonNegative = 0.0
    """Lowest marginal rate [1]."""
    maximum: Rate = 0.5
    """Highest marginal rate [1]."""
    source: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(
                f"minimum is {self.minimum:g}, expected at most maximum = {self.maximum:g}. Exchange the two."
            )
        return self

    def schedule(self, floor: Array, rate: Array, adv: float, daily_volatility: float) -> tuple[Array, Array]:
        """Marginal rates above each floor.

        Args:
            floor: Notional above which each bracket applies, ascending from 0 [USD], shape (tier).
            rate: Not used.
            adv: Average daily volume of the market [USD].
            daily_volatility: Of the asset [1].
        """
        loss = self.scale * daily_volatility * self.unit_shortfall()
        base, each = self.minutes / _DAY_MINUTES, 1 / (self.participation * adv)
        days = base + each * floor
        marginal = loss * (np.sqrt(days[-1]) + each * floor[-1] / (2 * np.sqrt(days[-1])))
        between = np.diff(floor * loss * np.sqrt(days)) / np.diff(floor)
        return floor, np.clip(np.append(between, marginal), self.minimum, self.maximum)

    def unit_shortfall(self) -> float:
        """Expected shortfall of a return of unit variance [1]."""
        from scipy import stats  # Slow to import, and seldom needed.

        tail, dof = 1 - self.level, self.degrees_of_freedom
        if dof is None:
            return float(stats.norm.pdf(stats.norm.ppf(self.level)) / tail)
        edge = stats.t.ppf(self.level, dof)
        mean = (dof + edge**2) / (dof - 1) * stats.t.pdf(edge, dof) / tail
        return float(np.sqrt((dof - 2) / dof) * mean)


Maintenance = Annotated[Listed | Flat | ExpectedShortfall, Field(discriminator="kind")]
"""How a venue sets maintenance margin."""
