"""A concentrated book: a share of the longs of every market in the hands of one account."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stress.collateral import AllAccounts
from stress.portfolio import Positions


def concentrated(everyone: AllAccounts, share: float, assets: int) -> AllAccounts:
    """Accounts of which a share of the longs of every market is one account.

    That account has this share of everyone's coins, entry value and margin: money and open interest are what they
    were. What changes is that its maintenance is that of a large position, and that all of it has one trigger. Accounts
    of several positions, or with coins as collateral, stay as they are.

    Args:
        everyone: As they are.
        share: In [0, 1) [1].
        assets: Number of assets.
    """
    rows, long = everyone.ladder, np.flatnonzero(everyone.ladder.quantity > 0)
    if share == 0 or not len(long):
        return everyone
    _, first, owner = np.unique(
        rows.venue[long].astype(np.int64) * assets + rows.asset[long], return_index=True, return_inverse=True
    )
    place = np.concatenate([np.arange(len(rows)), long[first]])
    row = np.arange(len(rows)) if everyone.row is None else everyone.row
    return replace(
        everyone,
        ladder=_with_one_account(rows, long, long[first], owner, share),
        row=row[place],
        single=None if everyone.single is None else everyone.single[place],
    )


def _with_one_account(
    rows: Positions, long: NDArray[np.int64], first: NDArray[np.int64], owner: NDArray[np.int64], share: float
) -> Positions:
    def gathered(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(owner, share * rows.count[long] * values[long])

    coins, left = gathered(rows.quantity), rows.count.copy()
    left[long] *= 1 - share
    return Positions(
        venue=np.concatenate([rows.venue, rows.venue[first]]),
        asset=np.concatenate([rows.asset, rows.asset[first]]),
        quantity=np.concatenate([rows.quantity, coins]),
        entry_price=np.concatenate([rows.entry_price, gathered(rows.quantity * rows.entry_price) / coins]),
        margin=np.concatenate([rows.margin, gathered(rows.margin)]),
        count=np.concatenate([left, np.ones(len(coins))]),
    )
