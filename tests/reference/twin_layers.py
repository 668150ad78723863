"""The slow twin's liquidation engine: the layers that take slices once it has taken them in.

Every trade is posted to both sides: to the account that closes (`close`) and to who takes it (`Holder.take`, the pools,
or the winners of an ADL). Prices of trades are settle prices (`Values`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .twin_accounts import equities, maintenance, maintenance_shares, seen, without_equity
from .twin_prices import Prices, add_flows, book_log, current_prices, mean_book_log, pressed, settle_price
from .twin_state import DIRECTIONS, State, layers_of


@dataclass
class Slices:
    """What the engine took in this round, one slice a position; `coins` of one copy, positive, shrink by layer."""

    row: np.ndarray
    venue: np.ndarray
    asset: np.ndarray
    side: np.ndarray  # 0 long, 1 short
    direction: np.ndarray  # +1 long, -1 short
    count: np.ndarray
    coins: np.ndarray
    admitted: np.ndarray  # what `coins` was at first
    unit: np.ndarray  # notional of a unit at the mark [USD]
    mark: np.ndarray  # settle price of the mark
    bankruptcy: np.ndarray  # settle price at which the account's equity is zero
    bankrupt: np.ndarray  # whether the account has no equity at the mark, bool
    ratio: np.ndarray  # of the account's equity, with the haircuts' weights, to its maintenance

    @classmethod
    def of(cls, state: State, prices: Prices, rows: np.ndarray, assets: np.ndarray, coins: np.ndarray) -> Slices:
        """Slices of `coins` of the positions in `rows` and `assets`; p_b = m - E (M_a / M) / q_a as they stand now."""
        accounts, at = state.accounts, seen(state, prices)
        venue, quantity = accounts.venue[rows], state.quantity[rows, assets]
        kept = np.sum(maintenance(state, at, state.quantity), axis=1)
        equity = (equities(state, at)[:, None] * maintenance_shares(state, at) / at.money)[rows, assets]
        return cls(
            row=rows,
            venue=venue,
            asset=assets,
            side=np.where(quantity > 0, 0, 1),
            direction=np.sign(quantity),
            count=accounts.count[rows],
            coins=coins,
            admitted=coins.copy(),
            unit=at.unit[rows, assets],
            mark=at.settle[rows, assets],
            bankruptcy=at.settle[rows, assets] - equity / quantity,
            bankrupt=without_equity(state, at)[rows],
            ratio=(equities(state, at, weighted=True) / np.where(kept > 0, kept, np.inf))[rows],
        )

    def total(self, state: State, values: np.ndarray) -> np.ndarray:
        """Sum of `values` over slices and copies by market and side [V,A,2]."""
        out = np.zeros((*state.world.listed.shape, 2))
        np.add.at(out, (self.venue, self.asset, self.side), self.count * values)
        return out


def close(
    state: State, slices: Slices, take: np.ndarray, price: np.ndarray, layer: str
) -> tuple[np.ndarray, np.ndarray]:
    """The traders' side of a layer: close `take` coins of every slice at `price`.

    Returns:
        What the other side takes: signed coins [V,A] and the signed money it pays for them [V,A] [USD or coins].
    """
    rows, assets, world, hour = slices.row, slices.asset, state.world, state.hour
    slices.coins = slices.coins - take
    state.pay(rows, assets, slices.direction * take * (price - state.entry[rows, assets]))
    state.quantity[rows, assets] -= slices.direction * take
    if layer in ("book", "auction"):
        inverse = world.inverse[slices.venue, assets]
        state.fee_value[rows, assets] += take * np.where(inverse, -slices.mark, price)
    volume = slices.total(state, take * slices.unit)
    state.out["liquidation_volume"][hour] += volume
    state.out["absorbed_volume"][hour][:, :, layers_of(world).index(layer)] += volume.sum(axis=2)
    state.note_flow(slices.total(state, take * np.abs(price)).sum(axis=2))
    state.gross_coins = state.gross_coins + slices.total(state, take).sum(axis=2)
    coins, cost = np.zeros(world.listed.shape), np.zeros(world.listed.shape)
    where, signed = (slices.venue, slices.asset), slices.count * slices.direction * take
    np.add.at(coins, where, signed)
    np.add.at(cost, where, signed * price)
    return coins, cost


def book(state: State, prices: Prices, slices: Slices, eligible: np.ndarray) -> np.ndarray:
    """Order book: every market side fills by itself until the marginal price is the take bound away from the mark.

    It begins where the stop orders of its own side have led.

    Returns the flow of all sides [V,A] [USD at the mark, sells negative].
    """
    world = state.world
    asked = slices.total(state, np.where(eligible, slices.coins * slices.unit, 0.0))
    share, price, flow = np.zeros_like(asked), np.ones_like(asked), np.zeros(world.listed.shape)
    for v, a, side in np.argwhere(asked > 0):
        full = -DIRECTIONS[side] * asked[v, a, side]
        with pressed(state, v, a, float(state.stop_flow[v, a, side])):
            part = book_part(state, prices, v, a, DIRECTIONS[side], full)
            price[v, a, side] = world.start_price[a] * np.exp(mean_book_log(state, prices, v, a, part * full))
        share[v, a, side] = part
        flow[v, a] += part * full
    where = slices.venue, slices.asset, slices.side
    take = np.where(eligible, slices.coins * share[where], 0.0)
    paid = settle_price(price[where], world.inverse[slices.venue, slices.asset])
    state.rest.take(*close(state, slices, take, paid, "book"))
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


def auction(state: State, prices: Prices, slices: Slices, eligible: np.ndarray) -> None:
    """Market makers buy at a discount to the mark (sell at a premium), up to their capacity left in this clock hour."""
    asked = slices.total(state, np.where(eligible, slices.coins * slices.unit, 0.0)).sum(axis=2)
    gone = state.unusual.get("absent", 0.0) * state.world.auction_capacity  # of makers that have left
    left = np.maximum(0.0, state.auction_left - gone)
    share = np.where(asked > 0, np.minimum(1.0, left / np.where(asked > 0, asked, 1.0)), 0.0)
    state.auction_left = np.maximum(0.0, state.auction_left - share * asked)
    where = slices.venue, slices.asset
    take = np.where(eligible, slices.coins * share[where], 0.0)
    price = prices.mark[where] * (1 - slices.direction * state.world.auction_discount[where])
    paid = settle_price(price, state.world.inverse[where])
    state.makers.take(*close(state, slices, take, paid, "auction"))


def takeover(state: State, prices: Prices, slices: Slices, eligible: np.ndarray, opening_equity: np.ndarray) -> None:
    """A pool takes slices over at their bankruptcy prices, up to multiple x equity less what it holds, at the mark."""
    world = state.world
    held, asked = np.zeros_like(opening_equity), np.zeros_like(opening_equity)
    np.add.at(held, world.pool, np.abs(state.inventory) * prices.at.unit)
    wanted = slices.total(state, np.where(eligible, slices.coins * slices.unit, 0.0)).sum(axis=2)
    np.add.at(asked, world.pool, wanted)
    capacity = np.maximum(0.0, world.takeover_multiple * opening_equity - held)
    share = np.where(asked > 0, np.minimum(1.0, capacity / np.where(asked > 0, asked, 1.0)), 0.0)
    take = np.where(eligible, slices.coins * share[world.pool[slices.venue, slices.asset]], 0.0)
    coins, cost = close(state, slices, take, slices.bankruptcy, "takeover")
    state.inventory += coins
    state.pool_receives(-cost)


def vault(state: State, prices: Prices, slices: Slices, eligible: np.ndarray) -> None:
    """The venue's backstop vault takes what comes from accounts far enough below maintenance, up to its capacity.

    It takes at the bankruptcy price, but for bounds on its profit against the mark: beyond the upper one the account
    keeps the rest, below the lower one the pool has a deficit to pay. Gain and loss are the vault's; while its equity
    is at or below zero it takes nothing. Capacity is shared over the venue's markets pro rata to what reaches it.
    """
    world = state.world
    eligible = eligible & (slices.ratio < world.vault_entry[slices.venue])
    asked = slices.total(state, np.where(eligible, slices.coins * slices.unit, 0.0)).sum(axis=(1, 2))
    held = np.sum(np.abs(state.vault.inventory) * prices.at.unit, axis=1)
    free = np.where(state.vault.equity(prices) > 0, np.maximum(0.0, world.vault_capacity - held), 0.0)
    share = np.where(asked > 0, np.minimum(1.0, free / np.where(asked > 0, asked, 1.0)), 0.0)
    take = np.where(eligible, slices.coins * share[slices.venue], 0.0)
    inverse, mark = world.inverse[slices.venue, slices.asset], prices.mark[slices.venue, slices.asset]
    bankruptcy = settle_price(slices.bankruptcy, inverse)  # its own inverse
    low, high = world.vault_profit[slices.venue].T
    profit = np.clip(slices.direction * (1 - bankruptcy / mark), low, high)
    paid = settle_price(mark * (1 - slices.direction * profit), inverse)
    coins, cost = close(state, slices, take, paid, "vault")
    state.vault.inventory += coins
    state.vault.receive(-cost, world.inverse)


def unwind_inventory(state: State) -> None:
    """Pools and vaults sell inventory into the book at their rates, at the present marks and without a take bound.

    Every market, and either of the two in it, starts from the same imbalances.
    """
    world, now = state.world, current_prices(state)
    pools_get, pools_flow = unwind(state, now, state.inventory, world.unwind * state.working)
    vaults_get, vaults_flow = unwind(state, now, state.vault.inventory, world.vault_unwind * state.working)
    state.pool_receives(pools_get)
    state.vault.receive(vaults_get, world.inverse)
    add_flows(state, pools_flow + vaults_flow)


def unwind(state: State, now: Prices, inventory: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sell from an inventory [V,A], which is reduced in place, to the rest of the market.

    Returns:
        What it brought [V,A] [USD or coins], and the flow [V,A] [USD, sells negative].
    """
    world = state.world
    minutes = world.dt / 60
    coins = np.sign(inventory) * np.minimum(np.abs(inventory), rate * minutes / now.at.unit)
    flow, price = -coins * now.at.unit, np.ones(world.listed.shape)
    for v, a in np.argwhere(flow != 0):
        price[v, a] = world.start_price[a] * np.exp(mean_book_log(state, now, v, a, float(flow[v, a])))
    proceeds = coins * settle_price(price, world.inverse)
    inventory -= coins
    state.rest.take(coins, proceeds)
    state.note_flow(proceeds)
    state.gross_coins = state.gross_coins + np.abs(coins)
    return proceeds, flow
