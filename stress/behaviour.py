"""What holders of positions do by themselves; nothing unless a config says so."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from stress.spec import Fraction, Number, Positive, Spec

Way = Annotated[Number, Field(gt=0, lt=1)]


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
    nearest: Way
    """Where the nearest stops lie, as a share of the way to the trigger [1]."""
    farthest: Way
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


_PARTS = 4


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


class Behaviour(Spec):
    """What holders of positions do by themselves."""

    stop_losses: StopLosses | None = None
    """None have any where absent."""
    top_ups: TopUps | None = None
    """Nobody adds cash where absent."""
