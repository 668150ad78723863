"""The slow twin's accounts: what they own, what they must keep, and when they are liquidated.

    E = cash + sum_a weight_a coins_a S_a + sum_a q_a (m_a - entry_a),    M = sum_a max_j (rate_j n_a - D_j)

The weights, 1 - haircut, take part where equity is compared with maintenance (the trigger, the target of `restore`,
the vault's entry rule) and nowhere else: bankruptcy, settlement, ranking and caps see what coins are worth.
"""

from __future__ import annotations

import numpy as np

from .twin_prices import Prices, Values
from .twin_state import State


def seen(state: State, prices: Prices, shift: np.ndarray | float = 0.0) -> Values:
    """Values that every account sees at its venue, after a log shift of its marks and spot prices [n,A]."""
    venue = state.accounts.venue
    move = np.exp(shift)
    return Values.of(prices.mark[venue] * move, prices.spot[venue] * move, state.world.inverse[venue])


def profits(state: State, at: Values) -> np.ndarray:
    """Unrealised profit of every position, q (f(m) - f(entry)) [n,A] [USD]."""
    return state.quantity * (at.settle - state.entry) * at.money


def equities(state: State, at: Values, weighted: bool = False) -> np.ndarray:
    """Equity of every account [n] [USD], with the haircuts' weights or without."""
    coins = counted_coins(state) if weighted else state.coins
    return state.cash + np.sum(coins * at.coin, axis=1) + np.sum(profits(state, at), axis=1)


def counted_coins(state: State) -> np.ndarray:
    """Coins as the trigger counts them [n,A]: less the haircut, but for a debt."""
    return state.coins - state.world.haircut[state.accounts.venue] * np.maximum(state.coins, 0.0)


def without_equity(state: State, at: Values) -> np.ndarray:
    """Whether an account has no equity [n], to a millionth of its notional: rounding must not decide about one that an
    ADL, a socialised loss or a fee has left with nothing."""
    return equities(state, at) <= 1e-6 * np.sum(np.abs(state.quantity) * at.unit, axis=1)


def maintenance(state: State, at: Values, quantity: np.ndarray) -> np.ndarray:
    """Maintenance of every position, were it of this quantity [n,A] [USD]: M(n) = max_j (rate_j n - D_j)."""
    out = np.zeros_like(quantity)
    rows, assets = np.nonzero(quantity)
    market = state.accounts.venue[rows], assets
    notional = np.abs(quantity[rows, assets]) * at.unit[rows, assets]
    out[rows, assets] = np.max(state.world.tier_rate[market] * notional[:, None] - state.deduction[market], axis=1)
    return out


def required(state: State, at: Values, quantity: np.ndarray) -> np.ndarray:
    """What equity is compared with [n] [USD]: maintenance, and the fee on the notional where the venue counts it."""
    fee = np.where(state.world.fee_in_trigger, state.world.fee, 0.0)[state.accounts.venue]
    notional = np.sum(np.abs(quantity) * at.unit, axis=1)
    return state.wider[state.accounts.venue] * np.sum(maintenance(state, at, quantity), axis=1) + fee * notional


def maintenance_shares(state: State, at: Values) -> np.ndarray:
    """M_a / M of every position [n,A]; by notional where nothing is required."""
    kept, notional = maintenance(state, at, state.quantity), np.abs(state.quantity) * at.unit
    share = np.where(np.sum(kept, axis=1, keepdims=True) > 0, kept, notional)
    total = np.sum(share, axis=1, keepdims=True)
    return share / np.where(total > 0, total, 1.0)


def barrier(state: State, at: Values) -> np.ndarray:
    """Log moves of the prices that an account sees in the trigger test alone [n,A].

    With C the covariance of the shifts and g = dE / dlog price, the likeliest fall of one standard deviation of E is
    -C g / sqrt(g C g): for an account of one position the shift against it, for a hedged one next to nothing.
    """
    world, venue = state.world, state.accounts.venue
    covariance = world.barrier_correlation * np.outer(world.barrier_shift, world.barrier_shift)
    # an inverse contract is worth N m / entry - N
    slope = np.where(world.inverse[venue], -state.quantity * state.entry * at.mark, state.quantity * at.mark)
    slope = slope + counted_coins(state) * at.coin
    moves = slope @ covariance
    size = np.sqrt(np.sum(slope * moves, axis=1, keepdims=True))
    return np.where(size > 0, -moves / np.where(size > 0, size, 1.0), 0.0)


def triggered(state: State, prices: Prices) -> np.ndarray:
    """Rows to liquidate: E at or below M, or its multiple while margins are wider (and the fee, where it counts).

    Not tested are accounts of which something waits, those that rest after a partial close, and all at a venue that a
    breaker has stopped. Who is tested and found
    safe begins anew at the next trigger.
    """
    at = seen(state, prices)
    if np.any(state.world.barrier_shift != 0):
        at = seen(state, prices, barrier(state, at))
    tested = np.any(state.quantity != 0, axis=1) & np.all(state.waiting == 0, axis=1)
    tested &= state.rests_until <= state.now + 1e-9
    stopped = (state.stopped_until > state.now + 1e-9) & (state.world.breaker_times == 1)
    tested &= ~stopped[state.accounts.venue] & ~state.at_stop
    short = equities(state, at, weighted=True) <= required(state, at, state.quantity)
    state.begun &= ~tested | short
    return np.flatnonzero(tested & short)
