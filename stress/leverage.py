"""A cap on leverage: what accounts would hold under it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from stress.portfolio import Positions
from stress.spec import Fraction, Number, Spec

Array = NDArray[np.float64]


class LeverageCap(Spec):
    """Nobody's position has less margin than the cap asked for when it was opened.

    A position of q coins, entered at e, needs the equity that one opened at the cap would have now: |q| e / maximum and
    its profit since. An account with less is brought there; triggers then spread as entries do. A share of each
    account's copies is capped, so that no draw decides who: an account of one copy becomes two parts of one.
    """

    maximum: Number
    """Highest leverage at opening, notional over margin [1]."""
    share: Fraction = 1.0
    """Share of accounts whom the cap binds, retail clients say [1]."""
    by: Literal["smaller_positions", "more_margin"] = "smaller_positions"
    """`smaller_positions`: with the equity they have, as clients who have no more; open interest falls.
    `more_margin`: with the positions they have, as clients who bring more; open interest stays."""
    source: str = ""

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.maximum < 1:
            raise ValueError(
                f"maximum is {self.maximum:g}, expected at least 1, a position that is paid in full. Give 1 or more."
            )
        return self

    def factor(self, equity: Array, need: Array) -> Array:
        """Equity over what is needed, at most 1: by which the positions of an account would shrink, shape (n).

        Args:
            equity: At the starting prices [USD]; an account at or below zero is left to the checks of margins.
            need: What positions opened at the cap would have left of their margin and profit [USD].
        """
        above = (equity < need) & (equity > 0)
        return np.where(above, equity / np.where(above, need, 1.0), 1.0)

    def parts(self, factor: Array) -> tuple[Array, Array, NDArray[np.int64]]:
        """Accounts in parts, those that keep what they have and then those capped.

        Args:
            factor: As from `factor`, shape (n).

        Returns:
            Factor of each part, the share of the account's copies in it, and the place of the account.
        """
        above = (factor < 1) & (self.share > 0)
        keeping = np.flatnonzero(~above | (self.share < 1))
        place = np.concatenate([keeping, np.flatnonzero(above)])
        part = np.arange(len(place)) >= len(keeping)
        copies = np.where(part, self.share, np.where(above[place], 1 - self.share, 1.0))
        return np.where(part, factor[place], 1.0), copies, place

    def capped(self, positions: Positions, price: Array) -> tuple[Positions, NDArray[np.int64]]:
        """Positions of one market and USD alone under the cap, and the place that each had.

        Args:
            positions: As they are.
            price: Index price of each asset at the start [USD].
        """
        profit = positions.quantity * (price[positions.asset] - positions.entry_price)
        equity, opened = positions.margin + profit, np.abs(positions.quantity) * positions.entry_price
        factor, copies, place = self.parts(self.factor(equity, opened / self.maximum + profit))
        rows, profit, equity = positions.where(place), profit[place], equity[place]
        rows = replace(rows, count=rows.count * copies)
        if self.by == "more_margin":
            return replace(rows, margin=rows.margin + (1 / factor - 1) * equity), place
        # What is closed is closed at the starting price: its profit stays, so that equity is what it was.
        return replace(rows, quantity=factor * rows.quantity, margin=rows.margin + (1 - factor) * profit), place
