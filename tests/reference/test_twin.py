"""Hand-computed cases that pin the slow twin itself."""

from dataclasses import replace

import numpy as np
import pytest

from .twin import Accounts, simulate
from .worlds import INF, accounts_of, busy_world, crash, crowd, path_to, world_of


# margin 10 on one coin at 100: the long is liquidated at 90 / 0.99, is bankrupt at 90
@pytest.mark.parametrize(("quantity", "trigger"), [(1.0, 90 / 0.99), (-1.0, 110 / 1.01)])
def test_trigger_is_the_closed_form(quantity, trigger):
    accounts = accounts_of((quantity, 10.0))
    safe, hit = trigger * (1 + quantity * 1e-9), trigger * (1 - quantity * 1e-9)
    assert simulate(world_of(), accounts, path_to(safe))["liquidation_volume"].sum() == 0
    out = simulate(world_of(), accounts, path_to(hit))
    assert out["liquidation_volume"][0, 0, 0] == pytest.approx([hit, 0] if quantity > 0 else [0, hit], rel=1e-12)
    assert out["surplus"][0, 0] == pytest.approx(quantity * (hit - 100) + 10, rel=1e-9)
    assert out["accounts_liquidated"][0, 0] == 1


@pytest.mark.parametrize(
    ("quantity", "entry", "rate", "deduction", "price"),
    [(3683.979, 1456.84, 0.10, 135365.0, 1114.78), (109.488, 32481.98, 0.025, 16300.0, 18778.73)],
)
def test_published_isolated_liquidation_prices(quantity, entry, rate, deduction, price):
    """Binance's worked example, a wallet of 1,535,443.01 USD; the tier is made to have the published deduction."""
    floors, rates = np.array([[[0, deduction / rate]]]), np.array([[[0, rate]]])
    world = world_of(start_price=entry, tier_floor=floors, tier_rate=rates)
    accounts = accounts_of((quantity, 1535443.01, entry))
    for cents, liquidated in [(0.005, 0), (-0.005, 1)]:
        out = simulate(world, accounts, path_to(price + cents, start=entry))
        assert out["accounts_liquidated"].sum() == liquidated


def test_barrier_shift_moves_the_test_alone():
    world = world_of(barrier_shift=0.001)
    trigger = 90 / 0.99 * np.exp(0.001)
    assert simulate(world, accounts_of((1.0, 10.0)), path_to(trigger + 1e-6))["accounts_liquidated"].sum() == 0
    out = simulate(world, accounts_of((1.0, 10.0)), path_to(trigger - 1e-6))
    assert out["liquidation_volume"][0, 0, 0, 0] == pytest.approx(trigger - 1e-6)


def test_fee_counts_in_the_trigger_and_is_paid():
    world = world_of(fee=0.005, fee_in_trigger=True, surplus_to_pool=False)
    trigger = 90 / (1 - 0.015)
    assert simulate(world, accounts_of((1.0, 10.0)), path_to(trigger + 1e-6))["accounts_liquidated"].sum() == 0
    out = simulate(world, accounts_of((1.0, 10.0)), path_to(trigger - 1e-6))
    assert out["surplus"][0, 0] == pytest.approx(0.005 * trigger, rel=1e-6)
    assert out["account_cash"][0] == pytest.approx(0.01 * trigger, rel=1e-5)


def test_jump_through_bankruptcy_is_a_deficit():
    out = simulate(world_of(), accounts_of((3.0, 30.0)), path_to(80.0))
    assert out["deficit"][0, 0] == pytest.approx(3 * (90 - 80))
    assert out["fund_low"][0, 0] == out["fund_equity"][0, 0] == pytest.approx(1e6 - 30)
    assert out["fund_drawdown"][0] == pytest.approx(30)
    assert np.isnan(out["fund_exhausted_hour"][0])


def test_near_and_far_bankruptcies_do_not_cancel():
    out = simulate(world_of(), accounts_of((1.0, 10.0), (1.0, 20.2)), path_to(80.0))
    assert out["deficit"][0, 0] == pytest.approx(10)
    assert out["surplus"][0, 0] == pytest.approx(0.2)


def test_exhaustion_socialises_then_deleverages():
    """At 80 a deficit of 10 meets a pool of 4, the winner bears 6; at 70 the next bankrupt long closes against it."""
    world = world_of(pool_cash=4.0)
    accounts = accounts_of((1.0, 10.0), (1.0, 25.0), (-2.0, 50.0))
    out = simulate(world, accounts, path_to(80.0, 70.0))
    assert out["deficit"][0, 0] == pytest.approx(10)
    assert out["socialised_loss"][0, 0] == pytest.approx(6)
    assert out["fund_exhausted_hour"][0] == 0
    assert out["adl_volume"][0, 0, 0] == pytest.approx(70)
    assert out["adl_haircut"][0, 0, 0] == pytest.approx(75 - 70)
    assert out["adl_accounts"][0, 0] == 1
    assert out["account_quantity"][:, 0] == pytest.approx([0, 0, -1])
    assert out["account_cash"] == pytest.approx([0, 0, 50 - 6 + 25])
    assert out["absorbed_volume"][0, 0, 0] == pytest.approx([80, 0, 0, 70, 0])


@pytest.mark.parametrize(
    ("rank", "left"),
    # profits 20, 20 and 100; ranks 80/40 x 0.2, 80/120 x 0.2, 400/250 x 0.2; three coins to close
    [("queue", [0.0, -1.0, -3.0]), ("pro_rata", [-1 + 3 / 7, -1 + 3 / 7, -5 + 15 / 7])],
)
def test_adl_ranking(rank, left):
    world = world_of(pool_cash=0.0, adl_rank=rank, adl_close="mark")
    accounts = accounts_of((3.0, 30.0), (-1.0, 20.0), (-1.0, 100.0), (-5.0, 150.0))
    out = simulate(world, accounts, path_to(80.0))
    assert out["account_quantity"][1:, 0] == pytest.approx(left)
    # at the mark the deficit of 30 remains; there is no pool, so the winners' profits bear it
    assert out["adl_haircut"].sum() == pytest.approx(0, abs=1e-9)
    assert out["deficit"].sum() == pytest.approx(30)
    assert out["socialised_loss"].sum() == pytest.approx(30)


def test_pro_rata_caps_are_redistributed():
    """By profit 20 to 5 the first would close 3.2 of its 1 coin: it closes 1, the second the other 3."""
    world = world_of(pool_cash=0.0, adl_rank="pro_rata")
    out = simulate(world, accounts_of((4.0, 40.0), (-1.0, 20.0), (-5.0, 100.0, 81.0)), path_to(80.0))
    assert out["account_quantity"][:, 0] == pytest.approx([0, 0, -2])


def test_book_price_and_take_bound():
    """I(u) = i_ref sqrt(u / 1 %): a sale of 4 % of a day's volume ends at -2 %, on average it is at -4/3 %."""
    world = world_of(i_ref=0.01, adv=2000.0, mark_rule="index_average", pool_cash=0.0, surplus_to_pool=False)
    price = 90.5
    accounts = accounts_of((80 / price, 10 * 80 / price), (-10.0, 1e4))
    out = simulate(world, accounts, path_to(price))
    mean = price * np.exp(-0.02 * 2 / 3)
    assert out["liquidation_volume"][0, 0, 0, 0] == pytest.approx(80)
    assert out["deficit"][0, 0] == pytest.approx(80 / price * (90 - mean))
    assert out["index_close"][0, 0] == pytest.approx(price / 100 * np.exp(-0.4 * 0.02))
    assert out["basis_low"][0, 0, 0] == pytest.approx(np.exp(-0.6 * 0.02) - 1)

    bound = replace(world, take_bound=np.full((1, 1), 1 - np.exp(-0.01)))
    out = simulate(bound, accounts, path_to(price))
    assert out["absorbed_volume"][0, 0, 0] == pytest.approx([20, 0, 0, 60, 0])
    pinned = simulate(world, accounts, path_to(price), index_pin=True)
    assert pinned["index_close"][0, 0] == pytest.approx(price / 100)
    assert pinned["deficit"][0, 0] == pytest.approx(80 / price * (90 - price * np.exp(-0.6 * 0.02 * 2 / 3)), abs=1e-9)


def test_depth_and_contagion():
    """A fall by 2 z5-units of 11.8 makes a sale weigh 1 + 2^1.75 times; a fifth of the index push reaches asset 1."""
    spill = np.array([[0.0, 0.0], [0.2, 0.0]])
    world = world_of(assets=2, i_ref=0.01, adv=1e6, depth=True, contagion=spill, mark_rule="last")
    fall = -2 * 11.8 * 0.025 / np.sqrt(288)
    price = 100 * np.exp(fall)
    accounts = accounts_of((100.0, 100 * (100 - price) + 50), assets=2)
    out = simulate(world, accounts, np.array([[fall, 0.0]]))
    push = 0.01 * np.sqrt(price * 100 / 1e6 * (1 + 2**1.75) / 0.01)
    assert np.log(out["index_close"][0]) == pytest.approx([fall - 0.4 * push, -0.2 * 0.4 * push])
    later = simulate(world, accounts, np.array([[fall, 0.0]] + 10 * [[0.0, 0.0]]))
    decayed = 0.4 * push * 2 ** (-600 / 1800 * 0.5)  # the push decays by half-life / delta
    assert np.log(later["index_close"][0]) == pytest.approx([fall - decayed, -0.2 * decayed])


def test_layers_in_order():
    """No book: makers take 40 USD at 1 % below the mark, the pool (equity 30, multiple 1) 30 USD at 90, and so on."""
    world = world_of(
        take_bound=0.0, i_ref=0.01, auction_capacity=40.0, pool_cash=30.0, takeover_multiple=1.0, unwind=6.0
    )
    accounts = accounts_of((2.0, 20.0), (-1.0, 20.0, 90.0))
    price = 90.8
    out = simulate(world, accounts, path_to(price))
    rest = 2 * price - 70
    assert out["absorbed_volume"][0, 0, 0] == pytest.approx([0, 40, 30, 0, rest])
    auctioned, remained = 40 / price * (0.99 * price - 90), rest / price * (price - 90)
    assert out["surplus"][0, 0] - out["deficit"][0, 0] == pytest.approx(auctioned + remained)
    sold = 6 * (np.exp(-0.01 * np.sqrt(6 / 1e9 / 0.01) * 2 / 3) - 1)  # against the mark
    held = (30 / price - 6 / price) * price * np.expm1(np.log(out["index_close"][0, 0] * 100 / price))
    expected = 30 + auctioned + remained + 30 / price * (price - 90) + sold + held
    assert out["fund_equity"][0, 0] == pytest.approx(expected, rel=1e-9)


def test_tiers_close_down_to_the_floor():
    """Tiers 1 % up to 1,000 USD, 2 % above (D = 10): 20 coins at the trigger close down to 1,000 USD, then are safe."""
    floors, rates = np.array([[[0, 1000.0, INF]]]), np.array([[[0.01, 0.02, 0.02]]])
    world = world_of(staging="tiers", tier_floor=floors, tier_rate=rates, fee=0.001, fee_in_trigger=False)
    price = (20 * 100 - 200 - 10) / (20 * 0.98) - 1e-6
    out = simulate(world, accounts_of((20.0, 200.0)), path_to(price))
    assert out["account_quantity"][0, 0] == pytest.approx(1000 / price)
    closed = 20 - 1000 / price
    assert out["surplus"][0, 0] == pytest.approx(0.001 * closed * price)
    assert out["account_cash"][0] == pytest.approx(200 + closed * (price - 100) - 0.001 * closed * price)
    assert out["accounts_liquidated"][0, 0] == 1
    lowest = simulate(replace(world, whole_below=np.array([2])), accounts_of((20.0, 200.0)), path_to(price))
    assert lowest["account_quantity"][0, 0] == 0


def test_queue_admits_by_throughput_and_does_not_rescue():
    world = world_of(throughput=40.0, surplus_to_pool=False)
    out = simulate(world, accounts_of((1.0, 10.0)), path_to(90.0, 95.0, 80.0, 80.0))
    assert out["liquidation_volume"][0, 0, 0, 0] == pytest.approx(40 + 40 + 80 * (1 - 40 / 90 - 40 / 95))
    assert out["first_round_volume"].sum() == pytest.approx(90)
    average = 40 + 40 + 80 * (1 - 40 / 90 - 40 / 95)
    assert out["account_cash"][0] + out["surplus"].sum() - out["deficit"].sum() == pytest.approx(average - 90, abs=1e-9)


def test_what_waits_is_not_tested_again():
    """20 coins go down to 1,000 USD at 40 USD a minute; bankrupt in the second minute, the slice stays what it was."""
    floors, rates = np.array([[[0, 1000.0, INF]]]), np.array([[[0.01, 0.02, 0.02]]])
    world = world_of(staging="tiers", tier_floor=floors, tier_rate=rates, throughput=40.0)
    out = simulate(world, accounts_of((20.0, 200.0)), path_to(91.0, 80.0, 80.0))
    assert out["first_round_volume"].sum() == pytest.approx(20 * 91 - 1000)


def test_a_fee_on_a_partial_close_takes_no_more_than_the_equity():
    """5 % of 820 USD is 41; equity is 20."""
    floors, rates = np.array([[[0, 1000.0, INF]]]), np.array([[[0.01, 0.02, 0.02]]])
    world = world_of(staging="tiers", tier_floor=floors, tier_rate=rates, fee=0.05, rounds=1)
    out = simulate(world, accounts_of((20.0, 200.0)), path_to(91.0))
    assert out["surplus"].sum() == pytest.approx(20)
    assert out["account_quantity"][0, 0] == pytest.approx(1000 / 91)


def test_socialised_profit_is_not_taken_twice():
    """At 80 the first short pays 6 of its 40. At 70 a coin is deleveraged by profits 60 and 20; then the deficit of 8
    is shared by profits of 37.5 less 3.75 and 17.5."""
    world = world_of(pool_cash=4.0, adl_rank="pro_rata", adl_close="mark", rounds=1)
    accounts = accounts_of((1.0, 10.0), (1.0, 22.0), (-2.0, 100.0), (-2.0, 100.0, 80.0))
    out = simulate(world, accounts, path_to(80.0, 70.0))
    assert out["account_quantity"][2:, 0] == pytest.approx([-1.25, -1.75])
    paid = 8 * np.array([33.75, 17.5]) / 51.25
    assert out["account_cash"][2:] == pytest.approx([100 - 6 + 0.75 * 30 - paid[0], 100 + 0.25 * 10 - paid[1]])


def test_drawdown_starts_adl():
    """The pool falls by 30 of 100 in the first step; in the second every slice goes straight to adl, at the mark."""
    world = world_of(pool_cash=100.0, adl_share=0.3, straight_to_adl=True, adl_close="mark", surplus_to_pool=False)
    accounts = accounts_of((3.0, 30.0), (1.0, 30.0), (-2.0, 100.0))
    out = simulate(world, accounts, path_to(80.0, 70.5))
    assert out["absorbed_volume"][0, 0, 0] == pytest.approx([240, 0, 0, 70.5, 0])
    assert out["account_cash"][1:] == pytest.approx([0.5, 100 + 29.5])


def test_funding_is_paid_between_holders():
    world = world_of(funding_interval_s=120.0, funding_interest=0.0001, funding_clamp=0.0005)
    out = simulate(world, accounts_of((2.0, 100.0), (-1.0, 100.0)), np.zeros((5, 1)))
    assert out["account_cash"] == pytest.approx([100 - 2 * 2 * 0.01, 100 + 2 * 0.01])
    assert out["open_interest"][0, 0, 0] == pytest.approx(200)


def test_ledger_balances_and_layers_add_up():
    rng = np.random.default_rng(1)
    out = simulate(busy_world(), crowd(400, rng), crash(rng))
    assert out["ledger_residual"] < 1e-12
    assert np.all(out["absorbed_volume"].sum(axis=(0, 1, 2))[:4] > 0)
    assert np.all(out["liquidation_volume"].sum(axis=(0, 1, 2)) > 0)
    assert out["socialised_loss"].sum() > 0
    np.testing.assert_allclose(out["absorbed_volume"].sum(3), out["liquidation_volume"].sum(3), rtol=1e-12, atol=1e-9)


def test_count_is_copies():
    rng = np.random.default_rng(2)
    accounts, path = crowd(120, rng), crash(rng)
    fields = {k: getattr(accounts, k) for k in ("venue", "quantity", "entry", "cash", "coins")}
    counted = simulate(busy_world(), Accounts(**fields, count=np.full(120, 3.0)), path)
    copied = simulate(
        busy_world(), Accounts(**{k: np.repeat(v, 3, axis=0) for k, v in fields.items()}, count=np.ones(360)), path
    )
    for name in counted.keys() - {"account_quantity", "account_cash", "account_coins", "ledger_residual"}:
        np.testing.assert_allclose(copied[name], counted[name], rtol=1e-9, atol=1e-6, err_msg=name)
    assert counted["liquidation_volume"].sum() > 0


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="staging"):
        simulate(world_of(staging="all"), accounts_of((1.0, 10.0)), path_to(100.0))
