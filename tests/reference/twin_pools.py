"""The slow twin's pools: they pay deficits, what they cannot pay is socialised, and they top each other up."""

from __future__ import annotations

import numpy as np

from .twin_accounts import equities, profits, seen
from .twin_prices import Prices
from .twin_state import State, pool_equity


def cover(state: State, prices: Prices, deficit: np.ndarray, closing: np.ndarray) -> None:
    """Pools pay the round's deficits from their equity, the shortfall is socialised, and what is left they owe."""
    shortfall = deficit - np.minimum(deficit, np.maximum(0.0, pool_equity(state, prices)))
    state.pool_cash -= deficit
    if np.any(shortfall > 0):
        socialise(state, prices, shortfall, closing)


def socialise(state: State, prices: Prices, shortfall: np.ndarray, closing: np.ndarray) -> None:
    """Take losses from the unrealised profits in the pools' markets, pro rata and up to min(profit, equity).

    Profit is that of every winning position, net of what was taken from it before, which is remembered per coin. Where
    several pools ask one account, its equity is split over them by its profits in their markets.

    Args:
        state: Changed.
        prices: At the round's opening.
        shortfall: What the pools cannot pay [F] [USD].
        closing: Rows that are being liquidated [n] bool.
    """
    accounts, at = state.accounts, seen(state, prices)
    size, pool = np.abs(state.quantity), state.world.pool[accounts.venue]
    profit = np.maximum(0.0, profits(state, at) - state.socialised * size)
    profit[closing] = 0.0
    profit = np.where(shortfall[pool] > 0, profit, 0.0)
    asked = profit.sum(axis=1)
    equity = np.maximum(0.0, equities(state, at))
    reach = profit * np.where(asked > equity, equity / np.where(asked > 0, asked, 1.0), 1.0)[:, None]
    total = np.zeros_like(shortfall)
    np.add.at(total, pool, accounts.count[:, None] * reach)
    share = np.where(total > 0, np.minimum(1.0, shortfall / np.where(total > 0, total, 1.0)), 0.0)
    taken = reach * share[pool]
    rows, assets = np.nonzero(taken)
    amounts = taken[rows, assets]
    state.socialised[rows, assets] += amounts / size[rows, assets]
    money = amounts / at.money[rows, assets]
    state.pay(rows, assets, -money)
    received = np.zeros(state.world.listed.shape)
    np.add.at(received, (accounts.venue[rows], assets), accounts.count[rows] * money)
    state.pool_receives(received)
    state.note_flow(received)
    np.add.at(state.out["socialised_loss"][state.hour], pool[rows, assets], accounts.count[rows] * amounts)


def transfer(state: State, prices: Prices) -> None:
    """At a step's end pools below their floor are topped up to it by another pool, down to that one's own floor.

    All of it is judged before any money moves; where several ask one pool for more than it can give, pro rata. A
    transfer is neither a surplus nor a deficit, but the equity, lows and drawdowns of both pools see it.
    """
    world, equity = state.world, pool_equity(state, prices)
    asks = world.transfer_from >= 0
    need = np.where(asks, np.maximum(0.0, world.transfer_floor - equity), 0.0)
    total = np.zeros_like(equity)
    np.add.at(total, world.transfer_from[asks], need[asks])
    free = np.maximum(0.0, equity - world.transfer_floor)
    share = np.where(total > 0, np.minimum(1.0, free / np.where(total > 0, total, 1.0)), 0.0)
    given = np.where(asks, need * share[world.transfer_from], 0.0)
    state.pool_cash += given
    np.subtract.at(state.pool_cash, world.transfer_from[asks], given[asks])
    state.gross_money[0] += given.sum()
