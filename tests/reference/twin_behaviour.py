"""What nobody is forced to in the slow twin: holders close a share, and cohorts of accounts open and close."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .twin_accounts import triggered
from .twin_prices import add_flows, current_prices, mean_book_log
from .twin_state import DIRECTIONS, State


@dataclass
class Cohorts:
    """Accounts of one position each that are opened later; among the others they stand without one."""

    turn: np.ndarray  # [n] int: the opening, counted from 1, at which the account is opened; 0 for those of the start
    quantity: np.ndarray  # [n,A] of one copy, had it been opened at the start [coins]
    margin: np.ndarray  # [n] put in when it is opened [USD]
    every: int  # steps from one opening to the next
    places: int  # cohorts at a time
    there: dict[tuple[int, int, int, int], int] = field(default_factory=dict)  # turn, by market side and place


def close_by_choice(state: State) -> None:
    """Holders close `closing` [A] of every position: one price a market, the mean along the flow that is left over."""
    share, world, accounts = state.unusual.get("closing"), state.world, state.accounts
    if share is None or not np.any(share > 0):
        return
    prices, flows = current_prices(state), np.zeros(world.listed.shape)
    for v, a in np.argwhere(world.listed):
        closed = np.zeros(len(state.quantity))
        for direction in DIRECTIONS:
            mine = (accounts.venue == v) & (direction * state.quantity[:, a] > 0)
            if not np.any(state.waiting[mine, a] > 0):
                closed[mine] = share[a] * state.quantity[mine, a]
        net = accounts.count @ closed
        mark = float(prices.mark[v, a])
        flows[v, a] = -net * mark
        price = world.start_price[a] * np.exp(mean_book_log(state, prices, v, a, float(flows[v, a])))
        _trade(state, v, a, -closed, price, "voluntary_volume", mark)
    add_flows(state, flows)


def _trade(state: State, v: int, a: int, more: np.ndarray, price: float, output: str, mark: float) -> None:
    """Accounts buy `more` [n] coins of one copy, signed, from the rest of the market, and keep their entry prices."""
    rows, count = np.flatnonzero(more), state.accounts.count
    # what is bought at another price than the entry is paid for at once
    state.pay(rows, np.full(len(rows), a), more[rows] * (state.entry[rows, a] - price))
    side = (state.quantity[:, a] < 0) | ((state.quantity[:, a] == 0) & (more < 0))
    state.quantity[:, a] += more
    total, size = np.zeros(state.world.listed.shape), np.zeros(state.world.listed.shape)
    total[v, a], size[v, a] = count @ more, count @ np.abs(more)
    state.rest.take(-total, -total * price)
    state.note_flow(size * price)
    state.gross_coins = state.gross_coins + size
    for s in (0, 1):
        state.out[output][state.hour, v, a, s] += count @ np.where(side == bool(s), np.abs(more), 0.0) * mark


def turn_over(state: State) -> None:
    """At its time a new cohort opens at the mark in the place of the oldest one, whose holders close there."""
    cohorts = state.cohorts
    if cohorts is None:
        return
    turn, rest = divmod(round(state.now / state.world.dt) + 1, cohorts.every)
    if rest:
        return
    place, prices, accounts = (turn - 1) % cohorts.places, current_prices(state), state.accounts
    busy = np.any(state.waiting > 0, axis=1)
    busy[triggered(state, prices)] = True
    for v, a in np.argwhere(state.world.listed):
        for s, direction in enumerate(DIRECTIONS):
            of_side = (accounts.venue == v) & (direction * cohorts.quantity[:, a] > 0)
            old = of_side & (cohorts.turn == cohorts.there.get((v, a, s, place), -1))
            if np.any(busy & old):
                continue
            cohorts.there[v, a, s, place] = turn
            mark, start = float(prices.mark[v, a]), state.world.start_price[a]
            _trade(state, v, a, np.where(old, -state.quantity[:, a], 0.0), mark, "voluntary_volume", mark)
            new = of_side & (cohorts.turn == turn)
            state.entry[new, a] = mark
            state.cash[new] += cohorts.margin[new]
            paid_in = accounts.count[new] @ cohorts.margin[new]
            state.opening_money = state.opening_money + paid_in * (np.arange(len(state.gross_money)) == 0)
            state.gross_money[0] += paid_in
            _trade(state, v, a, np.where(new, cohorts.quantity[:, a] * start / mark, 0.0), mark, "opened_volume", mark)
