"""A cap on leverage: what accounts hold under it, on either margin."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from stress.build import build
from stress.capping import capped
from stress.collateral import AllAccounts
from stress.config import load_config
from stress.cross import CrossAccounts, one_by_one
from stress.leverage import LeverageCap
from stress.portfolio import Positions

PRICE = np.array([100.0, 10.0])
POSITIONS = Positions(
    venue=np.array([0, 0, 0, 0, 0], np.int32),
    asset=np.array([0, 0, 1, 0, 1], np.int32),
    quantity=np.array([1.0, -2.0, 5.0, 3.0, -7.0]),
    entry_price=np.array([90.0, 95.0, 11.0, 100.0, 10.5]),
    margin=np.array([2.0, 40.0, 9.0, 300.0, 5.0]),
    count=np.array([1.0, 10.0, 4.0, 2.0, 3.0]),
)
"""Above 10x at opening: the first (45x, in profit) and the last (14.7x)."""
NOBODY = np.zeros((1, 2), bool)


def equity(rows: Positions) -> np.ndarray:
    return rows.margin + rows.quantity * (PRICE[rows.asset] - rows.entry_price)


def test_positions_above_the_cap_hold_what_their_equity_would_have_opened() -> None:
    rows, place = LeverageCap(maximum=10.0).capped(POSITIONS, PRICE)
    opening = np.abs(rows.quantity) * rows.entry_price / rows.margin
    np.testing.assert_allclose(np.sort(opening)[-2:], 10)
    assert place.tolist() == [1, 2, 3, 0, 4]
    np.testing.assert_allclose(equity(rows), equity(POSITIONS)[place])
    for name in ("quantity", "margin"):
        np.testing.assert_array_equal(getattr(rows, name)[:3], getattr(POSITIONS, name)[1:4])
    assert np.all(np.abs(rows.quantity[3:]) < np.abs(POSITIONS.quantity[[0, 4]]))
    # 2 + 10 USD of equity; a coin opened at 90 with a margin of 9 and a profit of 10 is worth 19.
    assert rows.quantity[3] == pytest.approx(12 / 19)


def test_more_margin_brings_the_same_positions_to_the_cap() -> None:
    rows, place = LeverageCap(maximum=10.0, by="more_margin").capped(POSITIONS, PRICE)
    np.testing.assert_array_equal(rows.quantity, POSITIONS.quantity[place])
    np.testing.assert_allclose(rows.margin[3:], [9.0, 7.35])
    np.testing.assert_array_equal(rows.margin[:3], POSITIONS.margin[1:4])


def test_a_share_of_copies_is_capped_and_the_rest_is_left() -> None:
    rows, place = LeverageCap(maximum=10.0, share=0.25).capped(POSITIONS, PRICE)
    np.testing.assert_allclose(np.bincount(place, rows.count), POSITIONS.count)
    np.testing.assert_allclose(rows.count[-2:], [0.25, 0.75])
    np.testing.assert_array_equal(rows.quantity[:5], POSITIONS.quantity)


def test_a_cap_that_binds_nobody_changes_no_bit() -> None:
    for cap in (LeverageCap(maximum=50.0), LeverageCap(maximum=10.0, share=0.0)):
        rows, place = cap.capped(POSITIONS, PRICE)
        assert place.tolist() == list(range(5))
        for field in fields(Positions):
            np.testing.assert_array_equal(getattr(rows, field.name), getattr(POSITIONS, field.name))


@pytest.mark.parametrize("by", ["smaller_positions", "more_margin"])
def test_an_account_on_cross_margin_with_one_position_is_capped_alike(by) -> None:
    cap, rows = LeverageCap(maximum=10.0, share=0.5, by=by), np.arange(5)
    ladder = capped(AllAccounts(POSITIONS, None, None), cap, PRICE, NOBODY)
    apart = AllAccounts(POSITIONS.where(np.zeros(5, bool)), None, one_by_one(POSITIONS, rows, 2))
    cross = capped(apart, cap, PRICE, NOBODY).cross
    assert cross is not None and ladder.row is not None
    np.testing.assert_array_equal(cross.row, ladder.row)
    np.testing.assert_allclose(cross.quantity.sum(axis=1), ladder.ladder.quantity)
    np.testing.assert_allclose(cross.cash, ladder.ladder.margin)
    np.testing.assert_allclose(cross.count, ladder.ladder.count)


def test_an_inverse_contract_keeps_its_equity_and_meets_the_cap_in_coins() -> None:
    """5,000 USD of contracts opened at 80 with 3 coins of collateral; a cap of 10x asks for 6.25 coins then."""
    account = CrossAccounts(
        np.zeros(1, np.int32), np.array([[5000.0, 0.0]]), np.array([[80.0, 0.0]]), np.zeros(1), np.ones(1),
        np.zeros(1, np.int64), np.array([[-9.0, 0.0]]),
    )  # fmt: skip

    def coins(x: CrossAccounts) -> float:
        assert x.coins is not None
        return float(x.coins[0, 0] + x.quantity[0, 0] * (1 / 80 - 1 / 100))

    inverse = np.array([[True, False]])
    got = capped(AllAccounts(POSITIONS, None, account), LeverageCap(maximum=10.0), PRICE, inverse).cross
    assert got is not None and got.coins is not None
    assert coins(got) == pytest.approx(coins(account)) == pytest.approx(3.5)
    assert got.quantity[0, 0] / 80 / got.coins[0, 0] == pytest.approx(10)


def test_a_run_holds_what_the_cap_leaves(small: Path) -> None:
    """Against the six rows, one by one; the second and the last are below the cap."""
    whole = build(load_config(small))
    cut = build(load_config(small, overrides={"portfolio.leverage_cap": {"maximum": 30.0}}))
    held = {(0, 0): 0.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 0.0}
    rows = [(0, 10, 100, 12, 50), (0, 10, 101, 40, 20), (0, -10, 99, 25, 30)]
    rows += [(1, 100, 10, 9, 40), (1, -100, 10, 11, 40), (1, -100, 9.9, 300, 40)]
    for asset, quantity, entry, margin, count in rows:
        price = (100.0, 10.0)[asset]
        equity, side = margin + quantity * (price - entry), int(quantity < 0)
        # What a coin opened at the cap has now: its margin and its profit since.
        coin = entry / 30 + np.sign(quantity) * (price - entry)
        held[asset, side] += count * price * (min(abs(quantity), equity / coin) if coin > 0 else abs(quantity))
    for (asset, side), usd in held.items():
        assert cut.held[0, asset, side] == pytest.approx(usd, rel=1e-6)
    assert cut.held.sum() < 0.6 * whole.held.sum()
    assert cut.book.accounts == whole.book.accounts == 220
