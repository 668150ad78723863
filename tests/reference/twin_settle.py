"""The slow twin's settlement: what an account owes and keeps once its slices are done, and the sale of its coins.

One account nets everything it has, two never do. Fees are charged in the settlement currency of the market that they
arose in and go to that market's pool. Everything else that an account owes or leaves when its last position is gone is
shared by the pools of the markets in which it closed positions in that round, pro rata to their USD.
"""

from __future__ import annotations

import numpy as np

from .twin_accounts import equities, seen
from .twin_layers import Slices
from .twin_prices import Prices, Values, mean_index_log
from .twin_state import State


def settle(
    state: State, prices: Prices, slices: Slices, deleveraged: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Settle every account whose slices are done, and winners whose last position was closed by ADL.

    Args:
        state: Changed.
        prices: At the round's opening.
        slices: Of the round, executed.
        deleveraged: What winners closed in the round [n,A] [coins].

    Returns:
        The pools' deficits [F] [USD], and what was sold in the spot market [V,A] [USD, negative].
    """
    rows, assets = slices.row, slices.asset
    finished = state.waiting[rows, assets] == 0
    emptied = finished & state.whole[rows, assets]
    state.quantity[rows[emptied], assets[emptied]] = 0.0
    at = seen(state, prices)
    done = np.unique(rows)
    done = done[np.all(state.waiting[done] == 0, axis=1)]
    flat = np.all(state.quantity == 0, axis=1)
    partly = done[~flat[done]]
    charge_partial(state, at, partly)
    state.rests_until[partly] = state.now + state.world.cooldown_s[state.accounts.venue[partly]]
    closed = deleveraged * at.unit
    np.add.at(closed, (rows, assets), slices.admitted * slices.unit)
    gone = flat & np.any(deleveraged > 0, axis=1)
    gone[done[flat[done]]] = True
    return settle_gone(state, prices, at, np.flatnonzero(gone), np.isin(np.arange(len(flat)), done), closed)


def charge_partial(state: State, at: Values, rows: np.ndarray) -> None:
    """Fees of accounts that go on, up to their equity; their cash may become negative."""
    due = state.world.fee[state.accounts.venue[rows], None] * state.fee_value[rows]
    equity = equities(state, at)[rows]
    total = np.sum(due * at.money[rows], axis=1)
    share = np.where(total > equity, np.maximum(equity, 0.0) / np.where(total > 0, total, 1.0), 1.0)
    charge(state, at, rows, due * share[:, None])


def charge(state: State, at: Values, rows: np.ndarray, fees: np.ndarray) -> None:
    """Fees [rows,A] of one copy, in settlement currencies, from accounts to the pools of their markets."""
    state.fee_value[rows] = 0.0
    each, assets = np.nonzero(fees)
    who, amounts = rows[each], fees[each, assets]
    state.pay(who, assets, -amounts)
    received = np.zeros(state.world.listed.shape)
    np.add.at(received, (state.accounts.venue[who], assets), state.accounts.count[who] * amounts)
    state.pool_receives(received)
    state.note_flow(received)
    usd = state.accounts.count[who] * amounts * at.money[who, assets]
    pools = state.world.pool[state.accounts.venue[who], assets]
    np.add.at(state.out["surplus"][state.hour], pools, usd)


def settle_gone(
    state: State, prices: Prices, at: Values, rows: np.ndarray, liquidated: np.ndarray, closed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Accounts without a position: coins sold for a debt in USD, fees, and what is left or missing.

    A debt in coins is taken over by the pools and becomes a debt in USD. A debt in USD and the fees in USD are paid
    from the sale of coins, fees from what is left after the debt. Coins that a pool receives stay coins.

    Args:
        state: Changed.
        prices: At the round's opening.
        at: Values that the accounts see.
        rows: The accounts.
        liquidated: Of all accounts, who was liquidated and not just deleveraged [n] bool.
        closed: What was closed in the round, of one copy [n,A] [USD].

    Returns:
        The pools' deficits [F] [USD], and what was sold in the spot market [V,A] [USD, negative].
    """
    world, venue, count = state.world, state.accounts.venue[rows], state.accounts.count[rows]
    share = closed[rows] / np.sum(closed[rows], axis=1, keepdims=True)
    debt = np.maximum(-state.coins[rows], 0.0)
    state.coins[rows] += debt
    state.cash[rows] -= np.sum(debt * at.coin[rows], axis=1)
    pool_gets(state, rows, share, np.sum(debt * at.coin[rows], axis=1), -debt)
    due = world.fee[venue, None] * state.fee_value[rows]
    coin = world.inverse[venue]
    in_usd = np.sum(np.where(coin, 0.0, due), axis=1)
    sold = sell_coins(state, prices, rows, np.maximum(0.0, in_usd - state.cash[rows]))
    left = np.minimum(in_usd, np.maximum(state.cash[rows], 0.0)) / np.where(in_usd > 0, in_usd, 1.0)
    charge(state, at, rows, np.where(coin, np.minimum(due, np.maximum(state.coins[rows], 0.0)), due * left[:, None]))
    keeps = ~(liquidated[rows] & world.surplus_to_pool[venue])
    surplus = np.where(keeps, 0.0, np.maximum(state.cash[rows], 0.0))
    coins = np.where(keeps[:, None], 0.0, state.coins[rows])
    loss = np.maximum(-state.cash[rows], 0.0)
    state.cash[rows] += loss - surplus
    state.coins[rows] -= coins
    pool_gets(state, rows, share, surplus, coins)
    value = surplus + np.sum(coins * at.coin[rows], axis=1)
    deficit = by_pool(state, rows, share, count * loss)
    state.out["surplus"][state.hour] += by_pool(state, rows, share, count * value)
    state.out["deficit"][state.hour] += deficit
    state.gross_money[0] += deficit.sum()
    return deficit, sold


def by_pool(state: State, rows: np.ndarray, share: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Amounts [rows] split over the pools of the markets by `share` [rows,A]; [F]."""
    out = np.zeros_like(state.pool_cash)
    np.add.at(out, state.world.pool[state.accounts.venue[rows]], share * amounts[:, None])
    return out


def pool_gets(state: State, rows: np.ndarray, share: np.ndarray, cash: np.ndarray, coins: np.ndarray) -> None:
    """Cash [rows] and coins [rows,A] of one copy go to the pools of the markets by `share` [rows,A]."""
    count = state.accounts.count[rows]
    received = by_pool(state, rows, share, count * cash)
    state.pool_cash += received
    state.gross_money[0] += np.abs(received).sum()
    for a in np.flatnonzero(np.any(coins != 0, axis=0)):
        received = by_pool(state, rows, share, count * coins[:, a])
        state.pool_coins[:, a] += received
        state.gross_money[1 + a] += np.abs(received).sum()


def sell_coins(state: State, prices: Prices, rows: np.ndarray, need: np.ndarray) -> np.ndarray:
    """Sell the same share of every coin of an account, as much as brings `need` [rows] [USD], or all of them.

    What a venue's accounts sell of an asset in one round is one order: it pays the mean price along its own push of
    the index. That price depends on how much is sold, so the shares are iterated until they stand still: they start
    too low and rise.

    Returns:
        The orders [V,A] [USD at the spot price, negative].
    """
    venue, count = state.accounts.venue[rows], state.accounts.count[rows]
    coins, price = state.coins[rows].copy(), prices.spot.copy()
    share, flow = np.zeros(len(rows)), np.zeros_like(price)
    for _ in range(1000 if np.any((need > 0) & np.any(coins > 0, axis=1)) else 0):
        worth = np.sum(coins * price[venue], axis=1)
        before, share = share, np.where(worth > need, need / np.where(worth > 0, worth, 1.0), need > 0)
        flow = np.zeros_like(price)
        np.subtract.at(flow, venue, (count * share)[:, None] * coins * prices.spot[venue])
        for v, a in np.argwhere(flow < 0):
            own = mean_index_log(state, prices, a, float(flow[v, a])) - prices.index_log[a]
            price[v, a] = prices.spot[v, a] * np.exp(own)
        if np.max(np.abs(share - before)) < 1e-15:
            break
    sold = share[:, None] * coins
    state.coins[rows] -= sold
    state.cash[rows] += np.sum(sold * price[venue], axis=1)
    total = np.zeros_like(price)
    np.add.at(total, venue, count[:, None] * sold)
    state.spot.take(total, total * price)
    state.gross_money[0] += np.sum(total * price)
    state.gross_money[1:] += total.sum(axis=0)
    state.out["collateral_sold"][state.hour] -= flow
    return flow
