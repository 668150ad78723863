"""What people do in a run that nobody forces them to; nothing unless a config says so."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from stress.recovery import Recovery, check_leverages
from stress.spec import Fraction, Number, Positive, Spec

Part = Annotated[Number, Field(gt=0, lt=1)]
_MOST_COHORTS = 12
_PARTS = 4


class StopLosses(Spec):
    """Stop orders at the start, which close an account before the venue does.

    They are those of accounts of one linear position backed by USD alone; others, and all at venues with a vault, have
    none, nor has an account that no price liquidates. A stop lies a share of the way from the starting price to the
    account's trigger, is tested against the mark, and closes the whole account in the order book, without the engine,
    its fee and its take bound. A jump past the bankruptcy price leaves it to the engine. It stays where it is while
    funding, losses taken from winners, or wider margins move triggers: on ladders an account with a stop is
    liquidated at its stop at the earliest. Where a venue stands still its stop orders wait, and their accounts with
    them; in a breaker's pause they do not.
    """

    adoption: Fraction
    """Share of every account's copies, and so of their notional, that has one [1]."""
    nearest: Part
    """Where the nearest stops lie, as a share of the way to the trigger [1]."""
    farthest: Part
    """Where the farthest lie; between the two they lie evenly [1]."""
    source: str = ""

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.nearest > self.farthest:
            raise ValueError(
                f"nearest is {self.nearest:g} of the way, expected at most farthest = {self.farthest:g}. "
                "Exchange the two."
            )
        return self

    def places(self) -> list[float]:
        """Shares of the way at which equal parts of an account's stops lie [1]."""
        width = self.farthest - self.nearest
        parts = _PARTS if width > 0 else 1
        return [self.nearest + width * (i + 0.5) / parts for i in range(parts)]


class TopUps(Spec):
    """Cash that holders add on a margin call.

    It is there when an account would be liquidated without it, once, and however fast prices move: the trigger is that
    of the account with it. Of whom no call reaches it is counted too, where accounts are ranked for deleveraging and
    where their equity bounds a loss. Accounts as for stop-losses, each stop lying on the way to the later trigger.
    """

    share: Fraction
    """Share of every account's copies that answers [1]."""
    multiple: Positive
    """What it adds, over its equity at the starting price [1]."""
    source: str = ""


class AfterSpike(Spec):
    """Something that begins when an index has moved far within some minutes; moves by forced orders do not count."""

    move: Positive
    """How far, up or down, in daily volatilities of the asset [1]."""
    minutes: Positive
    """Within which the move counts [min]."""
    source: str


class MakersLeave(AfterSpike):
    """Market makers leave books and auctions for a time.

    A share of depth is gone on top of what a fast market withdraws for five minutes, and the same share of an hour's
    auction capacity cannot be used. It comes back linearly.
    """

    share: Part
    """Of depth and of auction capacity that goes [1]."""
    return_minutes: Positive
    """Until all are back, from the last such move on [min]."""


class Deleveraging(AfterSpike):
    """Holders of longs and of shorts close a part of their positions in the book.

    Their equity stays with what they keep, so that its trigger moves away. Accounts on cross margin do not take part.
    """

    per_hour: Part
    """Share of what they still hold that they close in an hour [1]."""
    calm_minutes: Positive
    """Until they stop, from the last such move on [min]."""


class Inflow(Spec):
    """Fresh accounts with one position each, opened at the mark, closed there when their time is over.

    It is ordinary trading with the rest of the market and moves no price. Accounts are opened in cohorts, each alike: a
    new one takes the place of the oldest. In each market side they hold a share of what its accounts with one
    position held at the start, so none where there are no such accounts: at a venue with a backstop vault, in an
    inverse market.
    """

    per_day: Positive
    """Notional opened in a day, of that of the same market's accounts with one position at the start [1]."""
    long_share: Fraction | None = None
    """Of what is opened in a market [1]; that of the accounts at the start if absent."""
    held_hours: Positive
    """For which a position is held, if nothing closes it before [h]."""
    cohorts: Annotated[int, Field(ge=1, le=_MOST_COHORTS)] = 4
    """How many there are at a time: the next is opened after held_hours / cohorts."""
    least_leverage: Annotated[Number, Field(ge=2)]
    """Notional over equity when opened: log-uniform by notional, from here [1]."""
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

    def every(self, step_seconds: int) -> int:
        """Steps from one cohort to the next."""
        return round(self.held_hours * 3600 / self.cohorts / step_seconds)

    def check(self, step_seconds: int) -> None:
        """`ValueError` unless cohorts follow each other by whole steps."""
        apart = self.held_hours * 3600 / self.cohorts
        if apart < step_seconds or abs(apart / step_seconds - self.every(step_seconds)) > 1e-9:
            raise ValueError(
                f"behaviour.inflow.held_hours is {self.held_hours:g} h, which {self.cohorts} cohorts share by "
                f"{apart:g} s, expected whole steps of {step_seconds} s. Change held_hours or cohorts."
            )


class Behaviour(Spec):
    """What is not forced; of what is absent nobody does anything."""

    stop_losses: StopLosses | None = Field(default=None, exclude_if=lambda rule: rule is None)
    top_ups: TopUps | None = Field(default=None, exclude_if=lambda rule: rule is None)
    makers_leave: MakersLeave | None = Field(default=None, exclude_if=lambda rule: rule is None)
    deleveraging: Deleveraging | None = Field(default=None, exclude_if=lambda rule: rule is None)
    inflow: Inflow | None = Field(default=None, exclude_if=lambda rule: rule is None)
    recovery: Recovery | None = Field(default=None, exclude_if=lambda rule: rule is None)

    def check(self, step_seconds: int, shock: Spec, assets: list[str]) -> None:
        """`ValueError` unless it fits the steps, the shock and the assets of its run."""
        if self.recovery is not None:
            self.recovery.check(step_seconds, shock, assets)
        if self.inflow is not None:
            self.inflow.check(step_seconds)
            if self.recovery is not None:
                self.inflow.check(self.recovery.step_seconds)

    @property
    def days(self) -> int:
        """Days that follow the last hour."""
        return 0 if self.recovery is None else self.recovery.days

    @property
    def population(self) -> str:
        """Whose positions the outputs speak of."""
        whose = NO_INFLOW
        if self.inflow is not None:
            whose = (
                f"the positions open at the start, and an inflow of {self.inflow.per_day:g} of their notional a day, "
                f"held for {self.inflow.held_hours:g} h"
            )
        acts = self.stop_losses or self.top_ups or self.deleveraging
        whose = f"{whose}; their holders act as behaviour says" if acts else whose
        back = None if self.recovery is None else self.recovery.open_interest
        return whose if back is None else f"{whose}; in the days after the last hour some come back or go on leaving"


NO_INFLOW = "no inflow of fresh positions: outputs speak of the positions open at the start"
"""Whose positions the outputs of a run without an inflow speak of."""
