"""What is carried through a path (`State`), apart from what is reported of an hour (`Hour`)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.ladder import CLASSES, Ladders, quantity, total_row
from stress_kernels.money import Sum
from stress_kernels.price import Quotes
from stress_kernels.pytree import pytree
from stress_kernels.world import LAYERS, World


@pytree
class Stocks:
    """Cash [USD] and coins of every party since the start, each booked by itself; none is derived from the others."""

    traders_cash: Sum
    makers_cash: Sum
    rest_cash: Sum
    pool_cash: Sum
    """(f p), and it starts at the pool's cash."""
    traders: Sum
    """Coins by side, (v a s p): longs and minus shorts."""
    makers: Sum
    """(v a p)"""
    pools: Sum
    """Inventory, (v a p)."""
    rest: Sum
    """(v a p)"""
    gross_cash: Float[Array, " p"]
    """Opening stocks and absolute flows [USD]."""
    gross_coins: Float[Array, " p"]


@pytree
class Hour:
    """Sums and extremes since the hour began."""

    layers: Float[Array, "layer v a s p"]
    """Closed, by layer [USD]."""
    first_round: Float[Array, "v a p"]
    accounts: Float[Array, "v p"]
    deficit: Float[Array, "f p"]
    surplus: Float[Array, "f p"]
    socialised: Float[Array, "f p"]
    fund_low: Float[Array, "f p"]
    adl_haircut: Float[Array, "v a p"]
    adl_accounts: Float[Array, "v p"]
    adl_burden: Float[Array, "v p"]
    """|haircut| summed over markets [USD]."""
    adl_burden_top: Float[Array, "v p"]
    """The part borne by the largest 1 % of accounts [USD]."""
    index_low: Float[Array, "a p"]
    index_high: Float[Array, "a p"]
    basis_low: Float[Array, "v a p"]
    basis_high: Float[Array, "v a p"]


@pytree
class Funds:
    """How the pools have fared."""

    peak: Float[Array, "f p"]
    """Largest equity so far [USD]."""
    drawdown: Float[Array, "f p"]
    """Largest fall from it [USD]."""
    block_peaks: Float[Array, "block f p"]
    """Largest equity in each of the last blocks of the rolling window [USD]."""
    adl_on: Bool[Array, "f p"]
    exhausted_hour: Float[Array, "f p"]
    """First hour with equity at or below zero; NaN before."""


@pytree
class State:
    """A path between two rounds."""

    u_local: Float[Array, "v a p"]
    u_global: Float[Array, "a p"]
    quotes: Quotes
    reach: Float[Array, "v a s e p"]
    """Place on the ladder up to which accounts have been triggered."""
    done: Float[Array, "v a s e p"]
    """Place up to which they have been admitted and closed; what lies between waits in the engine's queue."""
    queued: Float[Array, "v a s e p"]
    """Coins between the two."""
    scale: Float[Array, "v a s e p"]
    """Share of the rungs not yet reached that deleveraging has left."""
    taken: Float[Array, "v a s e p"]
    """Socialised so far [USD per coin]."""
    funding: Float[Array, "v a p"]
    """Paid so far by one long coin [USD]."""
    budget: Float[Array, "v a p"]
    """What the engine can still take in during this step [USD]."""
    makers_left: Float[Array, "v a p"]
    """What the makers can still take in this hour [USD]."""
    stocks: Stocks
    funds: Funds
    hour: Hour


@pytree
class Averages:
    """What has a memory of steps."""

    basis: Float[Array, "window v a p"]
    basis_sum: Float[Array, "v a p"]
    premium_sum: Float[Array, "v a p"]
    residual: Float[Array, " p"]
    """Largest relative imbalance of the ledger so far."""
    step: Int[Array, ""]


def pool_equity(stocks: Stocks, mark_move: Float[Array, "v a p"], world: World) -> Float[Array, "f p"]:
    """Cash and inventory at the mark [USD]."""
    held = stocks.pools.value * (1 + mark_move)
    return stocks.pool_cash.value + world.to_pools(held)


def open_stocks(ladders: Ladders, world: World, paths: int) -> Stocks:
    """Stocks before the first step; the rest of the market holds minus the sum of all positions."""
    total = total_row(ladders)
    sign = jnp.asarray([1.0, -1.0], total.dtype)
    held = quantity(total[..., None])[..., 0]
    coins = sign * jnp.sum(held, axis=-1)
    value = jnp.sum(total[..., 1 : 2 * CLASSES : 2], axis=(-1, -2))
    cash = -sign * (jnp.sum(held, axis=-1) + value)

    def zeros(*shape: int) -> Sum:
        return Sum.of(jnp.zeros((*shape, paths), total.dtype))

    def each(x: Array) -> Array:
        return jnp.broadcast_to(x[..., None], (*x.shape, paths))

    venues, assets = world.adv.shape
    gross = jnp.sum(jnp.abs(cash)) + jnp.sum(world.pool_cash)
    return Stocks(
        traders_cash=zeros(venues),
        makers_cash=zeros(venues),
        rest_cash=zeros(venues),
        pool_cash=Sum.of(each(world.pool_cash)),
        traders=Sum.of(each(coins)),
        makers=zeros(venues, assets),
        pools=zeros(venues, assets),
        rest=Sum.of(each(-jnp.sum(coins, axis=-1))),
        gross_cash=each(gross[None])[0],
        gross_coins=each(2 * jnp.sum(jnp.abs(coins))[None])[0],
    )


def open_hour(quotes: Quotes, equity: Float[Array, "f p"]) -> Hour:
    """An hour in which nothing has happened yet."""
    venues, assets, paths = quotes.basis.shape
    dtype = equity.dtype

    def zeros(*shape: int) -> Array:
        return jnp.zeros((*shape, paths), dtype)

    return Hour(
        layers=zeros(len(LAYERS), venues, assets, 2),
        first_round=zeros(venues, assets),
        accounts=zeros(venues),
        deficit=jnp.zeros_like(equity),
        surplus=jnp.zeros_like(equity),
        socialised=jnp.zeros_like(equity),
        fund_low=equity,
        adl_haircut=zeros(venues, assets),
        adl_accounts=zeros(venues),
        adl_burden=zeros(venues),
        adl_burden_top=zeros(venues),
        index_low=quotes.index,
        index_high=quotes.index,
        basis_low=quotes.basis,
        basis_high=quotes.basis,
    )
