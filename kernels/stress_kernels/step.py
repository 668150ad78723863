"""One time step: prices, funding, cascade rounds, unwinding, funds."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stress_kernels.cascade import Held, cascade_round, observe, press, triggered
from stress_kernels.funding import funding_rate
from stress_kernels.ladder import Ladders
from stress_kernels.layers import curve
from stress_kernels.money import add_up
from stress_kernels.price import push, quotes
from stress_kernels.state import Averages, Funds, State, pool_equity
from stress_kernels.world import World

_DUST = 1e-3
"""An imbalance of coins at or below this is rounding, not a queue [coins]."""


def step(
    state: State, averages: Averages, exogenous: Float[Array, "a p"], depth: Float[Array, "a p"], ladders: Ladders, world: World
) -> tuple[State, Averages]:
    """From the end of one step to the end of the next.

    Args:
        exogenous: Log index without impact at the end of the step.
        depth: Depth divisor of the step.
    """
    impact = world.impact
    u_local, u_global = state.u_local * impact.decay_local, state.u_global * impact.decay_global
    basis = (1 - impact.rho) * push(u_local, impact)
    averages, average = _average(averages, basis, world)
    held = Held(exogenous=exogenous, depth=depth, basis_average=average)
    state = replace(
        state,
        u_local=u_local,
        u_global=u_global,
        quotes=quotes(exogenous, u_local, u_global, average, world),
        budget=jnp.broadcast_to(world.throughput[..., None], basis.shape),
    )
    state, averages = _fund(state, averages, world)
    state = _cascade(observe(state, world), held, ladders, world)
    state = observe(_unwind(state, held, world), world)
    state = replace(state, funds=_watch(state, averages.step, world))
    residual = jnp.maximum(averages.residual, ledger_residual(state, world))
    return state, replace(averages, residual=residual, step=averages.step + 1)


def _average(averages: Averages, basis: Float[Array, "v a p"], world: World) -> tuple[Averages, Float[Array, "v a p"]]:
    """Take a sample of the basis and average over each venue's window, at first over what there is of it."""
    k, size = averages.step, world.window
    venues = jnp.arange(basis.shape[0])
    window = world.rules.mark_window
    oldest = averages.basis[(k - window) % size, venues]
    gone = jnp.where((k >= window)[:, None, None], oldest, 0.0)
    total = averages.basis_sum + basis - gone
    samples = jax.lax.dynamic_update_index_in_dim(averages.basis, basis, k % size, 0)
    premium = averages.premium_sum + jnp.expm1(basis)
    count = jnp.minimum(k + 1, window).astype(basis.dtype)
    return replace(averages, basis=samples, basis_sum=total, premium_sum=premium), total / count[:, None, None]


def _fund(state: State, averages: Averages, world: World) -> tuple[State, Averages]:
    """Funding where its time has come: every holder of coins pays rate x mark, accounts through their triggers."""
    every = world.rules.funding_every
    due = (averages.step + 1) % every == 0

    def pay() -> tuple[State, Averages]:
        now = due[:, None, None]
        premium = averages.premium_sum / every.astype(averages.premium_sum.dtype)[:, None, None]
        mark = jnp.exp(state.quotes.mark)
        per_coin = jnp.where(now, funding_rate(premium, world.rules) * mark, 0.0)
        stocks = state.stocks

        def paid(coins: Float[Array, "v a p"]) -> Float[Array, "v p"]:
            return -add_up(per_coin * coins, 1)

        of_pools = world.to_pools(-per_coin * stocks.pools.value)
        of_traders = paid(add_up(stocks.traders.value, 2))
        flows = add_up(jnp.abs(per_coin)[:, :, None] * jnp.abs(stocks.traders.value), 0, 1, 2)
        stocks = replace(
            stocks,
            traders_cash=stocks.traders_cash.add(of_traders),
            makers_cash=stocks.makers_cash.add(paid(stocks.makers.value)),
            rest_cash=stocks.rest_cash.add(paid(stocks.rest.value)),
            pool_cash=stocks.pool_cash.add(of_pools),
            gross_cash=stocks.gross_cash + flows,
        )
        after = replace(state, stocks=stocks, funding=state.funding + per_coin)
        return after, replace(averages, premium_sum=jnp.where(now, 0.0, averages.premium_sum))

    return jax.lax.cond(jnp.any(due), pay, lambda: (state, averages))


def _cascade(state: State, held: Held, ladders: Ladders, world: World) -> State:
    """Rounds until one triggers nothing and no queue can use throughput, at most `world.rounds`."""

    def live(reach: Float[Array, "v a s e p"], now: State) -> Array:
        waiting = jnp.any(now.queued > _DUST, axis=(2, 3)) & (now.budget > 1.0)
        return jnp.any(reach > now.reach) | jnp.any(waiting)

    def more(carry: tuple[Array, State, Array]) -> Array:
        k, now, reach = carry
        return (k < world.rounds) & live(reach, now)

    def body(carry: tuple[Array, State, Array]) -> tuple[Array, State, Array]:
        k, now, reach = carry
        now = cascade_round(now, held, reach, k == 0, ladders, world)
        return k + 1, now, triggered(now, ladders, world)

    start = (jnp.asarray(0), state, triggered(state, ladders, world))
    return jax.lax.while_loop(more, body, start)[1]


def _unwind(state: State, held: Held, world: World) -> State:
    """Pools sell what they took over into the book, at most their rate."""
    held_coins = state.stocks.pools.value
    mark = jnp.exp(state.quotes.mark)

    def sell() -> State:
        coins = jnp.sign(held_coins) * jnp.minimum(jnp.abs(held_coins), world.unwind[..., None] / mark)
        flow = -coins * mark
        line = curve(held.exogenous, state.u_local, state.u_global, held.depth, world)
        price = jnp.exp(line.mean(flow[:, :, None], world)[:, :, 0])
        cash = coins * price
        stocks = replace(
            state.stocks,
            pool_cash=state.stocks.pool_cash.add(world.to_pools(cash)),
            rest_cash=state.stocks.rest_cash.add(-add_up(cash, 1)),
            pools=state.stocks.pools.add(-coins),
            rest=state.stocks.rest.add(coins),
            gross_cash=state.stocks.gross_cash + add_up(jnp.abs(cash), 0, 1),
            gross_coins=state.stocks.gross_coins + add_up(jnp.abs(coins), 0, 1),
        )
        return press(replace(state, stocks=stocks), flow, held, world)

    return jax.lax.cond(jnp.any(held_coins != 0), sell, lambda: state)


def _watch(state: State, k: Int[Array, ""], world: World) -> Funds:
    """Rolling peaks, drawdown ADL on or off, and the first hour without equity.

    The rolling peak is kept in blocks: the window is the blocks that lie in it and the one that runs.
    """
    funds = state.funds
    equity = pool_equity(state.stocks, jnp.expm1(state.quotes.mark), world)
    block, fresh = (k // world.block_steps) % (world.blocks + 1), (k % world.block_steps == 0) & (k > 0)
    old = jnp.where(fresh, equity, jax.lax.dynamic_index_in_dim(funds.block_peaks, block, 0, keepdims=False))
    peaks = jax.lax.dynamic_update_index_in_dim(funds.block_peaks, jnp.maximum(old, equity), block, 0)
    age = (block - jnp.arange(world.blocks + 1)) % (world.blocks + 1)
    within = age[:, None] <= world.rules.adl_blocks[world.pool_venue][None]
    rolling = jnp.max(jnp.where(within[..., None], peaks, -jnp.inf), axis=0)
    share = world.rules.adl_share[world.pool_venue][:, None]
    hour = (k // world.steps_per_hour).astype(equity.dtype)
    gone = (state.hour.fund_low <= 0) & jnp.isnan(funds.exhausted_hour)
    return replace(
        funds,
        block_peaks=peaks,
        adl_on=(share <= 1) & (equity <= (1 - share) * rolling),
        exhausted_hour=jnp.where(gone, hour, funds.exhausted_hour),
    )


def ledger_residual(state: State, world: World) -> Float[Array, " p"]:
    """Largest of what cash and coins fail to add up to over all parties, relative to gross flows and stocks."""
    books = state.stocks

    def over(x: Float[Array, "*b p"]) -> Float[Array, " p"]:
        return add_up(x, *range(x.ndim - 1))

    parties = (books.traders_cash, books.makers_cash, books.rest_cash, books.pool_cash)
    high, low = sum(over(x.high) for x in parties), sum(over(x.low) for x in parties)
    cash = (high - jnp.sum(world.pool_cash)) + low
    coins = add_up(books.traders.value, 2) + books.makers.value + books.pools.value + books.rest.value
    return jnp.maximum(jnp.abs(cash) / books.gross_cash, over(jnp.abs(coins)) / books.gross_coins)
