"""What follows the last hour of a run: the days in which volatility, leverage and open interest go back."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from stress.diffusions import Diffusion, Gbm
from stress.spec import Number, Positive, Spec

MOST_DAYS = 14


def check_leverages(least: float, most: float) -> None:
    """`ValueError` unless the leverages of fresh accounts, in a recovery or an inflow, are in order."""
    if least > most:
        raise ValueError(
            f"least_leverage is {least:g} and most_leverage is {most:g}, expected the first at most the second. "
            "Change one."
        )


class OpenInterest(Spec):
    """How positions come back when the shock is over, or go on leaving.

    In every market side what is missing of a level, or is too much, halves in a half-life. Positions that come back are
    opened at the mark when a day begins, those that leave are whole accounts of every kind, closed there with their
    equity: ordinary trading with the rest of the market, which moves no price. Counted in coins.
    """

    half_life_days: Positive
    """Time in which half of what is missing comes back, or half of what is too much leaves [day]."""
    level: Positive = 1.0
    """Accounts' positions in the long run, of those at the start of the run [1]."""
    least_leverage: Annotated[Number, Field(gt=1)]
    """Of a fresh account, notional over equity when opened: log-uniform by notional, from here [1]."""
    most_leverage: Positive
    """To here [1]; less where maintenance leaves no room."""
    account_usd: Positive
    """Notional of one account when opened [USD]."""
    levels: Annotated[int, Field(ge=1, le=4096)] = 256
    """Different leverages that stand for all."""
    source: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_leverages(self.least_leverage, self.most_leverage)
        return self


class Recovery(Spec):
    """Days that the same paths go on for after the last hour, with longer steps.

    Everything goes on as it stood: prices, what is left of their impact, accounts, queues, funds, an inflow. Overlays
    and circuit breakers are over. The shock is a new one, on top of where prices stand: the run's own diffusion, with
    its jumps where it has any, or `calm`. Its variance is what it is in the long run times 1 + (x - 1) 2^(-t / h), t
    the time since the last hour, h the half-life, and x of each path and asset the mean of its squared exogenous
    hourly returns over their mean in the long run, each hour weighing half as much as one a half-life later and what
    was before the run counting as 1.
    """

    days: Annotated[int, Field(ge=1, le=MOST_DAYS)]
    """How many."""
    step_minutes: Annotated[int, Field(ge=1, le=60)] = 60
    """Length of a step, a divisor of an hour and whole steps of the run [min]."""
    volatility_half_life_days: Positive
    """h above [day]."""
    open_interest: OpenInterest | None = None
    """How positions come back or go on leaving; absent: those that there are stay, and none comes."""
    calm: Gbm | None = None
    """What moves prices instead of the run's own diffusion; needed where the run's shock has none."""
    source: str

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if 60 % self.step_minutes:
            raise ValueError(
                f"step_minutes is {self.step_minutes} min, expected a divisor of an hour (60 min). "
                "Choose 5, 15, 30 or 60."
            )
        return self

    @property
    def step_seconds(self) -> int:
        """Length of a step [s]."""
        return 60 * self.step_minutes

    @property
    def hours(self) -> int:
        """Length of it all [h]."""
        return 24 * self.days

    def check(self, step_seconds: int, shock: Spec, assets: list[str]) -> None:
        """`ValueError` unless it fits the steps, the shock and the assets of its run."""
        if self.step_seconds % step_seconds:
            raise ValueError(
                f"behaviour.recovery.step_minutes is {self.step_minutes} min, expected whole steps of the run of "
                f"{step_seconds} s. Choose 60, or a step_seconds that divides it."
            )
        moves = self.moves(shock)
        if moves is None:
            raise ValueError(
                "behaviour.recovery.calm is missing, a diffusion was expected: the shock has none that could go on. "
                "Add it."
            )
        missing = [asset for asset in assets if asset not in moves.daily_volatility]
        if missing:
            raise ValueError(
                f"behaviour.recovery.calm.daily_volatility says nothing about {missing[0]}, expected every asset of "
                "the run. Add it."
            )

    def moves(self, shock: Spec) -> Diffusion | None:
        """What moves prices in these days; nothing where neither it nor the shock says so."""
        if self.calm is not None:
            return self.calm
        noise = getattr(shock, "noise", None)
        found = shock if isinstance(shock, Diffusion) else noise
        return found if isinstance(found, Diffusion) else None
