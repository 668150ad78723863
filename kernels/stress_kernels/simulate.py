"""All hours of a block of paths: random numbers in, hourly reports out."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.ladder import Ladders
from stress_kernels.money import add_up
from stress_kernels.price import Quotes, depth_divisor
from stress_kernels.state import Averages, Funds, State, open_hour, open_stocks, pool_equity
from stress_kernels.step import step
from stress_kernels.world import LAYERS, World

STATUS_OK, STATUS_NOT_FINITE = 0, 1

Outputs = dict[str, Array]


def path_keys(seed: Array, first: Array, count: int) -> Array:
    """Random keys of paths first, first + 1, ...: path i draws from fold_in(key(seed), i), whoever runs it."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(first + jnp.arange(count))


def simulate(exogenous: Float[Array, "step a p"], ladders: Ladders, world: World) -> Outputs:
    """Run every path through all hours.

    Args:
        exogenous: Log index without impact after each step, relative to the start.

    Returns:
        Arrays named as the run's variables; hours, where there are any, first and paths last.
    """
    steps, assets, paths = exogenous.shape
    depth = _depth(exogenous, world)
    state, averages = _open(ladders, world, assets, paths)
    shape = (world.hours, world.steps_per_hour, assets, paths)

    def one(carry: tuple[State, Averages], xs: tuple[Array, Array]) -> tuple[tuple[State, Averages], None]:
        return step(*carry, *xs, ladders, world), None

    def hour(carry: tuple[State, Averages], xs: tuple[Array, Array]) -> tuple[tuple[State, Averages], Outputs]:
        now, memory = carry
        equity = pool_equity(now.stocks, jnp.expm1(now.quotes.mark), world)
        left = jnp.broadcast_to(world.auction[..., None], now.makers_left.shape)
        now = replace(now, hour=open_hour(now.quotes, equity), makers_left=left)
        (now, memory), _ = jax.lax.scan(one, (now, memory), xs)
        return (now, memory), _report(now, world)

    blocks = (exogenous.reshape(shape), depth.reshape(shape))
    (state, averages), hourly = jax.lax.scan(hour, (state, averages), blocks)
    finite = jnp.all(jnp.isfinite(state.stocks.pool_cash.value), axis=0) & jnp.isfinite(averages.residual)
    return hourly | {
        "fund_drawdown": state.funds.drawdown,
        "fund_exhausted_hour": state.funds.exhausted_hour,
        "ledger_residual": averages.residual,
        "status": jnp.where(finite, STATUS_OK, STATUS_NOT_FINITE),
        "log_weight": jnp.zeros((paths,), exogenous.dtype),
    }


def _depth(exogenous: Float[Array, "step a p"], world: World) -> Float[Array, "step a p"]:
    """Depth divisor of every step, from the exogenous return of the last five minutes, or what there is of them."""
    lag = min(world.five_minutes, exogenous.shape[0])
    before = jnp.concatenate([jnp.zeros_like(exogenous[:lag]), exogenous[: exogenous.shape[0] - lag]])
    divisor = depth_divisor(exogenous - before, world.sigma)
    return jnp.where(world.impact.depth > 0, divisor, 1.0)


def _open(ladders: Ladders, world: World, assets: int, paths: int) -> tuple[State, Averages]:
    venues, dtype = world.adv.shape[0], ladders.rows.dtype
    pools, entries = world.pool_cash.shape[0], ladders.rows.shape[3]
    market = jnp.zeros((venues, assets, paths), dtype)
    ladder = jnp.zeros((venues, assets, 2, entries, paths), dtype)
    index, cash = market[0], jnp.broadcast_to(world.pool_cash[:, None], (pools, paths))
    quotes = Quotes(index=index, basis=market, mark=market)
    peaks = jnp.full((world.blocks + 1, pools, paths), -jnp.inf, dtype).at[0].set(cash)
    state = State(
        u_local=market,
        u_global=index,
        quotes=quotes,
        reach=ladder,
        done=ladder,
        queued=ladder,
        scale=jnp.ones_like(ladder),
        taken=ladder,
        funding=market,
        budget=market,
        makers_left=market,
        stocks=open_stocks(ladders, world, paths),
        funds=Funds(
            peak=cash,
            drawdown=jnp.zeros_like(cash),
            block_peaks=peaks,
            adl_on=jnp.zeros((pools, paths), bool),
            exhausted_hour=jnp.full((pools, paths), jnp.nan, dtype),
        ),
        hour=open_hour(quotes, cash),
    )
    memory = Averages(
        basis=jnp.zeros((world.window, *market.shape), dtype),
        basis_sum=market,
        premium_sum=market,
        residual=jnp.zeros((paths,), dtype),
        step=jnp.asarray(0),
    )
    return state, memory


def _report(state: State, world: World) -> Outputs:
    """What is kept of an hour."""
    hour, quotes, stocks = state.hour, state.quotes, state.stocks
    burden = jnp.where(hour.adl_burden > 0, hour.adl_burden, 1.0)
    longs = stocks.traders.value[:, :, 0] + sum(
        jnp.maximum(x.value, 0.0) for x in (stocks.makers, stocks.pools, stocks.rest)
    )
    mark = jnp.exp(quotes.mark)
    return {
        "liquidation_volume": add_up(hour.layers, 0),
        "absorbed_volume": jnp.moveaxis(add_up(hour.layers, 3), 0, 2),
        "deficit": hour.deficit,
        "surplus": hour.surplus,
        "fund_equity": pool_equity(stocks, jnp.expm1(quotes.mark), world),
        "fund_low": hour.fund_low,
        "adl_volume": add_up(hour.layers[LAYERS.index("adl")], 2),
        "adl_haircut": hour.adl_haircut,
        "adl_accounts": hour.adl_accounts,
        "adl_top_share": jnp.where(hour.adl_burden > 0, hour.adl_burden_top / burden, jnp.nan),
        "socialised_loss": hour.socialised,
        "index_close": jnp.exp(quotes.index),
        "index_low": jnp.exp(hour.index_low),
        "index_high": jnp.exp(hour.index_high),
        "basis_low": jnp.expm1(hour.basis_low),
        "basis_high": jnp.expm1(hour.basis_high),
        "open_interest": (longs + world.block[..., None]) * mark,
        "accounts_liquidated": hour.accounts,
        "first_round_volume": hour.first_round,
    }
