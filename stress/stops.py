"""Stop orders as closings: those of accounts, and those of holders at a support level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stress.behaviour import StopLosses
from stress.closings import Closings
from stress.config import Run
from stress.overlays import Support
from stress.triggers import bankruptcy_price

Array = NDArray[np.float64]
Market = tuple[int, int, int]
"""Venue, asset and side."""

NOBODY = -1
"""Owner of stop orders that no account of the run has."""


@dataclass(frozen=True)
class StopOrders:
    """Stop orders of a run."""

    losses: StopLosses | None
    supports: Mapping[Market, Closings]
    """Those at support levels, by market side."""

    def without(self, trigger: Array) -> Array:
        """Share of the copies of every account that has none, shape (n): all of one that no price liquidates [1].

        Args:
            trigger: Of each account [1], shape (n).
        """
        return np.where(trigger > 0, 1.0 if self.losses is None else 1 - self.losses.adoption, 1.0)

    def of(self, market: Market, cash: Array, quantity: Array, entry: Array, count: Array, trigger: Array) -> Closings:
        """All those of a market side, prices over the starting price.

        Args:
            market: Which.
            cash: margin - q entry of its accounts [USD], shape (n).
            quantity: Signed coins [USD at the start], shape (n).
            entry: Entry price [1], shape (n).
            count: Copies of each account, shape (n).
            trigger: Of each account [1], shape (n).
        """
        places = [] if self.losses is None else self.losses.places()
        owner = np.tile(np.flatnonzero(trigger > 0), len(places))
        way = np.repeat(places, np.count_nonzero(trigger > 0))
        stop, price = 1 + way * (trigger[owner] - 1), bankruptcy_price(cash, quantity)[owner]
        copies = (count * (1 - self.without(trigger)))[owner] / max(len(places), 1)
        own = Closings(
            trigger=stop,
            quantity=np.abs(quantity)[owner] * copies,
            value=price,
            ratio=price / stop,
            partial=np.zeros(len(owner), bool),
            accounts=copies,
            entry=entry[owner],
            owner=owner,
        )
        return own.and_those(self.supports[market]) if market in self.supports else own


def stop_orders(run: Run) -> StopOrders | None:
    """Those of a run; none where nobody has any."""
    behaviour, supports = run.behaviour, [x for x in run.overlays if isinstance(x, Support)]
    losses = None if behaviour is None else behaviour.stop_losses
    losses = None if losses is None or losses.adoption == 0 else losses
    if losses is None and not supports:
        return None
    found: dict[Market, Closings] = {}
    for support in supports:
        asset = list(run.assets).index(support.asset)
        for venue, usd in support.by_venue(run.venues).items():
            market = list(run.venues).index(venue), asset, 0 if support.move < 0 else 1
            more = _at_level(support, usd)
            found[market] = found[market].and_those(more) if market in found else more
    return StopOrders(losses, found)


def _at_level(support: Support, usd: float) -> Closings:
    """Stop orders at a level, in equal parts.

    Their holders have paid in full and bought (or sold) at the starting price, and are many and small: no count of
    accounts has them.
    """
    trigger = 1 + np.array(support.prices())
    nothing, price = np.zeros(len(trigger)), np.full(len(trigger), 0.0 if support.move < 0 else 2.0)
    return Closings(
        trigger=trigger,
        quantity=nothing + usd / len(trigger),
        value=price,
        ratio=price / trigger,
        partial=nothing > 0,
        accounts=nothing,
        entry=nothing + 1,
        owner=np.full(len(trigger), NOBODY),
    )
