"""Hand-computed cases of auto-deleveraging: water filling, when it starts, and what its policies are judged by."""

from dataclasses import replace

import numpy as np
import pytest

from .twin import simulate
from .worlds import accounts_from, accounts_of, busy_world, crash, cross_crowd, path_to, paths_to, world_of


def test_water_filling_lowers_the_highest_leverage():
    """At 80 leverages are 4, 2 and 1; a coin less brings the first two to 1.6: 0.6 and 0.4 coins."""
    world = world_of(pool_cash=0.0, adl_rank="water_filling", adl_close="mark", rounds=1)
    winners = (-1.0, 0.0), (-2.0, 40.0), (-1.0, 60.0)
    out = simulate(world, accounts_of((1.0, 10.0), *winners), path_to(80.0))
    assert out["account_quantity"][1:, 0] == pytest.approx([-0.4, -1.6, -1])
    little = simulate(world, accounts_of((0.25, 2.5), *winners), path_to(80.0))
    assert little["account_quantity"][1:, 0] == pytest.approx([-0.75, -2, -1])
    all_of_it = simulate(world, accounts_of((4.5, 45.0), *winners), path_to(80.0))
    assert np.all(all_of_it["account_quantity"][1:, 0] == 0)
    assert all_of_it["absorbed_volume"][0, 0, 0] == pytest.approx([0, 0, 0, 320, 40])


def test_water_filling_counts_copies_and_other_positions():
    """Leverage 8 with 80 USD of B at an equity of 20 (two copies), 1 alone: both copies close what they have of A."""
    world = world_of(assets=2, pool_cash=0.0, adl_rank="water_filling", adl_close="mark", rounds=1)
    loser = {"legs": {0: 2.5}, "cash": 25.0}
    both = {"legs": {0: -1.0, 1: 0.8}, "count": 2.0}
    alone = {"legs": {0: -1.0}, "cash": 60.0}
    out = simulate(world, accounts_from(loser, both, alone), paths_to((80.0, 100.0)))
    assert out["account_quantity"][1:, 0] == pytest.approx([0, -0.5])


@pytest.mark.parametrize(("leftover", "pool", "layer"), [(True, 1e6, 3), (False, 1e6, 4), (False, 0.0, 3)])
def test_left_over_slices_start_adl_where_the_venue_says_so(leftover, pool, layer):
    """Nothing fits into the book. A pool that is exhausted starts ADL in any case."""
    world = world_of(take_bound=0.0, i_ref=0.01, adl_leftover=leftover, pool_cash=pool, rounds=1)
    out = simulate(world, accounts_of((1.0, 10.0), (-2.0, 100.0)), path_to(90.5))
    assert np.argmax(out["absorbed_volume"][0, 0, 0]) == layer


def who_pays(rank: str, **changes):
    """Ten coins at 90 against a mark of 80 to one winner of 5 coins and nine of 1 coin: profits 100 and 20."""
    world = world_of(pool_cash=0.0, adl_rank=rank, rounds=1, **changes)
    accounts = accounts_of((10.0, 100.0), (-5.0, 500.0), (-1.0, 20.0, 100.0, 9.0))
    return {k: v[0, 0] for k, v in simulate(world, accounts, path_to(80.0)).items() if k.startswith("adl")}


def test_who_pays_pro_rata():
    """100 of 280 USD of profit: 100 / 2.8 of the loss of 100, which is the top tenth of the ten winners."""
    out = who_pays("pro_rata")
    assert out["adl_top_10_share"] == pytest.approx(1 / 2.8)
    assert out["adl_top_share"] == pytest.approx(0.1 / 2.8)
    assert out["adl_top_keeps_of_total"] == pytest.approx(1 - 1 / 2.8)
    assert out["adl_top_keeps_of_largest"] == pytest.approx(1.8)
    assert out["adl_haircut"] == pytest.approx(100)
    assert out["adl_overshoot"] == pytest.approx(0, abs=1e-9)
    assert out["adl_open_interest"] == pytest.approx(800 / 1400)


def test_who_pays_in_a_queue():
    """Leverages 2 and 400 / 600: the nine close all they have and the top winner one coin; it loses as much as each."""
    out = who_pays("queue")
    assert out["adl_top_10_share"] == pytest.approx(0.1)
    assert out["adl_top_keeps_of_total"] == pytest.approx(0.9)
    assert out["adl_top_keeps_of_largest"] == pytest.approx(9)


def test_nobody_pays_at_the_mark():
    """The losers lack 100 and the winners lose nothing: an undershoot of 100, and no shares."""
    out = who_pays("pro_rata", adl_close="mark")
    assert np.isnan(out["adl_top_share"])
    assert out["adl_overshoot"] == pytest.approx(-100)


def test_a_gain_of_the_winners_is_no_loss():
    """A long that is not bankrupt is left over: the short closes at 90 where the mark is 90.5."""
    world = world_of(take_bound=0.0, i_ref=0.01, rounds=1)
    out = simulate(world, accounts_of((1.0, 10.0), (-2.0, 100.0)), path_to(90.5))
    assert out["adl_haircut"].sum() == pytest.approx(-0.5)
    assert out["adl_loss"].sum() == 0
    assert np.isnan(out["adl_top_keeps_of_total"][0, 0])


def test_overshoot_against_what_bankrupt_losers_lack():
    """At 76 one long is bankrupt since 90, one at 75.5: winners lose 14 and gain 0.5, where 14 was lacking."""
    world = world_of(take_bound=0.0, i_ref=0.01, rounds=1)
    out = simulate(world, accounts_of((1.0, 10.0), (1.0, 24.5), (-5.0, 300.0)), path_to(76.0))
    assert out["adl_overshoot"][0, 0, 0] == pytest.approx(-0.5)


@pytest.mark.parametrize("rank", ["queue", "pro_rata", "water_filling"])
def test_random_cross_books_balance_under_every_policy(rank):
    rng = np.random.default_rng(7)
    world = replace(busy_world(), adl_rank=np.full(2, rank), adl_leftover=np.array([True, False]))
    out = simulate(world, cross_crowd(200, rng, coins=0.3), crash(rng))
    assert out["ledger_residual"] < 1e-12
    assert np.all(out["adl_volume"].sum(axis=(0, 2)) > 0)
    flat = np.all(out["account_quantity"] == 0, axis=1)
    assert np.all(out["account_cash"][flat] > -1e-9)
    assert np.nanmax(out["adl_top_share"]) <= np.nanmax(out["adl_top_10_share"]) <= 1
