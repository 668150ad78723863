"""What is carried through a path.

`State` is what every step looks at on every path; `Record` is what only a round, a payment or a report touches.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.accounts import Accounts, positions
from stress_kernels.ladder import CLASSES, Kept, Ladders, quantity, total_row
from stress_kernels.money import Sum, add_up
from stress_kernels.policy import Burden, no_burden
from stress_kernels.price import Quotes
from stress_kernels.pytree import pytree
from stress_kernels.world import LAYERS, World, side_sign


@pytree
class Funds:
    """The pools: what they hold and how they have fared."""

    cash: Sum
    """(f p) [USD]"""
    inventory: Sum
    """What they took over and have not sold, (v a p) [coins]."""
    peak: Float[Array, "f p"]
    """Largest equity so far [USD]."""
    drawdown: Float[Array, "f p"]
    """Largest fall from it [USD]."""
    adl_on: Bool[Array, "f p"]
    exhausted_hour: Float[Array, "f p"]
    """First hour with equity at or below zero; NaN before."""


@pytree
class Extremes:
    """Lowest and highest since the hour began."""

    fund_low: Float[Array, "f p"]
    index_low: Float[Array, "a p"]
    index_high: Float[Array, "a p"]
    basis_low: Float[Array, "v a p"]
    basis_high: Float[Array, "v a p"]


@pytree
class State:
    """A path between two rounds."""

    u_local: Float[Array, "v a p"]
    u_global: Float[Array, "a p"]
    quotes: Quotes
    reach: Float[Array, "v a s e p"]
    """Place on the ladder up to which accounts have been triggered."""
    queued: Float[Array, "v a s e p"]
    """Coins triggered that wait in the engine's queue."""
    kept: Kept
    funds: Funds
    extremes: Extremes
    residual: Float[Array, " p"]
    """Largest relative imbalance of the ledger so far."""


@pytree
class Stocks:
    """Cash [USD] and coins of every party but the pools since the start, each booked by itself; none is derived from
    the others."""

    traders_cash: Sum
    """(v p)"""
    makers_cash: Sum
    rest_cash: Sum
    traders: Sum
    """Coins by side, (v a s p): longs, and shorts as negative numbers."""
    makers: Sum
    """(v a p)"""
    rest: Sum
    """(v a p)"""
    gross_cash: Float[Array, " p"]
    """Opening stocks and absolute flows [USD]."""
    gross_coins: Float[Array, " p"]


@pytree
class Hour:
    """Sums since the hour began."""

    layers: Float[Array, "layer v a s p"]
    """Closed, by layer [USD]."""
    first_round: Float[Array, "v a p"]
    accounts: Float[Array, "v p"]
    deficit: Float[Array, "f p"]
    surplus: Float[Array, "f p"]
    socialised: Float[Array, "f p"]
    adl_haircut: Float[Array, "v a p"]
    adl_accounts: Float[Array, "v a s e p"]
    """Winners closed on ladders; where everyone in profit is, again and again, they count once."""
    adl_cross_accounts: Float[Array, "v p"]
    """Winners closed on cross margin, each counted once."""
    burden: Burden
    """Who paid for it."""


@pytree
class Record:
    """The rest of a path between two rounds."""

    done: Float[Array, "v a s e p"]
    """Place on the ladder up to which accounts have been admitted and closed; from there to `State.reach` they wait."""
    taken: Float[Array, "v a s e p"]
    """Socialised so far [USD per coin held]."""
    budget: Float[Array, "v a p"]
    """What the engine can still take in during this step [USD]."""
    makers_left: Float[Array, "v a p"]
    """What the makers can still take in this hour [USD]."""
    stocks: Stocks
    hour: Hour


@pytree
class Memory:
    """What remembers earlier steps."""

    basis: Float[Array, "window v a p"]
    basis_sum: Float[Array, "v a p"]
    premium_sum: Float[Array, "v a p"]
    block_peaks: Float[Array, "block f p"]
    """Largest fund equity in each of the last blocks of the rolling window [USD]."""
    step: Int[Array, ""]


def pool_equity(funds: Funds, mark_move: Float[Array, "v a p"], world: World) -> Float[Array, "f p"]:
    """Cash and inventory at the mark [USD]."""
    return funds.cash.value + world.to_pools(funds.inventory.value * (1 + mark_move))


def ledger_residual(stocks: Stocks, funds: Funds, world: World) -> Float[Array, " p"]:
    """Largest of what cash and coins fail to add up to over all parties, relative to gross flows and stocks."""

    def over(x: Float[Array, "*b p"]) -> Float[Array, " p"]:
        return add_up(x, *range(x.ndim - 1))

    parties = (stocks.traders_cash, stocks.makers_cash, stocks.rest_cash, funds.cash)
    high, low = sum(over(x.high) for x in parties), sum(over(x.low) for x in parties)
    cash = (high - jnp.sum(world.pool_cash)) + low
    coins = add_up(stocks.traders.value, 2) + stocks.makers.value + funds.inventory.value + stocks.rest.value
    return jnp.maximum(jnp.abs(cash) / stocks.gross_cash, over(jnp.abs(coins)) / stocks.gross_coins)


def open_stocks(ladders: Ladders, accounts: Accounts | None, world: World, paths: int) -> Stocks:
    """Stocks before the first step; the rest of the market holds minus the sum of all positions."""
    total = total_row(ladders)
    held = add_up(quantity(total[..., None])[..., 0], -1)
    sign = side_sign(held)
    coins = sign * held
    cash = -sign * (held + add_up(total[..., 1 : 2 * CLASSES : 2], -1, -2))
    if accounts is not None:
        coins = coins + positions(accounts)

    def zeros(*shape: int) -> Sum:
        return Sum.of(jnp.zeros((*shape, paths), total.dtype))

    def each(x: Array) -> Array:
        return jnp.broadcast_to(x[..., None], (*x.shape, paths))

    venues, assets = world.adv.shape
    return Stocks(
        traders_cash=zeros(venues),
        makers_cash=zeros(venues),
        rest_cash=zeros(venues),
        traders=Sum.of(each(coins)),
        makers=zeros(venues, assets),
        rest=Sum.of(each(-add_up(coins, -1))),
        gross_cash=each(jnp.sum(jnp.abs(cash)) + jnp.sum(world.pool_cash)),
        gross_coins=each(2 * jnp.sum(jnp.abs(coins))),
    )


def open_extremes(quotes: Quotes, equity: Float[Array, "f p"]) -> Extremes:
    """Extremes of an hour that begins at these quotes."""
    return Extremes(
        fund_low=equity,
        index_low=quotes.index,
        index_high=quotes.index,
        basis_low=quotes.basis,
        basis_high=quotes.basis,
    )


def open_hour(venues: int, assets: int, entries: int, pools: int, paths: int, dtype: jnp.dtype) -> Hour:
    """An hour in which nothing has happened yet."""

    def zeros(*shape: int) -> Array:
        return jnp.zeros((*shape, paths), dtype)

    return Hour(
        layers=zeros(len(LAYERS), venues, assets, 2),
        first_round=zeros(venues, assets),
        accounts=zeros(venues),
        deficit=zeros(pools),
        surplus=zeros(pools),
        socialised=zeros(pools),
        adl_haircut=zeros(venues, assets),
        adl_accounts=zeros(venues, assets, 2, entries),
        adl_cross_accounts=zeros(venues),
        burden=no_burden(venues, assets, paths, dtype),
    )
