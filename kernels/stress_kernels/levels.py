"""Price levels without a path: what a move of the marks triggers, and what a block of orders does to them.

A level is a place that prices have come to from the start. All that is triggered on the way is closed; nothing else
has happened: no impact of its own, no funding, no deleveraging, none of the conditions that come and go. Triggers are
those of the accounts, not moved for what a path does between its steps. Levels lie along the last axis, `n`.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels import contracts
from stress_kernels.account_margin import Look, marked, short_of_margin, untouched
from stress_kernels.account_rounds import by_side
from stress_kernels.account_staging import coins_to_close, only_a_share
from stress_kernels.accounts import Accounts
from stress_kernels.ladder import Ladders, position, quantity, row_at
from stress_kernels.money import add_up
from stress_kernels.price import Quotes, quotes
from stress_kernels.world import World


def quotes_at(level: Float[Array, "a n"], flow: Float[Array, "v a n"], depth: Float[Array, ""], world: World) -> Quotes:
    """Quotes at a level of the indices, after a flow into books that no other order has touched.

    The mark is that of the moment: the average basis is still 0, so that a median, or an index with the average, only
    shows what has reached the index.

    Args:
        level: Log index without the flow.
        flow: Of a moment [USD, sells negative].
        depth: Depth divisor.
        world: Rules and parameters.
    """
    u_local = flow * depth / world.adv[..., None]
    u_global = add_up(flow, 0) * depth / world.adv_global[:, None]
    return quotes(level, u_local, u_global, jnp.zeros_like(flow), world)


def triggered_between(
    before: Quotes, after: Quotes, ladders: Ladders, accounts: Accounts | None, world: World
) -> Float[Array, "v a s n"]:
    """What is closed where prices go on from one level to the next, at the marks of the latter [USD].

    Of staged accounts on ladders, all partial closes whose triggers lie between the two; of staged accounts on cross
    margin, what their first test closes. One that was triggered at or before the first level is gone.
    """
    found = _of_ladders(before, after, ladders, world)
    return found if accounts is None else found + _of_accounts(before, after, accounts, world)


def _of_ladders(before: Quotes, after: Quotes, ladders: Ladders, world: World) -> Float[Array, "v a s n"]:
    def passed(mark: Float[Array, "v a n"]) -> Float[Array, "v a s e n"]:
        return quantity(row_at(ladders, _place(ladders, -ladders.sign * mark[:, :, None, None])))

    coins = jnp.maximum(passed(after.mark) - passed(before.mark), 0.0)
    unit = contracts.unit(jnp.expm1(after.mark), world.inverse)
    return add_up(coins, 3) * unit[:, :, None]


def _place(ladders: Ladders, depth: Float[Array, "v a s e n"]) -> Float[Array, "v a s e n"]:
    """Place on a ladder; where a cell is shared, its accounts lie evenly in it, as a block may move prices by less."""
    if ladders.probes > 0:
        return position(ladders, depth)
    depth = jnp.maximum(depth, 0.0)
    return ladders.cells * (depth / (ladders.spread + depth))


def _of_accounts(before: Quotes, after: Quotes, accounts: Accounts, world: World) -> Float[Array, "v a s n"]:
    accounts = replace(accounts, barrier=None)

    def seen(mark: Float[Array, "v a"], spot: Float[Array, "v a"]) -> tuple[Look, Bool[Array, "k b"]]:
        look, there = untouched(accounts, jnp.expm1(mark)[accounts.venue], jnp.expm1(spot)[accounts.venue])
        return look, there & short_of_margin(look, accounts)

    def one(prices: tuple[Array, Array, Array, Array]) -> Float[Array, "v a s"]:
        _, gone = seen(*prices[:2])
        look, hit = seen(*prices[2:])
        hit = hit & ~gone
        coins = jnp.where(hit[:, None], coins_to_close(look, accounts, hit, only_a_share(look, accounts)), 0.0)
        usd = by_side(coins * marked(look).unit * accounts.count[:, None], look.quantity)
        return jnp.zeros((*world.adv.shape, 2), usd.dtype).at[accounts.venue].add(usd)

    levels = (before.mark, _spot(before), after.mark, _spot(after))
    closed = jax.lax.map(one, tuple(jnp.moveaxis(x, -1, 0) for x in levels))
    return jnp.moveaxis(closed, 0, -1)


def _spot(of: Quotes) -> Float[Array, "v a n"]:
    """Spot prices; the marks where coins are nobody's money, and none is asked for."""
    return of.mark if of.spot is None else of.spot
