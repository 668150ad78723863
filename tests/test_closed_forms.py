"""The engine against sums that fit on a page: one market that starts at 100 USD, maintenance 1 %, no fee."""

import jax
import numpy as np
import pytest
from reference.bridge import engine
from reference.small import market, pool, positions_of, run_of, venue, write_positions

from stress.build import build
from stress.triggers import bankruptcy_price, maintenance, trigger_price

K = 1e4
"""All positions are thousands of coins, so that a dollar or a milli-coin of tolerance in the engine does not show."""
LONG_TRIGGER, SHORT_TRIGGER = 90 / 0.99, 110 / 1.01
"""Of one coin at 100 USD with a margin of 10 USD; bankrupt at 90 and 110."""


@pytest.fixture(autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def simulated(tmp_path):
    """Outputs of two paths through given prices, a step each, the last one held for the rest of an hour."""

    def simulate(rows, one, other, pool_usd=1e9, changes=None, run=None, **rules):
        file = tmp_path / "positions.parquet"
        table = [(0, 0, K * q, 100.0 if len(rest) < 2 else rest[1], K * rest[0], 1) for q, *rest in rows]
        write_positions(file, positions_of(table, ballast=0), ["one"], ["A"])
        place = venue("one", {"A": market(**(changes or {}))}, **({"pools": [pool(pool_usd)]} | rules))
        small = {"horizon_hours": 1, "ladder": {"rungs": 512}}
        built = build(run_of([place], {"A": 0.025}, file, **(small | (run or {}))))
        assert built.book.exact
        held = [[*prices] + [prices[-1]] * (60 - len(prices)) for prices in (one, other)]
        return engine(np.log(np.array(held).T / 100)[:, None], built)

    return simulate


@pytest.mark.parametrize(
    ("quantity", "entry", "rate", "deduction", "price"),
    [(3683.979, 1456.84, 0.10, 135365.0, 1114.78), (109.488, 32481.98, 0.025, 16300.0, 18778.73)],
)
def test_published_isolated_liquidation_prices(quantity, entry, rate, deduction, price):
    """Binance's worked example, a wallet of 1,535,443.01 USD; at its trigger equity is maintenance."""
    q, cash = np.array([quantity]), np.array([1535443.01 - quantity * entry])
    brackets = np.array([rate]), np.array([deduction])
    trigger = trigger_price(cash, q, *brackets, 0.0)
    assert trigger[0] == pytest.approx(price, abs=0.005)
    assert cash + q * trigger == pytest.approx(maintenance(q * trigger, *brackets))
    assert bankruptcy_price(cash, q)[0] == pytest.approx(entry - 1535443.01 / quantity)


@pytest.mark.parametrize("quantity", [1, -1])
@pytest.mark.parametrize(
    ("staging", "left", "at_last"),
    [
        ({"kind": "fraction", "share": 0.2, "above_usd": 8.9e5}, 0.8, 0.0),
        ({"kind": "fraction", "share": 0.2}, 0.8, 0.64),
        ({"kind": "restore", "target": 1.5}, 2 / 3, 4 / 9),
    ],
)
def test_after_a_partial_close_the_next_trigger_is_that_of_what_is_left(simulated, quantity, staging, left, at_last):
    """A share is closed at the trigger T; what is left, on the cash less that share of T, has its own trigger."""
    first = LONG_TRIGGER if quantity > 0 else SHORT_TRIGGER
    worth = (90 if quantity > 0 else 110) - (1 - left) * first
    second = worth / (left * (1 - 0.01 * quantity))
    safe, hit = second * (1 + quantity * 1e-9), second * (1 - quantity * 1e-9)
    out = simulated([(quantity, 10)], [safe], [hit], staging=staging)
    volume = out["liquidation_volume"].sum(axis=(0, 1, 2, 3))
    assert volume == pytest.approx([K * (1 - left) * safe, K * (1 - at_last) * hit], rel=1e-8)


@pytest.mark.parametrize(("quantity", "trigger"), [(1, LONG_TRIGGER), (-1, SHORT_TRIGGER)])
def test_liquidated_exactly_when_the_mark_crosses(simulated, quantity, trigger):
    safe, hit = trigger * (1 + quantity * 1e-9), trigger * (1 - quantity * 1e-9)
    out = simulated([(quantity, 10)], [safe], [hit])
    side = 0 if quantity > 0 else 1
    assert out["liquidation_volume"][0, 0, 0, side] == pytest.approx([0, K * hit], abs=1e-3)
    assert out["liquidation_volume"].sum() == pytest.approx(K * hit)
    assert out["surplus"][0, 0] == pytest.approx([0, K * (10 + quantity * (hit - 100))], abs=1e-3)
    assert out["accounts_liquidated"][0, 0] == pytest.approx([0, 1])


def test_counted_fee_moves_the_trigger_and_is_paid(simulated):
    trigger = 90 / (1 - 0.015)
    rules = {"liquidation_fee_bps": 50, "fee_in_trigger": True, "surplus_to": "trader"}
    out = simulated([(1, 10)], [trigger + 1e-6], [trigger - 1e-6], **rules)
    assert out["surplus"][0, 0] == pytest.approx([0, K * 0.005 * trigger], rel=1e-6)


def test_jump_through_bankruptcy_is_a_deficit(simulated):
    """Three coins bankrupt at 90 are sold at 80, or at 70."""
    out = simulated([(3, 30)], [80], [70])
    assert out["deficit"][0, 0] == pytest.approx([K * 3 * 10, K * 3 * 20])
    assert out["fund_low"][0, 0] == pytest.approx([1e9 - K * 30, 1e9 - K * 60])
    assert out["fund_drawdown"][0] == pytest.approx([K * 30, K * 60])
    assert np.all(np.isnan(out["fund_exhausted_hour"]))


def test_near_and_far_bankruptcies_do_not_cancel(simulated):
    """At 80 one long lacks 10, another has 0.2 left: the trader's surplus does not pay the deficit."""
    out = simulated([(1, 10), (1, 20.2)], [80], [100])
    assert out["deficit"][0, 0] == pytest.approx([K * 10, 0])
    assert out["surplus"][0, 0] == pytest.approx([K * 0.2, 0])


def test_exhaustion_socialises_then_deleverages(simulated):
    """At 80 a deficit of 10 meets a pool of 4, the winner bears 6; at 70 the next bankrupt long, whose bankruptcy
    price is 75, closes against it."""
    out = simulated([(1, 10), (1, 25), (-2, 50)], [80, 70], [80, 80], pool_usd=4 * K)
    assert out["deficit"][0, 0] == pytest.approx([K * 10, K * 10])
    assert out["socialised_loss"][0, 0] == pytest.approx([K * 6, K * 6])
    assert np.all(out["fund_exhausted_hour"] == 0)
    assert out["adl_volume"][0, 0, 0] == pytest.approx([K * 70, 0], abs=1e-3)
    assert out["adl_haircut"][0, 0, 0] == pytest.approx([K * 5, 0], abs=1e-3)
    assert out["absorbed_volume"][0, 0, 0, :, 0] == pytest.approx([K * 80, 0, 0, K * 70, 0], abs=1e-3)


def test_remainder_is_reached_without_winners(simulated):
    """A pool without money and no short: the bankrupt long is closed at the mark, and the pool owes its loss."""
    out = simulated([(2, 20)], [80], [85], pool_usd=0)
    assert out["absorbed_volume"][0, 0, 0, :, 0] == pytest.approx([0, 0, 0, 0, K * 160])
    assert out["deficit"][0, 0] == pytest.approx([K * 20, K * 10])
    assert out["fund_equity"][0, 0] == pytest.approx([-K * 20, -K * 10])
    assert out["socialised_loss"].sum() == 0


def test_cascade_of_two_accounts(simulated):
    """Impact is linear: a sale of f moves the price by i_ref f / 1 % of a day's volume, on average by half of that.

    At S, just past the first trigger, K coins are sold and push the mark to m = S exp(-h S), h = 100 i_ref K / ADV.
    The second long, triggered at 90.5 > m, is sold in the next round, at m on a mark that it pushes to m exp(-h m).
    """
    start, adv = LONG_TRIGGER - 1e-6, 1e8
    h = 100 * 0.01 * K / adv
    second = 0.99 * 90.5  # its bankruptcy price
    linear = {"impact": {"i_ref": 0.01, "delta": 1.0, "depth": False}}
    rows = [(1, 10), (1, 100 - second)]
    out = simulated(rows, [start], [LONG_TRIGGER + 1e-6], changes={"adv_usd": adv}, run=linear, mark="last")
    m = start * np.exp(-h * start)
    assert second / 0.99 > m
    assert out["liquidation_volume"][0, 0, 0, 0] == pytest.approx([K * (start + m), 0])
    assert out["first_round_volume"][0, 0, 0] == pytest.approx([K * start, 0])
    left = K * (start * np.exp(-h * start / 2) - 90), K * (m * np.exp(-h * m / 2) - second)
    assert out["surplus"][0, 0, 0] == pytest.approx(sum(max(x, 0) for x in left), abs=1e-2)
    assert out["deficit"][0, 0, 0] == pytest.approx(sum(max(-x, 0) for x in left), abs=1e-2)
    assert np.log(out["basis_low"][0, 0, 0, 0] + 1) == pytest.approx(-0.6 * h * (start + m))
    assert np.log(out["index_low"][0, 0, 0] / start * 100) == pytest.approx(-0.4 * h * (start + m))


def test_no_impact_no_cascade(simulated):
    start = LONG_TRIGGER - 1e-6
    out = simulated([(1, 10), (1, 100 - 0.99 * 90.5)], [start], [90.5 - 1e-6])
    assert out["liquidation_volume"][0, 0, 0, 0] == pytest.approx([K * start, K * 2 * (90.5 - 1e-6)])


def test_funding_is_paid_between_longs_and_shorts(simulated):
    """0.1 % every ten minutes: after five payments the long has paid 0.5 of its 10 and is liquidated at a higher mark.

    m - F / (1 - r) is compared with T, so the trigger moves to T + F / 0.99.
    """
    funding = {"interval_hours": 1 / 6, "interest": 1e-3, "clamp": 1e-2, "cap": 1e-2, "source": "made up"}
    trigger = LONG_TRIGGER + 0.5 / 0.99
    rises = [100.0] * 50
    out = simulated([(1, 10)], [*rises, trigger + 1e-6, 100], [*rises, trigger - 1e-6], funding=funding)
    assert out["liquidation_volume"][0, 0, 0, 0] == pytest.approx([0, K * trigger], rel=1e-6, abs=1e-3)
