"""Hand-computed cases of coins as collateral: haircuts, tokens without a perpetual, their sale, a token off its peg."""

from dataclasses import replace

import numpy as np
import pytest

from .twin import simulate
from .worlds import accounts_from, busy_world, crash, cross_crowd, world_of


def token_world(venues: int = 1, **changes):
    """Asset 0 at 100 USD has a perpetual, asset 1 is a token at 1 USD; surplus to the trader."""
    listed = np.tile([True, False], (venues, 1))
    base = world_of(venues, 2, listed=listed, start_price=np.array([100.0, 1.0]), surplus_to_pool=False)
    return replace(base, **changes)


def to(*prices: tuple[float, float]) -> np.ndarray:
    """Log-returns of the asset and the token through these prices."""
    return np.diff(np.log(np.vstack([[100.0, 1.0], *prices])), axis=0)


LONG = {"legs": {0: 1.0}, "coins": {1: 20.0}}


@pytest.mark.parametrize(("over", "liquidated"), [(1e-9, 0), (-1e-9, 1)])
def test_haircut_is_in_the_trigger(over, liquidated):
    """20 tokens at half their worth carry the long to 90 / 0.99."""
    world = token_world(haircut=np.full((1, 2), 0.5))
    out = simulate(world, accounts_from(LONG), to((90 / 0.99 * (1 + over), 1.0)))
    assert out["accounts_liquidated"].sum() == liquidated


def test_haircut_is_nowhere_else():
    """At 85 equity is 5, under the haircut -5: a tenth is closed by tiers and not all; the bankruptcy price is 80."""
    floors = np.array([[[0, 76.5], [0, np.inf]]])
    world = token_world(haircut=np.full((1, 2), 0.5), staging=np.array(["tiers"]), tier_floor=floors, rounds=1,
                        tier_rate=np.full((1, 2, 2), 0.01), take_bound=np.zeros((1, 2)), i_ref=0.01,
                        takeover_multiple=np.ones(1))  # fmt: skip
    out = simulate(world, accounts_from(LONG), to((85.0, 1.0)))
    assert out["account_quantity"][0, 0] == pytest.approx(0.9)
    assert out["account_cash"][0] == pytest.approx(0.1 * (80 - 100))
    assert out["account_coins"][0, 1] == 20  # an account that goes on sells nothing, its cash is negative


@pytest.mark.parametrize("to_pool", [False, True])
def test_coins_are_sold_as_much_as_is_needed(to_pool):
    """The long loses 15 of 20 tokens at 85; the other five stay coins, whoever has them."""
    world = token_world(haircut=np.full((1, 2), 0.5), surplus_to_pool=np.array([to_pool]))
    out = simulate(world, accounts_from(LONG), to((85.0, 1.0), (85.0, 0.5)))
    assert out["account_cash"][0] == pytest.approx(0, abs=1e-12)
    assert out["account_coins"][0, 1] == pytest.approx(0 if to_pool else 5)
    assert out["collateral_sold"][0, 0] == pytest.approx([0, 15])
    assert out["surplus"].sum() == pytest.approx(5 if to_pool else 0)
    assert out["fund_equity"][0, 0] == pytest.approx(1e6 + (2.5 if to_pool else 0), abs=1e-9)
    assert out["deficit"].sum() == 0


def test_what_the_coins_do_not_cover_is_a_deficit():
    out = simulate(token_world(), accounts_from(LONG), to((85.0, 0.5)))
    assert out["deficit"].sum() == pytest.approx(15 - 20 * 0.5)
    assert out["account_coins"][0, 1] == 0
    assert out["collateral_sold"].sum() == pytest.approx(10)


def test_cash_is_used_before_coins():
    out = simulate(token_world(), accounts_from(LONG | {"cash": 4.0, "coins": {1: 16.0}}), to((81.0, 1.0)))
    assert out["accounts_liquidated"].sum() == 0
    out = simulate(token_world(), accounts_from(LONG | {"cash": 4.0, "coins": {1: 16.0}}), to((80.5, 1.0)))
    assert out["account_coins"][0, 1] == pytest.approx(0.5)
    assert out["collateral_sold"].sum() == pytest.approx(15.5)


def test_every_coin_of_an_account_is_sold_in_the_same_share():
    """50 USD in asset 0 and 150 in tokens against a loss of 100 at a price of 80: half of 160 + 40 in either."""
    accounts = accounts_from({"legs": {0: 5.0}, "coins": {0: 0.5, 1: 160.0}})
    world = token_world(haircut=np.full((1, 2), 0.5))
    out = simulate(world, accounts, to((80.0, 1.0)))
    assert out["account_coins"][0] == pytest.approx([0.25, 80])


def test_a_sale_pays_its_own_impact_on_the_index():
    """I(u) = i_ref sqrt(u / 1 %); 0.4 I is the push, two thirds of it the mean; the token has a volume of 1,000
    USD. So s tokens bring s exp(-0.4 0.01 sqrt(s / 10) 2/3), which is to be 15."""
    world = token_world(i_ref=0.01, token_adv=np.array([np.inf, 1000.0]), haircut=np.full((1, 2), 0.5))
    out = simulate(world, accounts_from(LONG), to((85.0, 1.0)))
    loss = -float(np.expm1(-0.01 * np.sqrt(85 / 1e9 / 0.01) * 2 / 3)) * 85  # the book's own impact on the long
    sold = out["collateral_sold"][0, 0, 1]
    assert sold == pytest.approx(20 - out["account_coins"][0, 1])
    assert sold * np.exp(-0.4 * 0.01 * np.sqrt(sold / 10) * 2 / 3) == pytest.approx(15 + loss, rel=1e-12)
    assert out["index_close"][0, 1] == pytest.approx(np.exp(-0.4 * 0.01 * np.sqrt(sold / 10)))
    assert out["ledger_residual"] < 1e-12
    pinned = simulate(world, accounts_from(LONG), to((85.0, 1.0)), index_pin=True)
    assert pinned["collateral_sold"][0, 0, 1] == pytest.approx(15, rel=1e-4)
    assert pinned["index_close"][0, 1] == 1


def test_sales_of_a_round_are_added_afterwards():
    """Two venues sell all tokens, 20 and 40 of them: either pays for its own push, the index bears both."""
    world = token_world(2, i_ref=0.01, token_adv=np.array([np.inf, 1000.0]))
    accounts = accounts_from(LONG, {"venue": 1, "legs": {0: 2.0}, "coins": {1: 40.0}})
    out = simulate(world, accounts, to((70.0, 1.0)))
    mean = lambda usd: np.exp(-0.4 * 0.01 * np.sqrt(usd / 10) * 2 / 3)  # noqa: E731
    # the sales of 70 and 140 USD in the book press asset 0 by less than 1e-5
    assert out["deficit"][0] == pytest.approx([30 - 20 * mean(20), 60 - 40 * mean(40)], rel=1e-3)
    assert out["index_close"][0, 1] == pytest.approx(np.exp(-0.4 * 0.01 * np.sqrt(60 / 10)))


def test_a_coin_with_a_perpetual_presses_its_mark():
    """Collateral and position are one asset: the sale of 15 USD moves the index and with it the mark."""
    world = world_of(1, 1, i_ref=0.01, adv=1e4, mark_rule="index_average", surplus_to_pool=False)
    accounts = accounts_from({"legs": {0: 1.0}, "coins": {0: 0.2}}, assets=1)
    out = simulate(world, accounts, np.log([[0.83]]))
    u = (83.0 + out["collateral_sold"].sum()) / 1e4
    assert out["collateral_sold"].sum() == pytest.approx(16.6, rel=1e-9)  # all of it, and a deficit
    assert np.log(out["index_close"][0, 0] / 0.83) == pytest.approx(-0.4 * 0.01 * np.sqrt(u / 0.01))
    assert np.log1p(out["basis_low"][0, 0, 0]) == pytest.approx(-0.6 * 0.01 * np.sqrt(83 / 1e4 / 0.01))


def test_a_token_off_its_peg_at_one_venue():
    """-30 % at venue 0 from minute 2 to 3: 16 of the 20 USD are gone with the price at 84, there and then only."""
    world = token_world(2)
    accounts = accounts_from(LONG | {"coins": {1: 20.0}}, LONG | {"venue": 1})
    path = to((84.0, 1.0), (84.0, 1.0), (84.0, 1.0), (84.0, 1.0))
    off = np.zeros((4, 2, 2))
    off[1:3, 0, 1] = np.log(0.7)
    assert simulate(world, accounts, path)["accounts_liquidated"].sum() == 0
    out = simulate(world, accounts, path, unusual={"deviation": off})
    assert out["accounts_liquidated"][0] == pytest.approx([1, 0])
    assert out["deficit"][0] == pytest.approx([16 - 20 * 0.7, 0])
    assert out["collateral_sold"][0, :, 1] == pytest.approx([20 * 0.7, 0])
    assert out["index_low"][0] == pytest.approx([0.84, 1])


def test_fee_comes_after_the_debt_and_out_of_coins_too():
    """A fee of 1 % on 85 USD; of 20 tokens 15 go for the loss. Of 15.5 tokens half a dollar is left for the fee."""
    world = token_world(fee=np.full(1, 0.01), haircut=np.full((1, 2), 0.5))
    out = simulate(world, accounts_from(LONG), to((85.0, 1.0)))
    assert out["collateral_sold"].sum() == pytest.approx(15.85)
    assert out["surplus"].sum() == pytest.approx(0.85)
    out = simulate(world, accounts_from(LONG | {"coins": {1: 15.5}}), to((85.0, 1.0)))
    assert out["collateral_sold"].sum() == pytest.approx(15.5)
    assert (out["surplus"].sum(), out["deficit"].sum()) == pytest.approx((0.5, 0))


def test_a_winner_without_positions_pays_its_debt_from_coins():
    """ADL closes the short at 80: its cash of -50 becomes -30, for which 30 of 100 tokens are sold."""
    world = token_world(pool_cash=np.zeros(1), adl_close=np.array(["mark"]), surplus_to_pool=np.array([True]))
    winner = {"legs": {0: -1.0}, "cash": -50.0, "coins": {1: 100.0}}
    out = simulate(world, accounts_from({"legs": {0: 1.0}, "cash": 20.0}, winner), to((80.0, 1.0)))
    assert out["account_cash"] == pytest.approx([0, 0], abs=1e-12)
    assert out["account_coins"][1, 1] == pytest.approx(70)


def test_coins_of_a_pool_count_at_the_index():
    """A deficit of 5 at 85 meets 6 coins that are worth 0.5: two dollars are socialised, and the pool owes its cash."""
    world = token_world(pool_cash=np.zeros(1), pool_coins=np.array([[0.0, 6.0]]))
    accounts = accounts_from({"legs": {0: 1.0}, "cash": 10.0}, {"legs": {0: -1.0}, "cash": 10.0})
    out = simulate(world, accounts, to((85.0, 0.5)))
    assert out["socialised_loss"].sum() == pytest.approx(2)
    assert out["fund_equity"][0, 0] == pytest.approx(0, abs=1e-12)
    assert out["fund_drawdown"][0] == pytest.approx(6)


def test_bankruptcy_price_counts_coins():
    """Taken over at 80, where 20 tokens are all gone: nobody gains or loses but the pool, 5 at a mark of 85."""
    world = token_world(haircut=np.full((1, 2), 0.5), take_bound=np.zeros((1, 2)), i_ref=0.01,
                        takeover_multiple=np.ones(1))  # fmt: skip
    out = simulate(world, accounts_from(LONG), to((85.0, 1.0)))
    assert out["collateral_sold"].sum() == pytest.approx(20)
    assert (out["surplus"].sum(), out["deficit"].sum()) == pytest.approx((0, 0), abs=1e-9)
    assert out["fund_equity"][0, 0] == pytest.approx(1e6 + 5, abs=1e-9)


def test_random_books_with_coins_balance_and_nobody_owes():
    rng = np.random.default_rng(4)
    world = replace(busy_world(), haircut=np.array([[0.05, 0.1], [0.2, 0.0]]), pool_coins=np.full((2, 2), 0.2))
    off = np.zeros((90, 2, 2))
    off[30:60, 1, 1] = np.log(0.7)
    out = simulate(world, cross_crowd(200, rng, coins=0.6), crash(rng), unusual={"deviation": off})
    assert out["ledger_residual"] < 1e-12
    assert np.all(out["collateral_sold"].sum(axis=0) > 0)
    assert out["socialised_loss"].sum() > 0
    flat = np.all(out["account_quantity"] == 0, axis=1)
    assert flat.sum() > 20
    assert np.all(out["account_cash"][flat] > -1e-9)
    assert np.all(out["account_coins"] >= 0)
