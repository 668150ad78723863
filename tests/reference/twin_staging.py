"""The slow twin's staging: how much of a triggered account is closed at once, and the queue it waits in."""

from __future__ import annotations

import numpy as np

from .twin_accounts import equities, maintenance, seen, without_equity
from .twin_prices import Prices, Values
from .twin_state import State


def enqueue(state: State, prices: Prices, rows: np.ndarray, batch: int) -> None:
    """Put this round's slices at the end of their markets' queues."""
    at = seen(state, prices)
    nothing, kept = without_equity(state, at), maintenance(state, at, state.quantity)
    for row in rows:
        coins = coins_to_close(state, at, int(row), bool(nothing[row]), kept[row])
        state.waiting[row] = coins
        state.whole[row] = (coins > 0) & (coins == np.abs(state.quantity[row]))
        state.batch[row] = batch
        if not state.ever_triggered[row]:
            state.ever_triggered[row] = True
            venue = state.accounts.venue[row]
            state.out["accounts_liquidated"][state.hour, venue] += state.accounts.count[row]


def coins_to_close(state: State, at: Values, row: int, nothing: bool, kept: np.ndarray) -> np.ndarray:
    """What is closed of one copy of a triggered account at once [A], positive.

    Without equity all of it, whatever the venue's rules. Otherwise what the staging rule says of every position; where
    the riskiest goes first, of these only the one with the largest maintenance, of equal ones (to 1e-5) the first; the
    others wait for the next test.
    """
    world, v, size = state.world, state.accounts.venue[row], np.abs(state.quantity[row])
    if nothing:
        return size
    coins = by_tiers(state, at, row) if world.staging[v] == "tiers" else size
    if world.closing_order[v] == "riskiest_first":
        asked = np.where(coins > 0, kept, 0.0)
        first = np.argmax(asked >= asked.max() * (1 - 1e-5))
        coins = np.where(np.arange(len(coins)) == first, coins, 0.0)
    if world.staging[v] == "fraction":
        return by_fraction(state, at, row, coins)
    if world.staging[v] == "restore":
        return by_target(state, at, row, coins)
    return coins


def by_fraction(state: State, at: Values, row: int, coins: np.ndarray) -> np.ndarray:
    """A share of `coins`, rounded up to whole lots; all of them for a small account, and at the next trigger.

    The next trigger is one that comes before the account has passed a test: after the pause, when it is tested again.
    """
    world, v = state.world, state.accounts.venue[row]
    if state.begun[row] or np.sum(np.abs(state.quantity[row]) * at.unit[row]) <= world.fraction_above[v]:
        return coins
    state.begun[row] = True
    lot = np.where(world.lot[v] > 0, world.lot[v], 1.0)
    rounded = np.ceil(world.fraction[v] * coins / lot - 1e-9) * lot
    return np.minimum(coins, np.where(world.lot[v] > 0, rounded, world.fraction[v] * coins))


def by_target(state: State, at: Values, row: int, coins: np.ndarray) -> np.ndarray:
    """The smallest share of `coins` after which equity is the target multiple of what is required; all if none is.

    The close is taken to be at the mark, where equity (with the haircuts' weights, as in the trigger) stays what it is:
    neither the fill nor the fee is known yet.
    """
    world, size = state.world, np.abs(state.quantity[row])
    target = world.restore_target[state.accounts.venue[row]]
    equity = equities(state, at, weighted=True)[row]

    def restored(share: float) -> bool:
        return equity >= target * required_of_one(state, at, row, size - share * coins)

    low, high = 0.0, 1.0
    if not restored(1.0):
        return coins
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if restored(middle) else (middle, high)
    return high * coins


def required_of_one(state: State, at: Values, row: int, size: np.ndarray) -> float:
    """What the trigger compares equity with, were an account's positions of these sizes [A] [USD]."""
    world, v = state.world, state.accounts.venue[row]
    notional = size * at.unit[row]
    kept = np.max(world.tier_rate[v] * notional[:, None] - state.deduction[v], axis=1)
    return float(np.sum(kept[size > 0]) + (world.fee[v] * world.fee_in_trigger[v]) * np.sum(notional))


def by_tiers(state: State, at: Values, row: int) -> np.ndarray:
    """Every position down to the floor of its tier, or of the one below; all of them whole if all are in the lowest.

    A position in the lowest tiers is left alone while another one is above them. A notional up to 0.1 % above a floor
    counts as the tier below it.
    """
    world, v, size = state.world, state.accounts.venue[row], np.abs(state.quantity[row])
    coins = np.zeros_like(size)
    for a in np.flatnonzero(size):
        floors, unit = world.tier_floor[v, a], at.unit[row, a]
        tier = max(1, int(np.sum(floors * 1.001 < size[a] * unit)))
        if tier > world.whole_below[v]:
            target = floors[max(0, tier - world.tiers_down[v])]
            coins[a] = size[a] if target == 0 else size[a] - target / unit
    return coins if np.any(coins > 0) else size
