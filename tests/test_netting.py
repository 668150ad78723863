"""Longs and shorts of one account in one market: equity is that of both legs at every mark."""

from __future__ import annotations

import numpy as np
import pytest

from stress.netting import net_legs


def profit(quantity: np.ndarray, entry: np.ndarray, mark: float, inverse: bool) -> np.ndarray:
    """Of a position [USD]."""
    safe = np.where(entry > 0, entry, 1.0)
    return quantity * (1 / safe - 1 / mark) * mark if inverse else quantity * (mark - safe)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("mark", [1.0, 73.0, 5000.0])
def test_equity_is_that_of_both_legs(inverse: bool, mark: float) -> None:
    """Also where no average entry price could say so: a large leg with a small net position."""
    rng = np.random.default_rng(4)
    size, entry = rng.lognormal(0, 2, (2, 200)), rng.uniform(20, 300, (2, 200))
    account, asset = np.tile(np.arange(100).repeat(2), 2), np.tile(np.arange(2), 200)
    signed = np.concatenate([size[0], -size[1]])
    netted = net_legs(account, asset, signed, entry.ravel(), np.full((100, 2), inverse))
    apart = profit(signed, entry.ravel(), mark, inverse)
    both = np.bincount(account * 2 + asset, apart).reshape(100, 2)
    kept = netted.profit * (mark if inverse else 1.0)
    np.testing.assert_allclose(profit(netted.quantity, netted.entry_price, mark, inverse) + kept, both, rtol=1e-9)
    assert np.all(netted.entry_price > 0)
    np.testing.assert_allclose(netted.quantity.ravel(), size[0] - size[1])


def test_markets_of_both_kinds_by_hand() -> None:
    """Three coins from 100 against one from 90; an inverse short of 400 USD from 50 against a long of 100 from 80."""
    rows = np.array([(0, 0, 3, 100), (0, 0, -1, 90), (0, 1, -400, 50), (0, 1, 100, 80), (1, 0, -2, 70)], float).T
    account, asset = rows[:2].astype(int)
    quantity, entry, profit = net_legs(account, asset, rows[2], rows[3], np.array([[False, True]] * 2))
    assert quantity.tolist() == [[2, -300], [-2, 0]]
    assert entry.tolist() == [[100, 50], [70, 0]]
    np.testing.assert_allclose(profit, [[-10, 100 / 80 - 100 / 50], [0, 0]])


def test_equal_legs_leave_their_profit() -> None:
    """Bought at 100 and sold at 130."""
    both = np.zeros(2, int)
    netted = net_legs(both, both, np.array([-0.3, 0.3]), np.array([130.0, 100.0]), np.zeros((1, 1), bool))
    assert (netted.quantity.item(), netted.entry_price.item()) == (0, 0)
    assert netted.profit.item() == pytest.approx(9)
