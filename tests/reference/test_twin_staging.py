"""Hand-computed cases of partial closes with a pause: a fraction first, or as much as restores the margin."""

from dataclasses import replace

import numpy as np
import pytest

from .twin import simulate
from .worlds import INF, accounts_from, accounts_of, busy_world, crash, cross_crowd, path_to, world_of

LONG = (10.0, 55.0)


def sizes(world, accounts, *prices: float) -> list[float]:
    """Position of the first account after every step."""
    steps = range(1, len(prices) + 1)
    return [float(simulate(world, accounts, path_to(*prices[:n]))["account_quantity"][0, 0]) for n in steps]


def by_fraction(**changes):
    return world_of(staging="fraction", fraction=0.2, cooldown_s=120.0, surplus_to_pool=False, **changes)


def test_a_fraction_first_and_the_rest_after_the_pause():
    """At 95 equity is 5, maintenance 9.5: a fifth goes, and the rest when the account is tested again."""
    assert sizes(by_fraction(), accounts_of(LONG), 95.0, 95.0, 95.0, 95.0) == pytest.approx([8, 8, 0, 0])


def test_an_account_is_not_tested_in_the_pause():
    """Not even at 80, where it is bankrupt; a pause that no step divides ends with the next step."""
    assert sizes(by_fraction(), accounts_of(LONG), 95.0, 80.0, 80.0) == pytest.approx([8, 8, 0])
    short = replace(by_fraction(), cooldown_s=np.array([61.0]))
    assert sizes(short, accounts_of(LONG), 95.0, 80.0, 80.0) == pytest.approx([8, 8, 0])
    none = replace(by_fraction(), cooldown_s=np.array([0.0]))
    assert sizes(none, accounts_of(LONG), 95.0) == pytest.approx([0])


def test_a_test_that_is_passed_begins_anew():
    """Safe at 97 (equity 21), then a fifth of the 8 coins goes at 95 (equity 5, maintenance 7.6)."""
    assert sizes(by_fraction(), accounts_of(LONG), 95.0, 97.0, 97.0, 95.0) == pytest.approx([8, 8, 8, 6.4])


@pytest.mark.parametrize(("lot", "left"), [(0.7, 10 - 2.1), (0.5, 8), (4.0, 6), (20.0, 0)])
def test_a_fraction_is_rounded_up_to_lots(lot, left):
    assert sizes(by_fraction(lot=lot), accounts_of(LONG), 95.0) == pytest.approx([left])


def test_rounding_does_not_add_a_lot():
    """A tenth of 3 coins is three lots of 0.1, though 0.1 x 3 / 0.1 is more than 3 in floating point."""
    world = replace(by_fraction(lot=0.1), fraction=np.array([0.1]))
    assert sizes(world, accounts_of((3.0, 16.5)), 95.0) == pytest.approx([2.7])


def test_small_and_bankrupt_accounts_close_whole():
    assert sizes(by_fraction(fraction_above=950.0 + 1e-9), accounts_of(LONG), 95.0) == pytest.approx([0])
    assert sizes(by_fraction(fraction_above=950.0 - 1e-9), accounts_of(LONG), 95.0) == pytest.approx([8])
    assert sizes(by_fraction(), accounts_of(LONG), 94.5) == pytest.approx([0])


def test_a_pause_after_tiers():
    """Tiers of 1 % to 300 USD, 2 % to 600, 3 % above (D = 3, 9): 950 USD goes to 600, and a minute later to 300."""
    floors, rates = np.array([[[0, 300.0, 600.0, INF]]]), np.array([[[0.01, 0.02, 0.03, 0.03]]])
    world = world_of(staging="tiers", tier_floor=floors, tier_rate=rates, cooldown_s=60.0)
    assert sizes(world, accounts_of(LONG), 95.0, 95.0) == pytest.approx([600 / 95, 300 / 95])
    at_once = replace(world, cooldown_s=np.zeros(1))
    assert sizes(at_once, accounts_of(LONG), 95.0) == pytest.approx([300 / 95])


def by_target(target: float = 1.5, **changes):
    return world_of(staging="restore", restore_target=target, surplus_to_pool=False, **changes)


def test_as_much_as_restores_the_margin():
    """Equity 5 is one and a half times the maintenance of 5 / (1.5 x 0.95) coins."""
    assert sizes(by_target(), accounts_of(LONG), 95.0, 95.0) == pytest.approx([5 / 1.425] * 2, rel=1e-12)
    counted = by_target(fee=0.005, fee_in_trigger=True, rounds=1)
    out = simulate(counted, accounts_of(LONG), path_to(95.0))
    left = 5 / (1.5 * 0.015 * 95)
    assert out["account_quantity"][0, 0] == pytest.approx(left, rel=1e-12)
    assert out["surplus"].sum() == pytest.approx(0.005 * 95 * (10 - left))


def test_restoring_follows_the_tiers():
    """2 % above 300 USD (D = 3): 950 USD need 16. With equity 5, 1.25 times (0.02 n - 3) is 5 at n = 350."""
    world = by_target(1.25, tier_floor=np.array([[[0, 300.0]]]), tier_rate=np.array([[[0.01, 0.02]]]))
    assert sizes(world, accounts_of(LONG), 95.0) == pytest.approx([350 / 95], rel=1e-12)


def test_the_same_share_of_every_position():
    """Equity 10, maintenance 10 + 20: a target of 2 leaves 5 of the 30, a sixth of every position."""
    accounts = accounts_from({"legs": {0: 10.0, 1: -20.0}, "cash": 10.0})
    two = world_of(assets=2, staging="restore", restore_target=2.0, rounds=1)
    out = simulate(two, accounts, np.zeros((1, 2)))
    assert out["account_quantity"][0] == pytest.approx([10 / 6, -20 / 6])
    first = replace(two, closing_order=np.array(["riskiest_first"]))
    out = simulate(first, accounts, np.zeros((1, 2)))
    assert out["account_quantity"][0] == pytest.approx([10, 0])  # 10 > 5: all of the riskiest
    out = simulate(first, accounts_from({"legs": {0: 10.0, 1: -20.0}, "cash": 26.0}), np.zeros((1, 2)))
    assert out["account_quantity"][0] == pytest.approx([10, -3])


def test_restoring_sees_the_haircut():
    """20 USD in coins at half: 10 is 2 x 5, where 20 would be 2 x 10 and nothing to do."""
    world = world_of(assets=2, staging="restore", restore_target=2.0, haircut=np.array([[0.0, 0.5]]))
    out = simulate(world, accounts_from({"legs": {0: 10.0}, "coins": {1: 0.2}}), np.zeros((1, 2)))
    assert out["account_quantity"][0, 0] == pytest.approx(5)


@pytest.mark.parametrize("rule", ["fraction", "restore"])
@pytest.mark.parametrize("order", ["proportional", "riskiest_first"])
def test_random_books_balance_under_staging(rule, order):
    rng = np.random.default_rng(5)
    changes = {"staging": np.full(2, rule), "fraction": np.full(2, 0.2), "cooldown_s": np.array([30.0, 150.0]),
               "lot": np.full((2, 2), 0.01), "closing_order": np.full(2, order)}  # fmt: skip
    out = simulate(replace(busy_world(), **changes), cross_crowd(150, rng, coins=0.3), crash(rng))
    assert out["ledger_residual"] < 1e-12
    flat = np.all(out["account_quantity"] == 0, axis=1)
    assert flat.sum() > 10
    assert np.all(out["account_cash"][flat] > -1e-9)
