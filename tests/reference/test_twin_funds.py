"""Hand-computed cases of backstop vaults and of transfers between pools."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from .twin import simulate
from .worlds import accounts_from, accounts_of, busy_world, crash, cross_crowd, path_to, paths_to, world_of

LONG = (1.0, 10.0)  # liquidated at 90 / 0.99, bankrupt at 90; at 90.5 equity is 0.5, maintenance 0.905


def vault_world(**changes):
    """No book, a vault of 50 USD that may hold 1,000; its layer is the fourth."""
    values: dict[str, Any] = {"take_bound": 0.0, "i_ref": 0.01, "pool_cash": 1e3, "surplus_to_pool": False}
    values |= {"vault_cash": 50.0, "vault_capacity": 1000.0} | changes
    return world_of(**values)


def test_a_vault_takes_over_and_unwinds_for_its_own_account():
    """Taken at 90 at a mark of 90.5, of which 30 USD are sold there and 30 at 80; impact is 2e-5."""
    out = simulate(vault_world(), accounts_of(LONG), path_to(90.5))
    assert out["absorbed_volume"][0, 0, 0] == pytest.approx([0, 0, 0, 90.5, 0, 0])
    assert out["vault_equity"][0, 0] == pytest.approx(50.5)
    assert out["vault_profit"][0, 0] == pytest.approx(0.5)
    assert out["fund_equity"][0, 0] == 1e3
    assert out["account_cash"][0] == pytest.approx(0, abs=1e-12)
    out = simulate(vault_world(vault_unwind=30.0), accounts_of(LONG), path_to(90.5, 80.0))
    left = 1 - 30 / 90.5 - 30 / 80
    assert out["open_interest"][0, 0, 0] == pytest.approx(80 * left, rel=1e-4)
    assert out["vault_equity"][0, 0] == pytest.approx(50 - 90 + 30 + 30 + left * 80, rel=1e-4)


def test_profit_is_counted_by_the_hour():
    out = simulate(vault_world(), accounts_of(LONG), path_to(*[90.5] * 60, *[70.0] * 60))
    assert out["vault_profit"][:, 0] == pytest.approx([0.5, -20.5])
    assert out["vault_equity"][:, 0] == pytest.approx([50.5, 30.0])


@pytest.mark.parametrize(("price", "layer"), [(90.61, 5), (90.6, 3)])
def test_a_vault_enters_below_two_thirds_of_maintenance(price, layer):
    """Equity is 2/3 of maintenance at 90 / (1 - 0.02 / 3) = 90.604."""
    out = simulate(vault_world(), accounts_of(LONG), path_to(price))
    assert np.argmax(out["absorbed_volume"][0, 0, 0]) == layer


def test_the_entry_rule_sees_the_haircut():
    """10 USD of tokens at a tenth off: equity of 1.2 is 0.2 under the haircut, below 2/3 of 0.912."""
    world = vault_world(assets=2, haircut=np.array([[0.0, 0.1]]))
    out = simulate(world, accounts_from({"legs": {0: 1.0}, "coins": {1: 0.1}}), paths_to((91.2, 100.0)))
    assert np.argmax(out["absorbed_volume"][0, 0, 0]) == 3


def test_profit_has_bounds():
    """At 90.5 the profit is 0.55 % of the mark: at most 0.2 %, the account keeps the rest; at least 1 %: a deficit."""
    most = simulate(vault_world(vault_profit=np.array([[0.0, 0.002]])), accounts_of(LONG), path_to(90.5))
    assert most["vault_equity"][0, 0] == pytest.approx(50 + 0.181)
    assert most["account_cash"][0] == pytest.approx(0.5 - 0.181)
    least = simulate(vault_world(vault_profit=np.array([[0.01, 0.02]])), accounts_of((-1.0, 10.0)), path_to(109.5))
    assert least["vault_equity"][0, 0] == pytest.approx(50 + 1.095)
    assert least["deficit"][0, 0] == pytest.approx(1.095 - 0.5)
    none = simulate(vault_world(vault_profit=np.array([[0.0, 0.02]])), accounts_of(LONG), path_to(85.0))
    assert none["deficit"][0, 0] == pytest.approx(5)
    assert none["vault_equity"][0, 0] == pytest.approx(50)


def test_capacity_is_shared_by_the_markets_and_counts_what_is_held():
    """Two longs of 90.5 USD in two markets: a capacity of 100 takes 50 of either, a fall frees 0.3 of it."""
    world = vault_world(assets=2, vault_capacity=100.0)
    both = {"legs": {0: 1.0}, "cash": 10.0}, {"legs": {1: 1.0}, "cash": 10.0}, {"legs": {0: 1.0}, "cash": 10.42}
    out = simulate(world, accounts_from(*both), paths_to((90.5, 90.5), (89.95, 90.5)))
    assert out["absorbed_volume"][0, 0, :, 3] == pytest.approx([50 + 50 * 0.55 / 90.5, 50])


def test_a_vault_without_equity_takes_nothing():
    """A loss of 60 on 50 USD: taken at 90, marked at 30; the second long is then left over."""
    world = vault_world()
    out = simulate(world, accounts_of(LONG, (1.0, 70.0)), path_to(90.5, 30.2))
    assert out["vault_equity"][0, 0] == pytest.approx(50 - 90 + 30.2)
    assert out["absorbed_volume"][0, 0, 0] == pytest.approx([0, 0, 0, 90.5, 0, 30.2])


def test_a_vault_stands_in_for_an_exhausted_pool():
    """The pool is empty and the long bankrupt at 85: book and takeover are skipped, the vault is not."""
    world = vault_world(pool_cash=0.0, take_bound=0.5)
    out = simulate(world, accounts_of(LONG), path_to(85.0))
    assert out["absorbed_volume"][0, 0, 0] == pytest.approx([0, 0, 0, 85, 0, 0])
    assert out["vault_equity"][0, 0] == pytest.approx(45)


def pools_of(cash, floor, source):
    """Three markets with a pool each."""
    arrays: dict[str, Any] = {
        "pool_cash": np.array(cash),
        "transfer_floor": np.array(floor),
        "transfer_from": np.array(source),
    }
    return world_of(assets=3, pool=np.array([[0, 1, 2]]), **arrays)


def test_pools_are_topped_up():
    """Pool 0 gives what it has above 80; the others lack 10 and 30."""
    flat = np.zeros((1, 3))
    nobody = accounts_from({"legs": {0: 1.0}, "cash": 100.0}, assets=3)
    rich = simulate(pools_of([200.0, 40.0, 20.0], [80.0, 50.0, 50.0], [-1, 0, 0]), nobody, flat)
    assert rich["fund_equity"][0] == pytest.approx([160, 50, 50])
    poor = simulate(pools_of([100.0, 40.0, 20.0], [80.0, 50.0, 50.0], [-1, 0, 0]), nobody, flat)
    assert poor["fund_equity"][0] == pytest.approx([80, 45, 35])
    chain = simulate(pools_of([100.0, 40.0, 20.0], [80.0, 50.0, 50.0], [-1, 0, 1]), nobody, flat)
    assert chain["fund_equity"][0] == pytest.approx([90, 50, 20])
    assert poor["ledger_residual"] < 1e-15


def test_a_transfer_follows_the_deficit():
    """A deficit of 10 takes 10 of 15 USD; at the step's end the pool is back at its 15."""
    accounts = accounts_from({"legs": {1: 1.0}, "cash": 10.0}, assets=3)
    world = pools_of([100.0, 15.0, 20.0], [80.0, 15.0, 0.0], [-1, 0, -1])
    out = simulate(world, accounts, paths_to((100.0, 80.0, 100.0)))
    assert out["deficit"][0] == pytest.approx([0, 10, 0])
    assert out["fund_equity"][0] == pytest.approx([90, 15, 20])
    assert out["fund_low"][0] == pytest.approx([90, 5, 20])


def test_random_books_with_vaults_and_transfers_balance():
    rng = np.random.default_rng(6)
    world = replace(busy_world(), vault_cash=np.array([300.0, 50.0]), vault_capacity=np.array([4e3, 1e3]),
                    vault_unwind=np.full((2, 2), 100.0), vault_profit=np.array([[-np.inf, np.inf], [0.005, 0.025]]),
                    vault_entry=np.array([2 / 3, 10.0]), transfer_from=np.array([1, -1]),
                    transfer_floor=np.array([100.0, 50.0]))  # fmt: skip
    out = simulate(world, cross_crowd(200, rng, coins=0.3), crash(rng))
    assert out["ledger_residual"] < 1e-12
    assert np.all(out["absorbed_volume"].sum(axis=(0, 1, 2))[:5] > 0)
    assert np.all(out["vault_profit"][0] != 0)
