"""Shocks that come from price files at run time: a replay, blocks of it in a new order, and filtered hours of it."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from stress.spec import Fraction, Number, Positive, Spec


def _time_as_text(value: Any) -> Any:
    """TOML has times of its own, without quotes."""
    return value.isoformat() if isinstance(value, date) else value


Instant = Annotated[str, BeforeValidator(_time_as_text)]
InsideBars = Literal["by_close", "low_first", "high_first", "straight"]


class Recorded(Spec):
    """What the shocks from price files share."""

    start: Instant
    """First instant of the prices, ISO 8601, UTC."""
    inside_bars: InsideBars = "by_close"
    """Where the step is shorter than a bar: "by_close" walks open-low-high-close in a bar that closes up, and
    open-high-low-close otherwise; "low_first" and "high_first" do one of these in every bar; "straight" goes from open
    to close."""
    source: str = ""

    def diffusion(self, asset: str) -> float:
        """Recorded prices carry their own extremes."""
        return 0.0


class Replay(Recorded):
    """Recorded prices, from the price files of the run."""

    kind: Literal["replay"]
    pin_index: bool = False
    """Leave the endogenous part out of the index: recorded prices contain it already."""
    scale: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Exogenous share of the recorded log-returns [1]."""

    @model_validator(mode="after")
    def _counts_impact_once(self) -> Self:
        if self.pin_index and self.scale != 1.0:
            raise ValueError(f"pin_index = true with scale = {self.scale:g}, expected one or the other. Remove one.")
        return self


class Window(Recorded):
    """Recorded hours to draw from; prices start at `prices.start`, as with any other shock that is drawn."""

    until: Instant
    """Last day or instant of the prices, ISO 8601, UTC; a day counts whole."""
    scale: Positive = 1.0
    """The recorded log-returns are multiplied by this first [1]."""


class BlockBootstrap(Window):
    """Blocks of recorded hours in a new order, all assets together."""

    kind: Literal["block_bootstrap"]
    block_hours: Annotated[Number, Field(ge=1)]
    """Mean length of a block [h]; lengths are geometric."""


class Garch(Window):
    """Filtered historical simulation: recorded hours over their own volatility, times a GARCH that goes on."""

    kind: Literal["garch"]
    daily_volatility: dict[str, Positive]
    """Standard deviation of a day's log-return in the long run, by asset, after `scale` [1]."""
    alpha: dict[str, Fraction]
    """Weight of the last hour's squared return in the variance of the next [1]."""
    gamma: dict[str, Number]
    """What it weighs more where the return was negative [1]."""
    beta: dict[str, Fraction]
    """Weight of the last hour's variance [1]."""
    begin: Literal["random_hour", "last_hour"] = "random_hour"
    """Volatility at the start: that of an hour drawn at random, or of the last one of the prices."""

    def assets(self) -> list[str]:
        """Assets it moves."""
        return list(self.daily_volatility)

    @model_validator(mode="after")
    def _stationary(self) -> Self:
        for name in ("alpha", "gamma", "beta"):
            if set(getattr(self, name)) != set(self.daily_volatility):
                raise ValueError(
                    f"{name} has {', '.join(getattr(self, name)) or 'no asset'}, expected those of daily_volatility "
                    f"({', '.join(self.daily_volatility)}). Give one number for each."
                )
        for asset in self.daily_volatility:
            alpha, gamma, beta = self.alpha[asset], self.gamma[asset], self.beta[asset]
            if alpha + gamma < 0:
                raise ValueError(
                    f"alpha.{asset} + gamma.{asset} is {alpha + gamma:g}, expected 0 or more. Raise one of the two."
                )
            if alpha + gamma / 2 + beta >= 1:
                raise ValueError(
                    f"alpha.{asset} + gamma.{asset} / 2 + beta.{asset} is {alpha + gamma / 2 + beta:g}, expected less "
                    "than 1: else there is no volatility in the long run. Lower one of them."
                )
        return self
