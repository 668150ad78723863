"""The slow twin's auto-deleveraging: what the layers leave is matched with the winners on the other side.

A position of a cross account stands in the queue with its own profit, its account's equity and its account's leverage.
No account pays more than it has: where winners close at a loss against the mark, an account closes at most what its
equity covers, split over those of its positions that face an ADL in this round by their profit. All of it is judged at
the round's opening, so that no market comes first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .twin_accounts import equities, profits, seen, without_equity
from .twin_layers import Slices, close
from .twin_prices import Prices, settle_price
from .twin_state import DIRECTIONS, State


@dataclass(frozen=True)
class Winners:
    """Accounts as ADL sees them at the round's opening."""

    profit: np.ndarray  # [n,A] [USD]
    entry_notional: np.ndarray  # [n,A] [USD]
    equity: np.ndarray  # [n] [USD]
    notional: np.ndarray  # [n] of all positions of the account [USD]
    budget: np.ndarray  # [n,A] what a position can lose against the mark; positive for winners that are asked [USD]

    @classmethod
    def of(cls, state: State, prices: Prices, asked: np.ndarray, closing: np.ndarray) -> Winners:
        """Positions with a profit, of accounts with equity that are not being liquidated.

        Args:
            state: At the round's opening, but for the accounts that are closing.
            prices: At the round's opening.
            asked: What is to be matched by market and side [V,A,2].
            closing: Rows that are being liquidated [n] bool.
        """
        at, venue = seen(state, prices), state.accounts.venue
        profit, equity = profits(state, at), equities(state, at)
        facing = np.where(state.quantity > 0, asked[venue, :, 1], asked[venue, :, 0]) > 0
        wins = facing & (profit > 0) & (~without_equity(state, at) & ~closing)[:, None]
        gain = np.where(wins, profit, 0.0)
        total = gain.sum(axis=1, keepdims=True)
        size = np.abs(state.quantity)
        return cls(
            profit=profit,
            entry_notional=size * np.where(state.world.inverse[venue], 1.0, state.entry),
            equity=equity,
            notional=np.sum(size * at.unit, axis=1),
            budget=equity[:, None] * gain / np.where(total > 0, total, 1.0),
        )


def deleverage(state: State, prices: Prices, slices: Slices, eligible: np.ndarray, closing: np.ndarray) -> np.ndarray:
    """Match what is left of every market side with the winners of the other one.

    Every winner of a market side closes at the same price, the average over the losers' slices.

    Args:
        state: Changed.
        prices: At the round's opening.
        slices: Of the round.
        eligible: Slices that ADL takes [slice] bool.
        closing: Rows that are being liquidated [n] bool.

    Returns:
        What winners closed, of one copy [n,A] [coins].
    """
    asked = slices.total(state, np.where(eligible, slices.coins, 0.0))
    winners = Winners.of(state, prices, asked, closing)
    closed = np.zeros_like(state.quantity)
    for v, a, side in np.argwhere(asked > 0):
        here = eligible & (slices.venue == v) & (slices.asset == a) & (slices.side == side)
        price = {
            "bankruptcy": slices.bankruptcy,
            "mark": slices.mark,
            "index": np.full(len(here), settle_price(prices.index[a], state.world.inverse[v, a])),
        }[str(state.world.adl_close[v])]
        side_of_winners = np.sign(state.quantity[:, a]) == -DIRECTIONS[side]
        rows = np.flatnonzero((state.accounts.venue == v) & side_of_winners & (winners.budget[:, a] > 0))
        average = np.sum((slices.count * slices.coins * price)[here]) / asked[v, a, side]
        capacity = affordable(state, prices, winners, rows, (v, a), DIRECTIONS[side] * average)
        available = np.sum(state.accounts.count[rows] * capacity)
        if available <= 0:
            continue
        take = np.where(here, slices.coins * min(1.0, available / asked[v, a, side]), 0.0)
        lacking = slices.direction * (slices.bankruptcy - slices.mark)
        needed = np.sum(slices.count * take * np.maximum(lacking, 0.0)) * prices.at.money[v, a]
        state.out["adl_needed"][state.hour, v, a] += needed
        coins, cost = close(state, slices, take, price, "adl")
        matched, paid = abs(float(coins[v, a])), float(cost[v, a] / coins[v, a])
        share = adl_allocation(state, prices, winners, rows, a, capacity, min(matched, available))
        closed[rows, a] = np.where(share > capacity * (1 - 1e-14), capacity, share)
        loss = winners_close(state, prices, rows, (v, a), DIRECTIONS[side], closed[rows, a], paid)
        note_policy(state, v, winners.profit[rows, a], state.accounts.count[rows], closed[rows, a] * loss)
    return closed


def affordable(
    state: State, prices: Prices, winners: Winners, rows: np.ndarray, market: tuple[int, int], price: float
) -> np.ndarray:
    """Coins that every winner can close at a settle price (signed by the losers' direction) [rows], of one copy."""
    size = np.abs(state.quantity[rows, market[1]])
    sign = -np.sign(state.quantity[rows, market[1]])
    loss = (price - sign * prices.at.settle[market]) * prices.at.money[market]
    return np.where(loss > 0, np.minimum(size, winners.budget[rows, market[1]] / np.where(loss > 0, loss, 1.0)), size)


def winners_close(
    state: State, prices: Prices, rows: np.ndarray, market: tuple[int, int], direction: float,
    closed: np.ndarray, paid: float,
) -> float:  # fmt: skip
    """The winners' side of the trade at the settle price `paid`, `direction` being the losers'.

    Returns what they lose of a coin against the mark [USD].
    """
    (v, a), count, out, hour = market, state.accounts.count[rows], state.out, state.hour
    state.pay(rows, np.full(len(rows), a), -direction * closed * (paid - state.entry[rows, a]))
    state.quantity[rows, a] += direction * closed
    touched = (closed > 0) & ~state.deleveraged[rows]
    state.deleveraged[rows[touched]] = True
    matched = np.sum(count * closed)
    out["adl_accounts"][hour, v] += count[touched].sum()
    out["adl_volume"][hour, v, a] += matched * prices.at.unit[market]
    loss = direction * (paid - prices.at.settle[market]) * prices.at.money[market]
    out["adl_haircut"][hour, v, a] += loss * matched
    return float(loss)


def adl_allocation(
    state: State, prices: Prices, winners: Winners, rows: np.ndarray, a: int, capacity: np.ndarray, coins: float
) -> np.ndarray:
    """Coins that every winner closes, of one copy, positive; they sum to `coins` over rows and copies.

    `queue`: the highest (profit / entry notional) x (notional / equity) first, equal ranks pro rata. `pro_rata`: by
    profit. `water_filling`: the accounts of the highest leverage come down to one level. Nobody closes more than
    `capacity`; what a cap leaves over goes to the others.
    """
    count, profit = state.accounts.count[rows], winners.profit[rows, a]
    rule = state.world.adl_rank[state.accounts.venue[rows[0]]]
    if rule == "queue":
        leverage = winners.notional[rows] / winners.equity[rows]
        rank = profit / winners.entry_notional[rows, a] * leverage
        _, group = np.unique(-rank, return_inverse=True)
        held = np.bincount(group, weights=count * capacity)
        before = np.cumsum(held) - held
        return capacity * np.clip((coins - before) / held, 0.0, 1.0)[group]
    if rule == "water_filling":
        unit = prices.at.unit[state.accounts.venue[rows[0]], a]
        return water_filling(winners.notional[rows], winners.equity[rows], capacity, count, unit, coins)
    free = np.ones(len(rows), bool)
    while np.any(free):
        per_profit = (coins - np.sum((count * capacity)[~free])) / np.sum((count * profit)[free])
        capped = free & (per_profit * profit >= capacity)
        if not np.any(capped):
            return np.where(free, per_profit * profit, capacity)
        free &= ~capped
    return capacity


def water_filling(
    notional: np.ndarray, equity: np.ndarray, capacity: np.ndarray, count: np.ndarray, unit: float, coins: float
) -> np.ndarray:
    """Coins of every winner, of one copy, that bring each leverage down to one level, where its position allows it.

    At a level L an account closes clip((notional - L equity) / unit, 0, capacity) coins; in total that is piecewise
    linear in L, with a kink where an account begins to close and one where it cannot close more.

    Args:
        notional: Of all positions of the account [rows] [USD].
        equity: [rows] [USD].
        capacity: That it can close here [rows] [coins].
        count: Copies [rows].
        unit: Notional of a coin [USD].
        coins: To be closed in all, at most what all can close.
    """
    closes = lambda level: np.clip((notional - level * equity) / unit, 0.0, capacity)  # noqa: E731
    kinks = np.sort(np.concatenate([notional / equity, (notional - capacity * unit) / equity]))[::-1]
    totals = np.array([np.sum(count * closes(level)) for level in kinks])
    return closes(np.interp(coins, totals, kinks))


# ------------------------------------------------------------------------------------------------------------ who pays
def note_policy(state: State, v: int, profit: np.ndarray, count: np.ndarray, loss: np.ndarray) -> None:
    """Note what the winners of one market side lost in one ADL against the mark; gains are not netted.

    Args:
        state: Whose outputs change.
        v: Venue.
        profit: Unrealised before, of one copy [winner] [USD].
        count: Copies [winner].
        loss: Of one copy [winner] [USD].
    """
    loss, out, hour = np.maximum(loss, 0.0), state.out, state.hour
    total = np.sum(count * loss)
    out["adl_loss"][hour, v] += total
    out["adl_loss_top_1"][hour, v] += loss_of_top(profit, count, loss, 0.01)
    out["adl_loss_top_10"][hour, v] += loss_of_top(profit, count, loss, 0.1)
    assert isinstance(state.largest_adl, np.ndarray)
    if total > state.largest_adl[v]:
        state.largest_adl[v] = total
        keeps = np.max(profit) - np.mean(loss[profit == np.max(profit)])
        out["adl_top_keeps_of_total"][hour, v] = keeps / total
        out["adl_top_keeps_of_largest"][hour, v] = keeps / np.max(loss)


def loss_of_top(profit: np.ndarray, count: np.ndarray, loss: np.ndarray, share: float) -> float:
    """Loss of the winners with the largest profits who make up a share of all copies; equal profits pro rata [USD]."""
    _, group = np.unique(-profit, return_inverse=True)
    copies, losses = np.bincount(group, weights=count), np.bincount(group, weights=count * loss)
    before = np.cumsum(copies) - copies
    return float(np.sum(losses * np.clip((share * copies.sum() - before) / copies, 0.0, 1.0)))


def judge_policy(out: dict[str, np.ndarray], opening_interest: np.ndarray) -> None:
    """Who paid for ADL and what it did, from what was noted.

    `adl_top_share`, `adl_top_10_share` [hour,V]: share of the winners' losses against the mark that the top 1 and 10 %
    of a market side's winners by profit bore; nan without a loss. `adl_top_keeps_of_total`, `_of_largest` [hour,V]:
    what the winner with the largest profit keeps of it in the hour's largest ADL, over all losses in it and over the
    largest one of an account. `adl_overshoot` [hour,V,A]: haircut less what the losers lacked at the mark [USD].
    `adl_open_interest` [hour,V,A]: share of the open interest at the hour's opening that ADL removed.

    Args:
        out: Changed.
        opening_interest: At the start [V,A] [USD].
    """
    loss = np.where(out["adl_loss"] > 0, out["adl_loss"], np.nan)
    out["adl_top_share"] = out["adl_loss_top_1"] / loss
    out["adl_top_10_share"] = out["adl_loss_top_10"] / loss
    out["adl_overshoot"] = out["adl_haircut"] - out["adl_needed"]
    before = np.concatenate([opening_interest[None], out["open_interest"][:-1]])
    out["adl_open_interest"] = np.where(before > 0, out["adl_volume"] / np.where(before > 0, before, 1.0), 0.0)
