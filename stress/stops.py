"""Stop orders as closings: those of accounts, and those of holders at a support level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stress_kernels.ladder import CLASSES

from stress.behaviour import StopLosses
from stress.closings import Closings
from stress.config import Run
from stress.overlays import Support
from stress.triggers import bankruptcy_price

Array = NDArray[np.float64]
Market = tuple[int, int, int]
"""Venue, asset and side."""

_NEVER = 20.0
"""Depth of a bankruptcy that no price reaches [log]."""
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

        Those that lie an equal share of the way from the start are one margin class: in it bankruptcy comes the later
        the farther a stop lies, but for differences in what accounts require. Those at support levels are the last.

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
            stratum=np.repeat(np.arange(len(places)), np.count_nonzero(trigger > 0)),
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
        stratum=np.full(len(trigger), CLASSES - 1),
        owner=np.full(len(trigger), NOBODY),
    )


def failing_depth(rows: Array, sign: int) -> Array:
    """Adverse log moves at which the accounts of every rung of stop orders are bankrupt, by margin class.

    The mean bankruptcy price of a rung, made monotone along the ladder: where what accounts require differs from rung
    to rung, by the nearest monotone sequence in the sense of least squares, coins as weights.

    Args:
        rows: Sums over the rungs of the ladders of a market side up to each, shape (entry class, rung, column).
        sign: +1 for longs, -1 for shorts.

    Returns:
        Shape (entry class, rung, class); of a rung without any that of the one before.
    """
    from scipy.optimize import isotonic_regression

    found = np.zeros((*rows.shape[:2], CLASSES))
    for e, c in np.ndindex(len(rows), CLASSES):
        coins, value = np.diff(rows[e, :, 2 * c : 2 * c + 2], axis=0, prepend=0).T
        rungs = np.flatnonzero(coins > 0)
        if len(rungs):
            price = 1 + value[rungs] / coins[rungs]
            depth = np.minimum(-sign * np.log(np.maximum(price, 1e-12)), _NEVER)
            rising = isotonic_regression(depth, weights=coins[rungs]).x
            found[e, :, c] = rising[np.maximum(np.searchsorted(rungs, np.arange(rows.shape[1]), side="right") - 1, 0)]
    return found
