"""A long and a short of one account in one market, as one position."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Netted(NamedTuple):
    """Positions that are left, and what their hedged parts have earned."""

    quantity: Array
    """Signed coins, or USD of an inverse contract, shape (n, A)."""
    entry_price: Array
    """USD per coin, shape (n, A); 0 where no position is left."""
    profit: Array
    """Of the hedged parts, shape (n, A) [USD, or coins of an inverse contract]."""


def net_legs(
    account: NDArray[np.integer], asset: NDArray[np.integer], quantity: Array, entry: Array, inverse: NDArray[np.bool_]
) -> Netted:
    """Net positions of opposite sign, so that equity is the same at every mark.

    The larger leg keeps its entry price, and loses as much as the smaller one has. That part h of both is worth the
    same whatever the mark: h (e_short - e_long) USD of linear contracts, h (1 / e_long - 1 / e_short) coins of inverse.

    Args:
        account: Of each row, 0 .. n - 1.
        asset: Of each row, 0 .. A - 1; at most one row of each sign for an account and asset.
        quantity: Signed, of each row [coins, or USD of an inverse contract].
        entry: Of each row [USD per coin].
        inverse: Which assets' contracts are inverse where each account is, shape (n, A).
    """
    size, price = np.zeros((2, 2, *inverse.shape))
    side = (quantity < 0).astype(np.intp)
    size[side, account, asset], price[side, account, asset] = np.abs(quantity), entry
    (long, short), (bought, sold) = size, price
    hedged = np.minimum(long, short)
    both = hedged > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.where(inverse, 1 / bought - 1 / sold, sold - bought)
    left = long - short
    return Netted(
        quantity=left,
        entry_price=np.where(left > 0, bought, np.where(left < 0, sold, 0.0)),
        profit=hedged * np.where(both, apart, 0.0),
    )
