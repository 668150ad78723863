"""The slow twin's holders: stop orders by which accounts close themselves, and cash that they add when called.

A stop order closes an account whole, in the book, at the mean price along the flow of all stop orders of its market
side, before the forced orders of that side, without fee, bound or engine. It does so only where the account has equity
left at the mark and at the price of all stop orders that have equity at the mark; the others are liquidated, at once.
"""

from __future__ import annotations

import numpy as np

from .twin_accounts import barrier, equities, seen, triggered
from .twin_prices import Prices, mean_book_log
from .twin_state import State


def answer_calls(state: State, prices: Prices) -> None:
    """Accounts that would be liquidated add their cash first, each once: money from outside."""
    more = state.accounts.top_up
    if more is not None:
        answer(state, np.array([n for n in triggered(state, prices) if more[n] > 0 and not state.answered[n]], int))


def answer(state: State, called: np.ndarray) -> None:
    """Add the cash of these rows."""
    more, count = state.accounts.top_up, state.accounts.count
    assert more is not None
    state.cash[called] += more[called]
    state.answered[called] = True
    brought = np.append(np.sum(count[called] * more[called]), np.zeros(state.coins.shape[1]))
    state.opening_money = state.opening_money + brought
    state.gross_money = state.gross_money + brought


def fire(state: State, prices: Prices) -> tuple[bool, np.ndarray]:
    """Execute the stop orders that the present marks have reached; where a venue stands still they wait, and their
    accounts are not tested.

    Returns:
        Whether any was executed, and the rows that are liquidated instead.
    """
    accounts, world, stop = state.accounts, state.world, state.accounts.stop
    state.stop_flow = np.zeros_like(state.stop_flow)
    state.forced[:] = False
    if stop is None:
        return False, np.array([], int)
    at = seen(state, prices)
    shifted = seen(state, prices, barrier(state, at)) if np.any(world.barrier_shift != 0) else at
    tested = np.any(state.quantity != 0, axis=1) & np.all(state.waiting == 0, axis=1)
    rows = np.flatnonzero(tested & ~np.isnan(stop))
    asset = np.argmax(state.quantity[rows] != 0, axis=1)
    rows_seen = shifted.mark[rows, asset]
    reached = np.sign(state.quantity[rows, asset]) * (rows_seen - stop[rows]) <= 0
    works = state.working[accounts.venue[rows], 0] > 0
    state.at_stop[:] = False
    state.at_stop[rows[reached & ~works]] = True
    rows, asset = rows[reached & works], asset[reached & works]
    quantity, mark = state.quantity[rows, asset], at.mark[rows, asset]
    equity = equities(state, at)[rows]
    with_equity = equity > 0
    own = mean_prices(state, prices, rows[with_equity], asset[with_equity])[accounts.venue[rows], asset, side(quantity)]
    worse = np.where(quantity > 0, np.minimum(mark, own), np.maximum(mark, own))
    equity = equity + quantity * (worse - mark)
    if accounts.top_up is not None:
        called = (equity <= 0) & (accounts.top_up[rows] > 0) & ~state.answered[rows]
        answer(state, rows[called])
        equity[called] += accounts.top_up[rows[called]]
    closes = equity > 0
    state.forced[rows[~closes]] = True
    execute(state, prices, rows[closes], asset[closes])
    return bool(np.any(closes)), rows[~closes]


def side(quantity: np.ndarray) -> np.ndarray:
    """0 for a long, 1 for a short."""
    return np.where(quantity > 0, 0, 1)


def flows(state: State, prices: Prices, rows: np.ndarray, asset: np.ndarray) -> np.ndarray:
    """What the positions in these rows come to, by market side [V,A,2] [USD at the mark, sells negative]."""
    flow, quantity, venue = np.zeros_like(state.stop_flow), state.quantity[rows, asset], state.accounts.venue[rows]
    usd = state.accounts.count[rows] * quantity * prices.mark[venue, asset]
    np.subtract.at(flow, (venue, asset, side(quantity)), usd)
    return flow


def mean_prices(state: State, prices: Prices, rows: np.ndarray, asset: np.ndarray) -> np.ndarray:
    """Mean price of every market side's flow from the round's opening [V,A,2] [USD]; the last price without any."""
    flow = flows(state, prices, rows, asset)
    price = np.zeros_like(flow)
    for v, a, s in np.ndindex(flow.shape):
        price[v, a, s] = state.world.start_price[a] * np.exp(mean_book_log(state, prices, v, a, float(flow[v, a, s])))
    return price


def execute(state: State, prices: Prices, rows: np.ndarray, asset: np.ndarray) -> None:
    """Close whole accounts in the book; what they have left is their holders'."""
    venue, count, quantity = state.accounts.venue[rows], state.accounts.count[rows], state.quantity[rows, asset]
    state.stop_flow = flows(state, prices, rows, asset)
    price = mean_prices(state, prices, rows, asset)[venue, asset, side(quantity)]
    state.pay(rows, asset, quantity * (price - state.entry[rows, asset]))
    state.quantity[rows, asset] = 0.0
    state.out["stop_volume"][state.hour] += np.abs(state.stop_flow)
    coins, cost = np.zeros(state.world.listed.shape), np.zeros(state.world.listed.shape)
    np.add.at(coins, (venue, asset), count * quantity)
    np.add.at(cost, (venue, asset), count * quantity * price)
    state.rest.take(coins, cost)
    size = np.zeros_like(coins)
    np.add.at(size, (venue, asset), count * np.abs(quantity))
    state.note_flow(size * prices.mark)
    state.gross_coins = state.gross_coins + size


def close_whole(state: State, forced: np.ndarray) -> None:
    """An account with a stop is closed whole, whatever the venue's staging."""
    state.waiting[forced] = np.abs(state.quantity[forced])
    state.whole[forced] = state.quantity[forced] != 0


def stop_prices(start: np.ndarray, trigger: np.ndarray, way: float) -> np.ndarray:
    """Stops that are a share of the way from the start to the trigger; nan where no price liquidates [USD]."""
    return np.where(trigger > 0, start + way * (trigger - start), np.nan)


def triggers(cash: np.ndarray, quantity: np.ndarray, start: np.ndarray, kept) -> np.ndarray:
    """Marks at which accounts of one linear position are liquidated, by bisection; 0 where none does [n] [USD].

    Args:
        cash: margin - q entry [n] [USD].
        quantity: Signed [n] [coins].
        start: Price [n] at which all of them are safe [USD].
        kept: Maintenance, and a counted fee, of these positions at marks [n] [USD].
    """
    long = quantity > 0
    safe, short = start.copy(), np.where(long, 0.0, 1e3 * start)
    never = cash + quantity * short > kept(short)
    for _ in range(200):
        middle = (safe + short) / 2
        fine = cash + quantity * middle > kept(middle)
        safe, short = np.where(fine, middle, safe), np.where(fine, short, middle)
    return np.where(never, 0.0, short)
