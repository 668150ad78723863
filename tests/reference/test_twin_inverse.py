"""Hand-computed cases of inverse contracts: N USD, profit N (1 / entry - 1 / m) coins, backed by coins."""

from dataclasses import replace

import numpy as np
import pytest

from .twin import simulate
from .twin_prices import Values
from .worlds import accounts_from, busy_world, crash, cross_crowd, path_to, paths_to, world_of

LONG = {"legs": {0: 100.0}, "coins": {0: 0.1}}  # bankrupt at 100 / 1.1, liquidated at 101 / 1.1
SHORT = {"legs": {0: -100.0}, "coins": {0: 0.5}}


def inverse_world(**changes):
    return world_of(**({"inverse": True, "surplus_to_pool": False} | changes))


def run(world, accounts: list[dict], *prices: float) -> dict[str, np.ndarray]:
    return simulate(world, accounts_from(*accounts, assets=1), path_to(*prices))


@pytest.mark.parametrize(
    ("legs", "coins", "trigger", "way"),
    # long: T = |N| (1 + rate) / (c + N / e); short: T = |N| (1 - rate) / (N / e - c)
    [(100.0, 0.1, 101 / 1.1, -1), (-100.0, 0.2, 99 / 0.8, 1)],
)
def test_trigger_is_the_closed_form(legs, coins, trigger, way):
    account = {"legs": {0: legs}, "coins": {0: coins}}
    safe, hit = trigger * (1 - way * 1e-9), trigger * (1 + way * 1e-9)
    assert run(inverse_world(), [account], safe)["accounts_liquidated"].sum() == 0
    out = run(inverse_world(), [account], hit)
    assert out["liquidation_volume"].sum() == pytest.approx(100)
    assert out["account_coins"][0, 0] == pytest.approx(coins + legs * (1 / 100 - 1 / hit))
    assert out["account_cash"][0] == 0


def test_trigger_counts_tiers_and_fee():
    """T = N (1 + rate + fee - D / N) / (c + N / e), with 2 % above 50 USD (D = 0.5) and a fee of 0.5 %."""
    world = inverse_world(tier_floor=np.array([[[0, 50.0]]]), tier_rate=np.array([[[0.01, 0.02]]]), fee=0.005,
                          fee_in_trigger=True)  # fmt: skip
    trigger = 100 * (1 + 0.02 + 0.005 - 0.005) / 1.1
    assert run(world, [LONG], trigger * (1 + 1e-9))["accounts_liquidated"].sum() == 0
    out = run(world, [LONG], trigger * (1 - 1e-9))
    assert out["account_coins"][0, 0] == pytest.approx(0.1 + 1 - 100 / trigger - 0.5 / trigger)
    assert out["surplus"].sum() == pytest.approx(0.5)


def test_a_short_that_its_coins_cover_is_never_liquidated():
    """1.1 coins against 100 USD: equity is 100 + 0.1 m."""
    account = {"legs": {0: -100.0}, "coins": {0: 1.1}}
    for price in (1.0, 100.0, 1e6):
        assert run(inverse_world(), [account], price)["accounts_liquidated"].sum() == 0


def test_published_bankruptcy_price():
    """Bybit: a long at 7890.08 USD of 50 times leverage is bankrupt at 7735.37; taken over there by a rich pool."""
    world = inverse_world(start_price=7890.08, take_bound=0.0, i_ref=0.01, takeover_multiple=1.0, pool_cash=1e9)
    account = {"legs": {0: (1e6, 7890.08)}, "coins": {0: 1e6 / 7890.08 / 50}}
    out = simulate(world, accounts_from(account, assets=1), path_to(7750.0, start=7890.08))
    assert out["account_coins"][0, 0] == pytest.approx(0, abs=1e-9)
    gain = out["fund_equity"][0, 0] - 1e9  # 1e6 (1 / p - 1 / m) coins
    assert 1 / (gain / 7750 / 1e6 + 1 / 7750) == pytest.approx(7735.37, abs=0.005)


def test_deficit_is_in_coins_at_the_mark():
    """At 80 the long has 0.1 - 0.25 coins. The pool owes 0.15 coins from then on, which cost it 15 at 100."""
    out = run(inverse_world(), [LONG], 80.0, 100.0)
    assert out["deficit"].sum() == pytest.approx(12)
    assert out["fund_low"][0, 0] == pytest.approx(1e6 - 15)
    assert out["fund_equity"][0, 0] == pytest.approx(1e6 - 15)
    assert out["account_coins"][0, 0] == 0


def test_surplus_goes_to_the_pool_in_coins():
    out = run(inverse_world(surplus_to_pool=True), [LONG], 91.5, 183.0)
    coins = 0.1 + 1 - 100 / 91.5
    assert out["surplus"].sum() == pytest.approx(coins * 91.5)
    assert out["fund_equity"][0, 0] == pytest.approx(1e6 + coins * 183, abs=1e-9)


def test_fee_is_in_coins_and_at_most_what_is_left():
    left = 0.1 + 1 - 100 / 91.5
    out = run(inverse_world(fee=0.001), [LONG], 91.5)
    assert out["account_coins"][0, 0] == pytest.approx(left - 0.1 / 91.5)
    out = run(inverse_world(fee=0.01), [LONG], 91.5)
    assert out["surplus"].sum() == pytest.approx(left * 91.5)
    assert out["account_coins"][0, 0] == pytest.approx(0, abs=1e-15)
    assert out["collateral_sold"].sum() == out["deficit"].sum() == 0


def test_book_price_of_an_inverse_contract():
    """A sale of 4 % of a day's volume ends at -2 %, on average it is at -4/3 %; the flow is N."""
    world = inverse_world(i_ref=0.01, adv=2500.0, mark_rule="index_average")
    out = run(world, [LONG], 91.5)
    paid = 91.5 * np.exp(-0.02 * 2 / 3)
    assert out["deficit"].sum() == pytest.approx(-(0.1 + 1 - 100 / paid) * 91.5)
    assert out["index_close"][0, 0] == pytest.approx(0.915 * np.exp(-0.4 * 0.02))


def test_adl_at_the_bankruptcy_price():
    """The winner has 0.25 coins of profit at 80 and closes at 100 / 1.1 with 0.1: it loses 0.15 coins, 12 USD."""
    out = run(inverse_world(pool_cash=0.0), [LONG, SHORT], 80.0)
    assert out["adl_volume"].sum() == pytest.approx(100)
    assert out["adl_haircut"].sum() == pytest.approx(12)
    assert out["account_coins"][:, 0] == pytest.approx([0, 0.6], abs=1e-12)
    assert out["deficit"].sum() == pytest.approx(0, abs=1e-9)


def test_rank_is_by_profit_over_the_contract():
    """At 80 shorts from 100 and 400 have made 0.2 and 0.8 USD a dollar; leverages 10 and 1.25 put the first ahead."""
    one = {"legs": {0: -100.0}, "cash": -10.0}
    other = {"legs": {0: (-100.0, 400.0)}}
    out = run(inverse_world(pool_cash=0.0, adl_close="mark", rounds=1), [LONG, one, other], 80.0)
    assert out["account_quantity"][1:, 0] == pytest.approx([0, -100])


def test_coins_behind_an_inverse_contract_count_at_its_mark():
    at = Values.of(np.array([90.0, 90.0]), np.array([100.0, 100.0]), np.array([True, False]))
    assert at.coin == pytest.approx([90, 100])
    assert at.settle == pytest.approx([-1 / 90, 90])
    assert at.money * at.unit == pytest.approx([90, 90])


def test_losses_are_socialised_in_coins():
    """Half of the winner closes at the mark with 0.25 coins; the deficit of 0.15 coins comes from the other half."""
    out = run(inverse_world(pool_cash=0.0, adl_close="mark", rounds=1), [LONG, SHORT | {"legs": {0: -200.0}}], 80.0)
    assert out["socialised_loss"].sum() == pytest.approx(12)
    assert out["account_coins"][:, 0] == pytest.approx([0, 0.5 + 0.25 - 0.15])
    assert out["fund_equity"][0, 0] == pytest.approx(0, abs=1e-9)


def test_makers_and_vaults_deal_in_coins():
    """40 USD at 1 % under a mark of 91.4, 60 USD at bankruptcy; equity of 0.54 is below 2/3 of maintenance."""
    world = inverse_world(take_bound=0.0, i_ref=0.01, auction_capacity=40.0, vault_cash=10.0, vault_capacity=1e3,
                          rounds=1)  # fmt: skip
    out = run(world, [LONG], 91.4)
    assert out["absorbed_volume"][0, 0, 0] == pytest.approx([0, 40, 0, 60, 0, 0])
    assert out["vault_equity"][0, 0] == pytest.approx(10 + 60 * (1.1 / 100 - 1 / 91.4) * 91.4)
    coins = 0.1 + 1 - 40 / (91.4 * 0.99) - 60 * 1.1 / 100
    assert out["account_coins"][0, 0] - out["deficit"].sum() / 91.4 == pytest.approx(coins)
    assert out["ledger_residual"] < 1e-15


def test_funding_is_paid_in_coins():
    world = inverse_world(funding_interval_s=120.0, funding_interest=0.0001, funding_clamp=0.0005)
    accounts = [LONG | {"coins": {0: 1.0}}, {"legs": {0: -50.0}, "coins": {0: 1.0}}]
    out = run(world, accounts, 100.0, 125.0, 125.0)
    assert out["account_coins"][:, 0] == pytest.approx([1 - 0.01 / 125, 1 + 0.005 / 125])
    assert out["open_interest"][0, 0, 0] == pytest.approx(100)


def test_one_account_with_both_kinds():
    """Inverse long of 100 USD of A, linear short of one B; A at 95, B at 104: the coins are worth 0.1 x 95 - 5, so
    equity is 9.5 - 5 - 4 = 0.5. Closed at the mark: 0.0474 coins and a debt of 4 USD, for which coins are sold."""
    world = world_of(assets=2, inverse=np.array([[True, False]]), surplus_to_pool=False)
    account = {"legs": {0: 100.0, 1: -1.0}, "coins": {0: 0.1}}
    out = simulate(world, accounts_from(account), paths_to((95.0, 104.0)))
    assert out["liquidation_volume"].sum() == pytest.approx(204)
    assert out["collateral_sold"][0, 0, 0] == pytest.approx(4)
    assert out["account_coins"][0, 0] == pytest.approx(0.5 / 95)
    # at 80 it owes 0.15 coins, 12 USD, and has 11.5
    rich = simulate(world, accounts_from(account | {"cash": 15.5}), paths_to((80.0, 104.0)))
    assert rich["account_cash"][0] == pytest.approx(0)
    assert rich["deficit"].sum() == pytest.approx(0.5)


def test_bankruptcy_prices_of_both_kinds_leave_nothing():
    """Taken over whole, an account with equity 0.5 ends with nothing, and the pool with that."""
    world = world_of(assets=2, inverse=np.array([[True, False]]), take_bound=0.0, i_ref=1e-9, takeover_multiple=1.0)
    account = {"legs": {0: 100.0, 1: -1.0}, "coins": {0: 0.1}}
    out = simulate(world, accounts_from(account), paths_to((95.0, 104.0)))
    assert out["fund_equity"][0, 0] == pytest.approx(1e6 + 0.5, abs=1e-6)
    assert out["surplus"].sum() + out["deficit"].sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rank", ["queue", "pro_rata", "water_filling"])
def test_random_books_of_both_kinds_balance(rank):
    rng = np.random.default_rng(8)
    inverse = np.array([[False, True], [True, True]])
    world = replace(busy_world(), inverse=inverse, adl_rank=np.full(2, rank), vault_capacity=np.array([0.0, 1e3]),
                    vault_cash=np.full(2, 50.0), pool_coins=np.full((2, 2), 1.0))  # fmt: skip
    accounts = cross_crowd(200, rng, coins=0.5)
    usd = replace(accounts, quantity=accounts.quantity * np.where(inverse[accounts.venue], 100.0, 1.0))
    out = simulate(world, usd, crash(rng))
    assert out["ledger_residual"] < 1e-12
    assert np.all(out["absorbed_volume"].sum(axis=(0, 1, 2))[:5] > 0)
    flat = np.all(out["account_quantity"] == 0, axis=1)
    assert flat.sum() > 20
    assert np.all(out["account_cash"][flat] > -1e-9)
    assert np.all(out["account_coins"][flat] > -1e-12)
