"""The slow twin's liquidation engine: what happens to slices once it has taken them in.

Every trade is posted to both sides: to the account that closes (`close`) and to who takes it (`Holder.take`, the pools,
or the winners of an ADL).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .twin_state import (
    ADL,
    AUCTION,
    BOOK,
    DIRECTIONS,
    DOLLAR,
    REMAINDER,
    TAKEOVER,
    Prices,
    State,
    add_flows,
    book_log,
    current_prices,
    mean_book_log,
    pool_equity,
)


@dataclass
class Slices:
    """What the engine took in this round, one slice an account; `coins` of one copy, positive, shrink by layer."""

    row: np.ndarray
    venue: np.ndarray
    asset: np.ndarray
    side: np.ndarray  # 0 long, 1 short
    direction: np.ndarray  # +1 long, -1 short
    count: np.ndarray
    coins: np.ndarray
    mark: np.ndarray  # [USD per coin]
    bankruptcy: np.ndarray  # price at which the account's equity is zero [USD per coin]

    @classmethod
    def of(cls, state: State, prices: Prices, rows: np.ndarray, coins: np.ndarray) -> Slices:
        """Slices of `coins` of the accounts in `rows`; p_b = entry - cash / q as the account stands now."""
        accounts = state.accounts
        venue, asset, quantity = accounts.venue[rows], accounts.asset[rows], state.quantity[rows]
        return cls(
            row=rows,
            venue=venue,
            asset=asset,
            side=np.where(quantity > 0, 0, 1),
            direction=np.sign(quantity),
            count=accounts.count[rows],
            coins=coins,
            mark=prices.mark[venue, asset],
            bankruptcy=accounts.entry[rows] - state.cash[rows] / quantity,
        )

    def total(self, state: State, values: np.ndarray) -> np.ndarray:
        """Sum of `values` over slices and copies by market and side [V,A,2]."""
        out = np.zeros((*state.world.listed.shape, 2))
        np.add.at(out, (self.venue, self.asset, self.side), self.count * values)
        return out


# -------------------------------------------------------------------------------------------------------------- layers
def execute(state: State, prices: Prices, slices: Slices, closing: np.ndarray) -> None:
    """One round: the admitted slices through all layers, settlement, pools, and the book flows into the imbalances.

    Args:
        state: Changed throughout.
        prices: At the round's opening.
        slices: Admitted, all of which is executed.
        closing: Rows that are being liquidated and can neither be deleveraged nor socialised [n] bool.
    """
    world = state.world
    opening_equity = pool_equity(state, prices)
    pool = world.pool[slices.venue, slices.asset]
    stressed = (opening_equity <= DOLLAR) | state.drawdown_adl
    bankrupt = slices.direction * (slices.mark - slices.bankruptcy) <= 0
    skips = (stressed[pool] & bankrupt) | (state.drawdown_adl[pool] & world.straight_to_adl[slices.venue])
    flow = book(state, prices, slices, ~skips)
    auction(state, slices, ~skips)
    takeover(state, prices, slices, ~skips, opening_equity)
    deleverage(state, prices, slices, closing)
    state.rest.take(*close(state, slices, slices.coins.copy(), slices.mark, REMAINDER))
    deficit = settle(state, slices)
    cover(state, prices, deficit, closing)
    add_flows(state, flow)


def close(
    state: State, slices: Slices, take: np.ndarray, price: np.ndarray, layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """The traders' side of a layer: close `take` coins of every slice at `price`.

    Returns:
        What the other side takes: signed coins [V,A] and the signed money it pays for them [V,A] [USD].
    """
    rows, world, hour = slices.row, state.world, state.hour
    slices.coins = slices.coins - take
    state.cash[rows] += slices.direction * take * (price - state.accounts.entry[rows])
    state.quantity[rows] -= slices.direction * take
    if layer in (BOOK, AUCTION):
        state.fee_value[rows] += take * price
    volume = slices.total(state, take * slices.mark)
    state.out["liquidation_volume"][hour] += volume
    state.out["absorbed_volume"][hour][:, :, layer] += volume.sum(axis=2)
    state.gross_cash += np.sum(slices.count * take * np.abs(price))
    state.gross_coins = state.gross_coins + slices.total(state, take).sum(axis=2)
    coins, usd = np.zeros(world.listed.shape), np.zeros(world.listed.shape)
    where, signed = (slices.venue, slices.asset), slices.count * slices.direction * take
    np.add.at(coins, where, signed)
    np.add.at(usd, where, signed * price)
    return coins, usd


def book(state: State, prices: Prices, slices: Slices, eligible: np.ndarray) -> np.ndarray:
    """Order book: every market side fills by itself until the marginal price is the take bound away from the mark.

    Returns the flow of all sides [V,A] [USD at the mark, sells negative].
    """
    world = state.world
    asked = slices.total(state, np.where(eligible, slices.coins * slices.mark, 0.0))
    share, price, flow = np.zeros_like(asked), np.ones_like(asked), np.zeros(world.listed.shape)
    for v, a, side in np.argwhere(asked > 0):
        full = -DIRECTIONS[side] * asked[v, a, side]
        part = book_part(state, prices, v, a, DIRECTIONS[side], full)
        share[v, a, side] = part
        price[v, a, side] = world.start_price[a] * np.exp(mean_book_log(state, prices, v, a, part * full))
        flow[v, a] += part * full
    where = slices.venue, slices.asset, slices.side
    take = np.where(eligible, slices.coins * share[where], 0.0)
    state.rest.take(*close(state, slices, take, price[where], BOOK))
    return flow


def book_part(state: State, prices: Prices, v: int, a: int, direction: float, flow: float) -> float:
    """The largest part of a market side's flow whose marginal price keeps inside the take bound, by bisection."""
    bound = 1 - direction * state.world.take_bound[v, a]
    limit = prices.mark_log[v, a] + np.log(bound) if bound > 0 else -np.inf

    def inside(part: float) -> bool:
        return direction * (book_log(state, prices, v, a, part * flow) - limit) >= 0

    if inside(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60 if inside(0.0) else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    return low


def auction(state: State, slices: Slices, eligible: np.ndarray) -> None:
    """Market makers buy at a discount to the mark (sell at a premium), up to their capacity left in this clock hour."""
    asked = slices.total(state, np.where(eligible, slices.coins * slices.mark, 0.0)).sum(axis=2)
    share = np.where(asked > 0, np.minimum(1.0, state.auction_left / np.where(asked > 0, asked, 1.0)), 0.0)
    state.auction_left = np.maximum(0.0, state.auction_left - share * asked)
    where = slices.venue, slices.asset
    take = np.where(eligible, slices.coins * share[where], 0.0)
    price = slices.mark * (1 - slices.direction * state.world.auction_discount[where])
    state.makers.take(*close(state, slices, take, price, AUCTION))


def takeover(state: State, prices: Prices, slices: Slices, eligible: np.ndarray, opening_equity: np.ndarray) -> None:
    """A pool takes slices over at their bankruptcy prices, up to multiple x equity less what it holds, at the mark."""
    world = state.world
    held, asked = np.zeros_like(opening_equity), np.zeros_like(opening_equity)
    np.add.at(held, world.pool, np.abs(state.inventory) * prices.mark)
    wanted = slices.total(state, np.where(eligible, slices.coins * slices.mark, 0.0)).sum(axis=2)
    np.add.at(asked, world.pool, wanted)
    capacity = np.maximum(0.0, world.takeover_multiple * opening_equity - held)
    share = np.where(asked > 0, np.minimum(1.0, capacity / np.where(asked > 0, asked, 1.0)), 0.0)
    take = np.where(eligible, slices.coins * share[world.pool[slices.venue, slices.asset]], 0.0)
    coins, usd = close(state, slices, take, slices.bankruptcy, TAKEOVER)
    state.inventory += coins
    np.subtract.at(state.pool_cash, world.pool, usd)


def deleverage(state: State, prices: Prices, slices: Slices, closing: np.ndarray) -> None:
    """Auto-deleveraging: what is left is matched with the profitable accounts on the other side of the same market.

    Every winner of a market side closes at the same price, the average over the losers' slices.
    """
    world, out, accounts, hour = state.world, state.out, state.accounts, state.hour
    asked = slices.total(state, slices.coins)
    for v, a, side in np.argwhere(asked > 0):
        direction = DIRECTIONS[side]
        winners = adl_winners(state, prices, v, a, -direction, closing)
        available = np.sum(accounts.count[winners] * np.abs(state.quantity[winners]))
        if available <= 0:
            continue
        here = (slices.venue == v) & (slices.asset == a) & (slices.side == side)
        take = np.where(here, slices.coins * min(1.0, available / asked[v, a, side]), 0.0)
        mark, index = np.full(len(take), prices.mark[v, a]), np.full(len(take), prices.index[a])
        price = {"bankruptcy": slices.bankruptcy, "mark": mark, "index": index}[str(world.adl_close[v])]
        coins, usd = close(state, slices, take, price, ADL)
        matched, paid = abs(coins[v, a]), usd[v, a] / coins[v, a]
        closed = adl_allocation(state, prices, v, a, winners, min(matched, available))
        state.cash[winners] -= direction * closed * (paid - accounts.entry[winners])
        state.quantity[winners] += direction * closed
        touched = winners[(closed > 0) & ~state.deleveraged[winners]]
        state.deleveraged[touched] = True
        out["adl_accounts"][hour, v] += accounts.count[touched].sum()
        out["adl_volume"][hour, v, a] += matched * prices.mark[v, a]
        out["adl_haircut"][hour, v, a] += direction * (paid - prices.mark[v, a]) * matched


def adl_winners(state: State, prices: Prices, v: int, a: int, direction: float, closing: np.ndarray) -> np.ndarray:
    """Rows of one market side with an unrealised profit and positive equity that are not being liquidated."""
    accounts = state.accounts
    profit = state.quantity * (prices.mark[v, a] - accounts.entry)
    here = (accounts.venue == v) & (accounts.asset == a) & (np.sign(state.quantity) == direction)
    return np.flatnonzero(here & ~closing & (profit > 0) & (state.cash + profit > 0))


def adl_allocation(state: State, prices: Prices, v: int, a: int, winners: np.ndarray, coins: float) -> np.ndarray:
    """Coins that every winner closes, of one copy, positive; they sum to `coins` over rows and copies.

    `queue`: the highest (profit / entry notional) x (notional / equity) first, equal ranks pro rata. `pro_rata`: by
    profit, at most the own position; what a cap leaves over goes to the others.
    """
    accounts, mark = state.accounts, prices.mark[v, a]
    size, count = np.abs(state.quantity[winners]), accounts.count[winners]
    profit = state.quantity[winners] * (mark - accounts.entry[winners])
    if state.world.adl_rank[v] == "queue":
        equity = state.cash[winners] + profit
        rank = profit / (size * accounts.entry[winners]) * (size * mark / equity)
        _, group = np.unique(-rank, return_inverse=True)
        held = np.bincount(group, weights=count * size)
        before = np.cumsum(held) - held
        return size * np.clip((coins - before) / held, 0.0, 1.0)[group]
    free = np.ones(len(winners), bool)
    while np.any(free):
        per_profit = (coins - np.sum((count * size)[~free])) / np.sum((count * profit)[free])
        capped = free & (per_profit * profit >= size)
        if not np.any(capped):
            return np.where(free, per_profit * profit, size)
        free &= ~capped
    return size


# ------------------------------------------------------------------------------------------------ settlement and pools
def settle(state: State, slices: Slices) -> np.ndarray:
    """Settle every account whose slice is done: fee, surplus to trader or pool; returns the pools' deficits [F].

    fee = min(fee x notional closed in book or auction, equity left). A partial close pays it from the account's own
    equity and keeps the rest; a whole one without equity leaves its loss as a deficit.
    """
    world, accounts, hour = state.world, state.accounts, state.hour
    done = state.waiting[slices.row] == 0
    rows, count, mark = slices.row[done], slices.count[done], slices.mark[done]
    venue, pool = slices.venue[done], world.pool[slices.venue[done], slices.asset[done]]
    whole = state.whole[rows]
    state.quantity[rows] = np.where(whole, 0.0, state.quantity[rows])
    equity = state.cash[rows] + state.quantity[rows] * (mark - accounts.entry[rows])
    fee = np.minimum(world.fee[venue] * state.fee_value[rows], np.maximum(equity, 0.0))
    state.fee_value[rows] = 0.0
    surplus = np.where(whole & world.surplus_to_pool[venue], np.maximum(equity - fee, 0.0), 0.0)
    loss = np.where(whole, np.maximum(-equity, 0.0), 0.0)
    state.cash[rows] += loss - fee - surplus
    received, deficit = np.zeros_like(state.pool_cash), np.zeros_like(state.pool_cash)
    np.add.at(received, pool, count * (fee + surplus))
    np.add.at(deficit, pool, count * loss)
    state.pool_cash += received
    state.out["surplus"][hour] += received
    state.out["deficit"][hour] += deficit
    state.gross_cash += received.sum() + deficit.sum()
    return deficit


def cover(state: State, prices: Prices, deficit: np.ndarray, closing: np.ndarray) -> None:
    """Pools pay the round's deficits from their equity, the shortfall is socialised, and what is left they owe."""
    equity = pool_equity(state, prices)
    for f in map(int, np.flatnonzero(deficit > 0)):
        shortfall = deficit[f] - min(deficit[f], max(0.0, equity[f]))
        taken = socialise(state, prices, f, shortfall, closing) if shortfall > 0 else 0.0
        state.pool_cash[f] -= deficit[f] - taken
        state.out["socialised_loss"][state.hour, f] += taken


def socialise(state: State, prices: Prices, f: int, shortfall: float, closing: np.ndarray) -> float:
    """Take a loss from the unrealised profits in a pool's markets, pro rata and up to min(profit, equity) [USD].

    Profit is net of what was taken from it before, which is remembered per coin. Returns what was taken.
    """
    accounts = state.accounts
    mark = prices.mark[accounts.venue, accounts.asset]
    unrealised = state.quantity * (mark - accounts.entry)
    profit = unrealised - state.socialised * np.abs(state.quantity)
    reach = np.maximum(0.0, np.minimum(profit, state.cash + unrealised))
    reach[closing | (state.world.pool[accounts.venue, accounts.asset] != f)] = 0.0
    total = np.sum(accounts.count * reach)
    if total <= 0:
        return 0.0
    taken = reach * min(1.0, shortfall / total)
    state.cash -= taken
    payers = np.flatnonzero(taken)
    state.socialised[payers] += taken[payers] / np.abs(state.quantity[payers])
    state.gross_cash += np.sum(accounts.count * taken)
    return float(np.sum(accounts.count * taken))


def unwind_inventory(state: State, prices: Prices) -> None:
    """Pools sell inventory into the book at their rate, every market from the same imbalances, without a take bound.

    Args:
        state: With the imbalances of now, from which the flows start.
        prices: Of the last round; its marks turn USD into coins.
    """
    world, flow = state.world, np.zeros(state.world.listed.shape)
    coins, usd = np.zeros_like(flow), np.zeros_like(flow)
    for v, a in np.argwhere(state.inventory != 0):
        mark, held = prices.mark[v, a], state.inventory[v, a]
        coins[v, a] = np.sign(held) * min(abs(held), world.unwind[v, a] * world.dt / 60 / mark)
        flow[v, a] = -coins[v, a] * mark
    now = current_prices(state)
    for v, a in np.argwhere(flow != 0):
        price = world.start_price[a] * np.exp(mean_book_log(state, now, v, a, float(flow[v, a])))
        usd[v, a] = coins[v, a] * price
    state.inventory -= coins
    np.add.at(state.pool_cash, world.pool, usd)
    state.rest.take(coins, usd)
    state.gross_cash += np.abs(usd).sum()
    state.gross_coins = state.gross_coins + np.abs(coins)
    add_flows(state, flow)
