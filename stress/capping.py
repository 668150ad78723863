"""All accounts of a run under a cap on leverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stress.collateral import AllAccounts
from stress.cross import CrossAccounts
from stress.leverage import LeverageCap

Array = NDArray[np.float64]


def capped(everyone: AllAccounts, cap: LeverageCap, price: Array, inverse: NDArray[np.bool_]) -> AllAccounts:
    """Accounts above the cap brought down to it, on either margin.

    Args:
        everyone: As they are.
        cap: The cap.
        price: Index price of each asset at the start [USD], shape (A).
        inverse: Markets whose contracts are settled in coins, shape (V, A).
    """
    ladder, place = cap.capped(everyone.ladder, price)
    row = np.arange(len(everyone.ladder)) if everyone.row is None else everyone.row
    return AllAccounts(
        ladder,
        row[place],
        None if everyone.cross is None else _capped_cross(everyone.cross, cap, price, inverse),
        None if everyone.single is None else everyone.single[place],
    )


def _capped_cross(accounts: CrossAccounts, cap: LeverageCap, price: Array, inverse: NDArray[np.bool_]) -> CrossAccounts:
    """As `LeverageCap.capped`; coins count in full, and the profit of what is closed goes to cash or coins."""
    coin, size = inverse[accounts.venue], np.abs(accounts.quantity)
    entry = np.where(accounts.quantity != 0, accounts.entry_price, price)
    usd = np.where(coin, 0.0, accounts.quantity * (price - entry))
    coins = np.where(coin, accounts.quantity * (1 / entry - 1 / price), 0.0)
    profit = usd + coins * price
    posted = 0.0 if accounts.coins is None else accounts.coins @ price
    equity = accounts.cash + posted + profit.sum(axis=1)
    opened = np.where(coin, size / entry * price, size * entry)
    factor, copies, place = cap.parts(cap.factor(equity, np.sum(opened / cap.maximum + profit, axis=1)))
    rows = accounts.where(place)
    rows = replace(rows, count=rows.count * copies)
    if cap.by == "more_margin":
        return replace(rows, cash=rows.cash + (1 / factor - 1) * equity[place])
    closed = (1 - factor)[:, None]
    return replace(
        rows,
        quantity=factor[:, None] * rows.quantity,
        cash=rows.cash + np.sum(closed * usd[place], axis=1),
        coins=None if rows.coins is None else rows.coins + closed * coins[place],
    )
