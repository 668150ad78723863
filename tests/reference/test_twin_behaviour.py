"""Hand-computed cases of what nobody is forced to in the slow twin."""

import numpy as np
import pytest

from .twin import Accounts, simulate
from .twin_behaviour import Cohorts
from .worlds import accounts_of, path_to, world_of


def test_holders_close_and_keep_their_equity():
    """One of 10 coins is sold at 95, at a loss of 5 of the 100 that back them; 95 + 9 (m - 100) = 1 % of 9 m."""
    closing = np.array([[0.1], [0.0]])
    trigger = (900 - 95) / 9 / 0.99
    for price, hit in ((trigger * (1 + 1e-9), 0), (trigger * (1 - 1e-9), 1)):
        out = simulate(world_of(), accounts_of((10.0, 100.0)), path_to(95.0, price), unusual={"closing": closing})
        assert out["voluntary_volume"][0, 0, 0] == pytest.approx([95, 0])
        assert out["accounts_liquidated"].sum() == hit
    assert out["ledger_residual"] < 1e-12


def test_what_longs_and_shorts_do_not_match_goes_to_the_book():
    """Half of 6 coins is sold and half of 2 bought: 2 coins press the book, all trade at the mean along the way."""
    world = world_of(i_ref=0.01, adv=2000.0, mark_rule="index_average")
    accounts = accounts_of((6.0, 600.0), (-2.0, 600.0))
    out = simulate(world, accounts, path_to(100.0), unusual={"closing": np.array([[0.5]])})
    push = 0.01 * np.sqrt(200 / 2000 / 0.01)
    price = 100 * np.exp(-2 / 3 * push)
    assert out["voluntary_volume"][0, 0, 0] == pytest.approx([300, 100])
    assert out["account_cash"] == pytest.approx([600 + 3 * (price - 100), 600 - (price - 100)])
    assert out["index_close"][0, 0] == pytest.approx(np.exp(-0.4 * push))


def test_makers_that_left_do_not_take_part():
    """Of a capacity of 40 USD three quarters have left, and 30 USD has no book."""
    world = world_of(take_bound=0.0, i_ref=0.01, auction_capacity=40.0, adl_leftover=False)
    out = simulate(world, accounts_of((1.0, 10.0)), path_to(90.5), unusual={"absent": np.array([[0.75]])})
    assert out["absorbed_volume"][0, 0, 0] == pytest.approx([0, 10, 0, 0, 80.5])


def test_cohorts_open_at_the_mark_and_close_there():
    """A coin at 100 is two at 50; a step later they close at 60, and the next two steps do the same from 60."""
    nobody = accounts_of((0.0, 0.0), (0.0, 0.0))
    cohorts = Cohorts(np.array([1, 2]), np.array([[1.0], [-1.0]]), np.array([50.0, 50.0]), every=1, places=1)
    out = simulate(world_of(), Accounts(**vars(nobody)), path_to(50.0, 60.0), cohorts=cohorts)
    assert out["opened_volume"][0, 0, 0] == pytest.approx([100, 100])
    assert out["voluntary_volume"][0, 0, 0] == pytest.approx([120, 0])
    assert out["account_quantity"][:, 0] == pytest.approx([0, -100 / 60])
    assert out["account_cash"] == pytest.approx([50 + 2 * (60 - 50), 50])
    assert out["ledger_residual"] < 1e-12
