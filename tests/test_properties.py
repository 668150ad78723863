"""What holds in any small world: nothing is created, nobody pays more than he has, a settled step changes nothing,
copies count, and more or less of something acts one way. One compiled program in 64 bits serves all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.drawn import (
    CALM,
    RULES,
    START,
    STEPS,
    Crowd,
    Seen,
    World,
    crowd,
    dust,
    examples,
    log_indices,
    rules,
    total,
    walked,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("worlds")


def equity(world: World, seen: Seen) -> np.ndarray:
    """Of all accounts at the end of every step [USD], (step k p b)."""
    quotes = seen.state.quotes
    return world.equity(seen.holdings, np.exp(quotes.mark), np.exp(quotes.spot))


@given(rules())
@examples(10)
def test_nothing_is_created(folder, drawn):
    """Money by currency and contracts by market add up over all parties, to rounding."""
    _, seen = walked(drawn, folder)
    assert seen.residual.max() < 1e-13


@given(rules())
@examples(8)
def test_accounts_hold_what_the_ledger_says(folder, drawn):
    """At the venue without ladders the contracts, cash and coins of all accounts add up to those booked for traders."""
    world, seen = walked(drawn, folder)
    held, stocks, accounts = seen.holdings, seen.record.stocks, world.accounts
    here, inverse = accounts.venue == 1, world.rules.inverse[1][:, None]
    count = accounts.count[here][:, None, None]

    def owned(quantity: np.ndarray, money: np.ndarray, coins: np.ndarray, paid: np.ndarray) -> np.ndarray:
        """Cash, then coins, without what open positions are worth (c, step p)."""
        cost = quantity * (np.where(inverse, -1.0, 1.0) + paid)
        usd = money - np.where(inverse, 0.0, cost).sum(axis=-2)
        each = np.concatenate([usd[..., None, :], coins - np.where(inverse, cost, 0.0)], axis=-2)
        return np.sum(count * each, axis=(-4, -1))

    paid = world.of_accounts(held.paid)[:, here]
    after = owned(held.quantity[:, here], held.money[:, here], held.coins[:, here], paid)
    opening = accounts.quantity[here], accounts.equity[here], accounts.collateral.coins[here]
    quantity, money, coins = (x[:, None] for x in opening)
    before = owned(quantity, money, coins, np.zeros(1))
    booked = np.moveaxis(total(stocks.traders_cash)[:, :, 1], 1, -1)
    assert np.all(np.abs(after - before - booked) <= 1e-12 * np.moveaxis(stocks.gross_cash, 1, -1))
    for s, sign in enumerate((1, -1)):
        contracts = np.sum(count * np.maximum(sign * held.quantity[:, here], 0.0), axis=(1, -1))
        traders = sign * np.moveaxis(total(stocks.traders)[:, 1, :, s], 1, -1)
        assert np.all(np.abs(contracts - traders) <= 1e-12 * stocks.gross_coins[..., None])


@given(rules())
@examples(8)
def test_nobody_without_positions_owes_anything(folder, drawn):
    """Whose last position is gone has at least nothing of every currency: what he lacked is the pools'."""
    world, seen = walked(drawn, folder)
    held = seen.holdings
    flat = world.there & np.all(held.quantity == 0, axis=-2)
    assert flat.any()
    assert np.all(held.money[flat] >= 0)
    assert np.all(np.moveaxis(held.coins, -2, -1)[flat] >= 0)


@given(rules(i_ref=0.0, throughput_usd_per_minute=1e15))
@examples(8)
def test_nobody_who_goes_on_is_bankrupt(folder, drawn):
    """Without impact and queue all who are bankrupt are closed in their step, and neither fees nor deleveraging nor
    socialised losses take more than there is; who pauses after a partial close is not looked at."""
    world, seen = walked(drawn, folder)
    held = seen.holdings
    pausing = held.rests.until > np.arange(STEPS)[:, None, None, None]
    going_on = world.there & np.any(held.quantity != 0, axis=-2) & ~pausing
    left = equity(world, seen) / world.notional
    assert left[going_on].min() > -1e-9


@given(rules(ranking="pro_rata", pool_usd=1e5, take_bound_bps=10, leftover=True, i_ref=0.01, way="two ways"))
@examples(6)
def test_deleveraging_leaves_no_dust(folder, drawn):
    """A winner's position is either there or gone: a rest by rounding would keep his account from being settled."""
    world, seen = walked(drawn, folder)
    start = np.abs(world.accounts.quantity)[:, None]
    left = np.abs(seen.holdings.quantity) / np.where(start > 0, start, 1.0)
    assert np.any(seen.holdings.deleveraged)
    assert not np.any((left > 0) & (left < 1e-12))


@given(rules(staging="full", funding=False), st.sampled_from([-1.0, 1.0]), st.floats(0.03, 0.2))
@examples(8)
def test_an_isolated_position_loses_at_most_its_margin(folder, drawn, sign, margin):
    """One position of a million USD on a ladder, closed whole; nobody else is at its venue but for a few dollars."""
    people = crowd(drawn["seed"], drawn["coins"])
    tiny = np.where(people.venue == 0, 1e-9, 1.0)
    people = replace(
        people,
        **{name: getattr(people, name) * tiny[:, None] for name in ("quantity", "coins")},
        usd=people.usd * tiny,
        isolated=[(0, sign * 1e4, START, margin * 1e6, 1), *dust(START)],
    )
    _, seen = walked(drawn, folder, people)
    stocks = seen.record.stocks
    mark = np.exp(seen.state.quotes.mark[:, 0])
    held = np.sum(total(stocks.traders)[:, 0], axis=2)
    owns = margin * 1e6 - sign * 1e6 + total(stocks.traders_cash)[:, 0, 0] + np.sum(held * mark, axis=1)
    gone = np.abs(held[:, 0]) < 1e3
    assert np.all(owns[gone] >= -10.0)


@given(rules(funding=False, unwind_usd_per_minute=0, floor_usd=0.0))
@examples(8)
def test_a_step_in_which_nobody_is_closed_moves_nothing(folder, drawn):
    """Without funding, unwinding and transfers only closings move money and contracts."""
    _, seen = walked(drawn, folder)
    volume = seen.record.hour.layers.sum(axis=(1, 2, 3, 4))
    still = volume[1:] == volume[:-1]
    assert still.any()
    for name, stock in stocks_of(seen).items():
        before, after = (np.moveaxis(x, -1, 1)[still] for x in (stock[:-1], stock[1:]))
        np.testing.assert_array_equal(after, before, err_msg=name)


@given(rules(i_ref=0.0, throughput_usd_per_minute=1e15, funding=False, unwind_usd_per_minute=0, way="one jump"))
@examples(8)
def test_a_settled_step_changes_nothing(folder, drawn):
    """At a standing price the accounts come to rest, and pools with them, but for a last cent of a transfer."""
    _, seen = walked(drawn, folder)
    assert seen.record.hour.layers[-1].sum() > 1e6
    for name, stock in stocks_of(seen).items():
        np.testing.assert_allclose(stock[-1], stock[SETTLED], rtol=0, atol=0.01, err_msg=name)


SETTLED = 16
"""Step after which nothing moves any more, if prices stand still from step 8 on."""


def stocks_of(seen: Seen) -> dict[str, np.ndarray]:
    """What everybody holds after each step, and the sums of what was paid; steps first, paths last."""
    held, funds, hour = seen.holdings, seen.state.funds, seen.record.hour
    accounts = {
        name: np.moveaxis(getattr(held, name), 2, -1) for name in ("quantity", "waiting", "money", "coins", "due")
    }
    pools = {"cash": total(funds.cash), "coins": total(funds.coins), "inventory": total(funds.inventory)}
    vault = {"vault": total(funds.vault.cash), "of the vault": total(funds.vault.inventory)}
    paid = {name: getattr(hour, name) for name in ("layers", "accounts", "deficit", "surplus", "socialised")}
    return accounts | pools | vault | paid | {"traders": total(seen.record.stocks.traders_cash)}


@given(rules())
@examples(8)
def test_an_account_that_counts_n_is_n_accounts(folder, drawn):
    """With coins, inverse positions, ladders and every rule; each copy ends as the one that counts for it."""
    people = crowd(drawn["seed"], drawn["coins"])
    (one, once), (many, each) = (walked(drawn, folder, who) for who in (people, people.copied()))
    volume = once.record.hour.layers[-1].sum()
    alike = {
        name: x for name, x in stocks_of(once).items() if name not in ("quantity", "waiting", "money", "coins", "due")
    }
    for name, stock in alike.items():
        np.testing.assert_allclose(stocks_of(each)[name], stock, rtol=1e-9, atol=1e-7 * volume, err_msg=name)
    for name in ("quantity", "money"):
        np.testing.assert_allclose(
            in_order(many, getattr(each.holdings, name)), in_order(one, getattr(once.holdings, name)),
            rtol=1e-7, atol=1e-2, err_msg=name,
        )  # fmt: skip


def in_order(world: World, held: np.ndarray) -> np.ndarray:
    """What every copy of an account holds in the end, by equity at the start, (copy p ...)."""
    count = world.accounts.count
    rows = np.moveaxis(held[-1], -1, 1)[count > 0]
    order = np.argsort(world.accounts.equity[count > 0], kind="stable")
    return np.repeat(rows[order], count[count > 0][order].astype(int), axis=0)


MORE_OR_LESS = {
    name: RULES[name] for name in ("seed", "coins", "inverse", "way", "funding", "fee_in_trigger", "off_peg")
}
"""What does not let one account touch another."""


def liquidated(drawn: dict[str, Any], folder: Path, cash: float = 1.0, **changes: Any) -> np.ndarray:
    """Accounts liquidated until each step, (step v p), where nobody moves a price or asks a winner."""
    people = crowd(drawn["seed"], drawn["coins"], leverage=(3, 12))
    more = (cash - 1) * START * np.abs(people.quantity).sum(axis=1) / 12
    isolated = [(*row[:3], row[3] * cash, row[4]) for row in people.isolated]
    _, seen = walked(CALM | drawn | changes, folder, replace(people, usd=people.usd + more, isolated=isolated))
    return seen.record.hour.accounts


def test_larger_haircuts_never_liquidate_fewer(folder):
    never_fewer(folder, {}, {"haircuts": {"A": 0.3, "B": 0.2, "T": 0.4}})


def test_more_cash_never_liquidates_more(folder):
    never_fewer(folder, {"cash": 1.3}, {})


def test_higher_maintenance_never_liquidates_fewer(folder):
    never_fewer(folder, {}, {"maintenance": 1.5})


def never_fewer(folder: Path, fewer: dict[str, Any], more: dict[str, Any]) -> None:
    """One world never liquidates more accounts than another until any step, and at least once it liquidates less."""
    differ = []

    @given(st.fixed_dictionaries(MORE_OR_LESS))
    @examples(5)
    def in_any_world(drawn):
        few, many = liquidated(drawn, folder, **fewer), liquidated(drawn, folder, **more)
        assert np.all(few <= many)
        differ.append(np.any(few < many))

    in_any_world()
    assert any(differ)


def test_published_inverse_bankruptcy_price(folder):
    """Bybit: a long at 7890.08 USD of 50 times leverage is bankrupt at 7735.37 USD; there a rich pool takes it over."""
    entry, contracts = 7890.08, 1e6
    quantity, usd, coins = np.zeros((40, 2)), np.full(40, 1e6), np.zeros((40, 3))
    quantity[:, 1] = 1e-3
    quantity[-1], usd[-1], coins[-1, 0] = (contracts / entry, 0), 0.0, contracts / entry / 50
    people = Crowd(
        venue=np.repeat([0, 1], 20), quantity=quantity, entry=np.tile([entry, START], (40, 1)), usd=usd, coins=coins,
        count=np.ones(40, int), isolated=dust(entry),
    )  # fmt: skip
    rich = {"inverse": "A", "take_bound_bps": 1e-6, "i_ref": 0.01, "pool_usd": 2e9, "takeover_multiple": 3}
    prices = {"start": {"A": entry, "B": START, "T": START}}
    world = World.of(CALM | rich, people, folder, prices=prices)
    path = np.zeros_like(log_indices("crash", 0))
    path[1:, 0] = np.log(7750 / entry)
    seen = world.walk(path)
    funds, held = seen.state.funds, seen.holdings
    assert total(funds.inventory)[-1, 1, 0] == pytest.approx(contracts)
    paid = total(funds.coins)[-1, 1, 0] / entry
    assert contracts / paid == pytest.approx(7735.37, abs=0.005)
    assert np.abs(held.coins[-1, 1, :, 0]).max() < 1e-6 * contracts
