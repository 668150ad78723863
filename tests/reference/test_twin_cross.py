"""Hand-computed cases of cross accounts: several positions, one cash."""

from dataclasses import replace

import numpy as np
import pytest

from .twin import simulate
from .worlds import INF, accounts_from, accounts_of, busy_world, crash, cross_crowd, paths_to, world_of


@pytest.mark.parametrize(("asset", "price"), [(0, 1153.26), (1, 26316.89)])
def test_published_cross_liquidation_prices(asset, price):
    """Binance's worked example: the other position stays at its mark, 1335.18 or 31967.27 USD."""
    marks, deductions, rates = np.array([1335.18, 31967.27]), np.array([135365.0, 16300.0]), np.array([0.10, 0.025])
    floors = np.stack([[0, 0], deductions / rates], axis=-1)[None]
    world = world_of(assets=2, tier_floor=floors, tier_rate=np.stack([0 * rates, rates], axis=-1)[None])
    legs = {0: (3683.979, 1456.84), 1: (109.488, 32481.98)}
    accounts = accounts_from({"legs": legs, "cash": 1535443.01})
    for cents, liquidated in [(0.005, 0), (-0.005, 1)]:
        target = np.where(np.arange(2) == asset, price + cents, marks)
        out = simulate(replace(world, start_price=marks), accounts, np.log(target / marks)[None])
        assert out["accounts_liquidated"].sum() == liquidated


def test_bankruptcy_prices_share_the_equity_by_maintenance():
    """A at 93 and B at 102: equity 10 - 7 - 2 = 1, maintenance 0.93 + 1.02; taken over, a pool for each market."""
    world = world_of(assets=2, take_bound=0.0, i_ref=0.01, takeover_multiple=1.0, pool=np.array([[0, 1]]))
    accounts = accounts_from({"legs": {0: 1.0, 1: -1.0}, "cash": 10.0})
    out = simulate(world, accounts, paths_to((93.0, 102.0)))
    assert out["liquidation_volume"][0, 0] == pytest.approx(np.array([[93, 0], [0, 102]]))
    assert out["fund_equity"][0] - 1e6 == pytest.approx([0.93 / 1.95, 1.02 / 1.95], rel=1e-6)
    assert out["account_cash"] == pytest.approx(0, abs=1e-12)
    assert out["deficit"].sum() + out["surplus"].sum() == pytest.approx(0, abs=1e-12)


def test_one_account_nets_two_do_not():
    cross = accounts_from({"legs": {0: 1.0, 1: -1.0}, "cash": 5.0})
    out = simulate(world_of(assets=2), cross, paths_to((80.0, 90.0)))
    assert out["deficit"].sum() == pytest.approx(5)
    assert out["surplus"].sum() == 0
    apart = accounts_from({"legs": {0: 1.0}, "cash": 5.0}, {"legs": {1: -1.0}})
    out = simulate(world_of(assets=2), apart, paths_to((80.0, 90.0)))
    assert out["deficit"].sum() == pytest.approx(15)
    assert out["accounts_liquidated"].sum() == 1


def test_deficit_is_shared_by_the_pools_of_what_was_closed():
    """80 and 90 USD are closed in markets of two pools; the deficit of 5 goes to them 8 to 9."""
    world = world_of(assets=2, pool=np.array([[0, 1]]))
    out = simulate(world, accounts_from({"legs": {0: 1.0, 1: -1.0}, "cash": 5.0}), paths_to((80.0, 90.0)))
    assert out["deficit"][0] == pytest.approx([5 * 80 / 170, 5 * 90 / 170])


def tiered(**changes):
    """Tiers 1 % up to 1,000 USD, 2 % above (D = 10), in two markets."""
    floors, rates = np.tile([0, 1000.0, INF], (1, 2, 1)), np.tile([0.01, 0.02, 0.02], (1, 2, 1))
    return world_of(assets=2, staging="tiers", tier_floor=floors, tier_rate=rates, surplus_to_pool=False, **changes)


def test_tiers_cut_every_position_by_its_own_tier():
    """A: 15 coins at 90 are 1,350 USD, M = 17; B: 30 at 100, M = 50; C none. Both are cut to 1,000 USD, then M = 20."""
    world = tiered(fee=0.001)
    accounts = accounts_from({"legs": {0: 15.0, 1: -30.0}, "cash": 150 + 66.0})
    out = simulate(world, accounts, paths_to((90.0, 100.0)))
    assert np.abs(out["account_quantity"][0]) == pytest.approx([1000 / 90, 10])
    fee = 0.001 * (350 + 2000)
    assert out["account_cash"] + (1000 / 90) * -10 == pytest.approx(66 - fee)
    assert out["surplus"].sum() == pytest.approx(fee)


def test_a_position_in_the_lowest_tier_is_left_alone_while_another_is_above():
    """A is 900 USD, M = 9, and stays; B goes from 3,000 to 1,000 USD; with equity 15 the account then closes whole."""
    accounts = accounts_from({"legs": {0: 9.0, 1: -30.0}, "cash": 15.0})
    out = simulate(replace(tiered(), rounds=1), accounts, np.zeros((1, 2)))
    assert out["account_quantity"][0] == pytest.approx([9, -10])
    out = simulate(tiered(), accounts, np.zeros((1, 2)))
    assert np.all(out["account_quantity"] == 0)
    assert out["account_cash"][0] == pytest.approx(15)


def test_riskiest_first_closes_one_position_and_tests_again():
    """Equity 4, maintenance 1 + 3 of A and B: B goes, A stays. With equity 0.9 A goes in the next round."""
    world = world_of(assets=2, closing_order="riskiest_first", surplus_to_pool=False)
    legs = {0: 1.0, 1: -3.0}
    out = simulate(world, accounts_from({"legs": legs, "cash": 4.0}), np.zeros((1, 2)))
    assert out["account_quantity"][0] == pytest.approx([1, 0])
    assert out["account_cash"][0] == pytest.approx(4)
    one = simulate(replace(world, rounds=1), accounts_from({"legs": legs, "cash": 0.9}), np.zeros((1, 2)))
    assert one["account_quantity"][0] == pytest.approx([1, 0])
    two = simulate(world, accounts_from({"legs": legs, "cash": 0.9}), np.zeros((1, 2)))
    assert np.all(two["account_quantity"] == 0)
    assert two["first_round_volume"].sum() == pytest.approx(300)


def test_without_equity_the_account_closes_whole():
    world = world_of(assets=2, closing_order="riskiest_first", rounds=1)
    out = simulate(world, accounts_from({"legs": {0: 1.0, 1: -3.0}, "cash": -1.0}), np.zeros((1, 2)))
    assert np.all(out["account_quantity"] == 0)
    assert out["deficit"].sum() == pytest.approx(1)


def test_a_waiting_position_keeps_the_account_open():
    """B's queue takes 40 USD a minute; A closes at once, the account is settled with B's last part, at 90."""
    world = world_of(assets=2, throughput=np.array([[INF, 40.0]]), surplus_to_pool=False)
    accounts = accounts_from({"legs": {0: 1.0, 1: 1.0}, "cash": 12.0})
    out = simulate(world, accounts, paths_to((95.0, 95.0), (95.0, 95.0), (99.0, 99.0)))
    assert out["accounts_liquidated"].sum() == 0
    out = simulate(world, accounts, paths_to((95.0, 94.0), (95.0, 90.0), (150.0, 90.0)))
    assert out["liquidation_volume"][0, 0, :, 0] == pytest.approx([95, 40 + 40 + 90 * (1 - 40 / 94 - 40 / 90)])
    lost = 5 + 40 / 94 * 6 + (1 - 40 / 94) * 10
    assert out["account_cash"][0] == 0
    assert out["deficit"].sum() == pytest.approx(lost - 12)


def test_rank_of_a_cross_account_counts_all_its_positions():
    """Winners short A with profit 20 on 100 and equity 20: who holds 80 USD of B too has twice the leverage."""
    world = world_of(assets=2, pool_cash=0.0, adl_close="mark")
    losers, lone = {"legs": {0: 1.0}, "cash": 10.0}, {"legs": {0: -1.0}, "cash": 0.0}
    both = {"legs": {0: -1.0, 1: 0.8}, "cash": 0.0}
    out = simulate(world, accounts_from(losers, lone, both), paths_to((80.0, 100.0)))
    assert out["account_quantity"][:, 0] == pytest.approx([0, -1, 0])
    out = simulate(world, accounts_from(losers, lone, both | {"cash": 30.0}), paths_to((80.0, 100.0)))
    assert out["account_quantity"][:, 0] == pytest.approx([0, 0, -1])


def test_a_winner_pays_what_it_has_and_no_more():
    """At 90 against a mark of 80 a winner with equity 5 closes half a coin; the next one closes one and a half."""
    world = world_of(pool_cash=0.0, rounds=1)
    losers = (2.0, 20.0)
    accounts = accounts_of(losers, (-3.0, 2.0, 81.0), (-5.0, 300.0, 90.0))
    out = simulate(world, accounts, paths_to((80.0,)))
    assert out["account_quantity"][:, 0] == pytest.approx([0, -2.5, -3.5])
    assert out["account_cash"][1] - 2.5 * (80 - 81) == pytest.approx(0, abs=1e-12)
    assert out["adl_haircut"].sum() == pytest.approx(20)


def test_a_winner_in_two_markets_splits_its_equity_by_profit():
    """Equity 6 with profits 6 in A and 12 in B: 2 and 4 of it can go, at a loss of 10 a coin 0.2 and 0.4 coins."""
    world = world_of(assets=2, pool_cash=0.0, rounds=1, adl_rank="pro_rata")
    loser = lambda a: {"legs": {a: 2.0}, "cash": 20.0}  # noqa: E731
    winner = {"legs": {0: (-1.5, 84.0), 1: (-3.0, 84.0)}, "cash": -12.0}
    out = simulate(world, accounts_from(loser(0), loser(1), winner), paths_to((80.0, 80.0)))
    assert out["account_quantity"][2] == pytest.approx([-1.3, -2.6])
    assert out["absorbed_volume"][0, 0, :, 3] == pytest.approx([16, 32])


def test_two_pools_share_what_one_winner_has():
    """Deficits of 20 in two pools; the winner's profits of 40 in either are backed by an equity of 10."""
    world = world_of(assets=2, adl_close="mark", pool=np.array([[0, 1]]), pool_cash=0.0, rounds=1)
    loser = lambda a: {"legs": {a: 2.0}, "cash": 20.0}  # noqa: E731
    winner = {"legs": {0: -4.0, 1: -4.0}, "cash": -150.0}
    out = simulate(world, accounts_from(loser(0), loser(1), winner), paths_to((80.0, 80.0)))
    assert out["socialised_loss"][0] == pytest.approx([5, 5])
    assert out["fund_equity"][0] == pytest.approx([-15, -15])
    assert out["account_quantity"][2] == pytest.approx([-2, -2])


def test_barrier_of_a_hedged_account_is_that_of_its_net_position():
    """Long A and short B of one size and shift: with correlation 1 none at all, without it the root of two."""
    world = world_of(assets=2, barrier_shift=0.01)
    accounts = lambda cash: accounts_from({"legs": {0: 1.0, 1: -1.0}, "cash": cash})  # noqa: E731
    hits = lambda w, cash: simulate(w, accounts(cash), np.zeros((1, 2)))["accounts_liquidated"].sum()  # noqa: E731
    together = replace(world, barrier_correlation=np.ones((2, 2)))
    assert (hits(together, 2.0 + 1e-9), hits(together, 2.0 - 1e-9)) == (0, 1)
    up, down = (100 * np.exp(sign * 0.01 / np.sqrt(2)) for sign in (1, -1))
    needed = (up - down) + 0.01 * (up + down)
    assert (hits(world, needed + 1e-9), hits(world, needed - 1e-9)) == (0, 1)


def test_barrier_sees_coins_with_their_haircut_and_inverse_contracts():
    """E moves by 100 and 25 with A and B; in the other account by 110 and -100: shifts in proportion."""
    coins = {"legs": {0: 1.0}, "coins": {1: 0.5}}
    inverse = {"legs": {0: 100.0, 1: -1.0}, "coins": {0: 0.1}}
    for account, kind, slopes in [(coins, False, [100, 25]), (inverse, True, [110, -100])]:
        world = world_of(
            assets=2, barrier_shift=0.01, haircut=np.array([[0.0, 0.5]]), inverse=np.array([[kind, False]])
        )
        a, b = 100 * np.exp(-0.01 * np.array(slopes) / np.linalg.norm(slopes))
        equity, notional = (1.1 * a - 100 + 100 - b, 100 + b) if kind else (a - 100 + 0.25 * b, a)
        for over, liquidated in [(1e-9, 0), (-1e-9, 1)]:
            one = accounts_from(account | {"cash": 0.01 * notional - equity + over})
            assert simulate(world, one, np.zeros((1, 2)))["accounts_liquidated"].sum() == liquidated


def test_riskiest_first_takes_what_its_rule_would_cut():
    """A is 1,000 USD in its only tier, M = 50, B 1,500 USD above its lowest, M = 20: B is cut, A is not."""
    floors, rates = np.array([[[0, INF], [0, 1000.0]]]), np.array([[[0.05, 0.05], [0.01, 0.02]]])
    world = world_of(assets=2, staging="tiers", tier_floor=floors, tier_rate=rates, closing_order="riskiest_first",
                     rounds=1)  # fmt: skip
    out = simulate(world, accounts_from({"legs": {0: 10.0, 1: 15.0}, "cash": 60.0}), np.zeros((1, 2)))
    assert out["account_quantity"][0] == pytest.approx([10, 10])


def test_a_profit_that_nobody_asks_for_backs_the_others():
    """As in two markets, but only A is asked: all of the equity of 6 can go there, 0.6 coins at 10."""
    world = world_of(assets=2, pool_cash=0.0, rounds=1, adl_rank="pro_rata")
    winner = {"legs": {0: (-1.5, 84.0), 1: (-3.0, 84.0)}, "cash": -12.0}
    out = simulate(world, accounts_from({"legs": {0: 2.0}, "cash": 20.0}, winner), paths_to((80.0, 80.0)))
    assert out["account_quantity"][1] == pytest.approx([-0.9, -3])


def test_a_pool_that_lacks_nothing_leaves_the_equity_to_the_other():
    """A deficit of 20 in the market of pool 0; the winner's profit of 40 there is backed by an equity of 10, not 5."""
    world = world_of(assets=2, adl_close="mark", pool=np.array([[0, 1]]), pool_cash=0.0, rounds=1)
    winner = {"legs": {0: -4.0, 1: -4.0}, "cash": -150.0}
    out = simulate(world, accounts_from({"legs": {0: 2.0}, "cash": 20.0}, winner), paths_to((80.0, 80.0)))
    assert out["socialised_loss"][0] == pytest.approx([10, 0])


def test_who_is_closing_is_not_socialised():
    """Of the first account B waits, with a profit; the deficit of 10 in C is borne by the other short of B alone."""
    world = world_of(assets=3, pool_cash=0.0, throughput=np.array([[INF, 0.0, INF]]), rounds=1)
    closing = {"legs": {0: 1.0, 1: -1.0}, "cash": 20.5}
    loser, winner = {"legs": {2: 1.0}, "cash": 10.0}, {"legs": {1: -1.0}, "cash": 50.0}
    out = simulate(world, accounts_from(closing, loser, winner, assets=3), paths_to((70.0, 90.0, 80.0)))
    assert out["account_quantity"][0] == pytest.approx([0, -1, 0])
    assert out["account_cash"] == pytest.approx([-9.5, 0, 40])


@pytest.mark.parametrize("order", ["proportional", "riskiest_first"])
def test_random_cross_books_balance_and_nobody_owes(order):
    rng = np.random.default_rng(3)
    world = replace(busy_world(), closing_order=np.full(2, order))
    out = simulate(world, cross_crowd(200, rng), crash(rng))
    assert out["ledger_residual"] < 1e-12
    assert np.all(out["absorbed_volume"].sum(axis=(0, 1, 2))[:4] > 0)
    np.testing.assert_allclose(out["absorbed_volume"].sum(3), out["liquidation_volume"].sum(3), rtol=1e-12, atol=1e-9)
    size = np.abs(out["account_quantity"])
    assert np.all((size == 0) | (size > 1e-6))  # no crumbs
    flat = np.all(size == 0, axis=1)
    assert flat.sum() > 20
    assert np.all(out["account_cash"][flat] > -1e-9)
