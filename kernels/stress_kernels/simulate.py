"""All hours of a block of paths: random numbers in, hourly reports out."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stress_kernels.account_watch import open_watched
from stress_kernels.accounts import Accounts
from stress_kernels.behaviour import Mood, ages, moods
from stress_kernels.breakers import open_halts
from stress_kernels.cohorts import inflow_of, joined, none_open
from stress_kernels.contracts import Worth
from stress_kernels.funds import open_funds
from stress_kernels.ladder import Kept, Ladders
from stress_kernels.ledger import ledger_residual, open_stocks
from stress_kernels.money import add_up
from stress_kernels.policy import judge
from stress_kernels.price import Quotes, depth_divisor
from stress_kernels.rows import pack, template, unpack
from stress_kernels.state import Hour, Memory, Record, State, layers_of, open_extremes, open_hour, worth_of
from stress_kernels.step import Carry, step
from stress_kernels.world import World

STATUS_OK, STATUS_NOT_FINITE = 0, 1

Outputs = dict[str, Array]
Steps = tuple[Array, Array, Mood]
"""Of every step the index without impact, the depth divisor, and the mood."""


def path_keys(seed: Array, first: Array, count: int) -> Array:
    """Random keys of paths first, first + 1, ...: path i draws from fold_in(key(seed), i), whoever runs it."""
    return keys_of(seed, first + jnp.arange(count))


def keys_of(seed: Array, numbers: Int[Array, " p"]) -> Array:
    """Random keys of paths by their numbers."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(numbers)


def simulate(
    exogenous: Float[Array, "step a p"], ladders: Ladders, world: World, accounts: Accounts | None = None
) -> Outputs:
    """Run every path through all hours.

    Args:
        exogenous: Log index without impact after each step, relative to the start.
        accounts: Those on cross margin, where there are any.

    Returns:
        Arrays named as the run's variables; hours, where there are any, first and paths last.
    """
    return through_hours(exogenous, ladders, world, accounts)[0]


def through_hours(
    exogenous: Float[Array, "step a p"], ladders: Ladders, world: World, accounts: Accounts | None = None
) -> tuple[Outputs, Carry, Record]:
    """As `simulate`, and the block after its last step, with what its record is like."""
    _, assets, paths = exogenous.shape
    carry, kept = open_carry(ladders, world, accounts, assets, paths)
    like, ladders = template(kept), joined(ladders, inflow_of(world))

    def one(now: Carry, xs: Steps) -> tuple[Carry, None]:
        exogenous, depth, mood = xs
        return step(now, exogenous, depth, like, ladders, world, accounts, mood), None

    def hour(now: Carry, xs: Steps) -> tuple[Carry, Outputs]:
        opening = open_interest(now.state, unpack(now.record, like), world)
        now, _ = jax.lax.scan(one, _new_hour(now, like, world), xs)
        return now, _paused(now, world) | report(now.state, unpack(now.record, like), opening, world)

    carry, hourly = jax.lax.scan(hour, carry, _by_hour(exogenous, world))
    residual = jnp.max(hourly.pop("ledger_residual"), axis=0)
    outputs = hourly | {
        "fund_drawdown": carry.state.funds.drawdown,
        "fund_exhausted_hour": carry.state.funds.exhausted_hour,
        "ledger_residual": residual,
        "status": status(carry, residual),
        "log_weight": jnp.zeros((paths,), exogenous.dtype),
    }
    return outputs, carry, like


def status(carry: Carry, residual: Float[Array, " p"]) -> Int[Array, " p"]:
    """Whether paths are sound."""
    finite = jnp.all(jnp.isfinite(carry.state.funds.cash.value), axis=0) & jnp.isfinite(residual)
    return jnp.where(finite, STATUS_OK, STATUS_NOT_FINITE)


def trace(
    exogenous: Float[Array, "step a p"],
    ladders: Ladders,
    world: World,
    which: Int[Array, ""],
    accounts: Accounts | None = None,
) -> Outputs:
    """Every step of one path. The others are simulated beside it, as a program of another shape may round otherwise.

    Args:
        exogenous: As in `simulate`.
        which: Place of the path among the others.
        accounts: Those on cross margin, where there are any.

    Returns:
        Arrays as from `simulate`, of steps and not of hours, and log marks and last prices of the step's end; steps
        first and without paths. Accounts that are deleveraged in several steps of an hour count in the first.
    """
    _, assets, paths = exogenous.shape
    carry, kept = open_carry(ladders, world, accounts, assets, paths)
    like, ladders = template(kept), joined(ladders, inflow_of(world))

    def one(now: Carry, xs: Steps) -> tuple[Carry, Outputs]:
        exogenous, depth, mood = xs
        now = cleared(now, like, world)
        opening = open_interest(now.state, unpack(now.record, like), world)
        now = step(now, exogenous, depth, like, ladders, world, accounts, mood)
        quotes = now.state.quotes
        prices = {"mark": quotes.mark, "last": quotes.index[None] + quotes.basis}
        found = report(now.state, unpack(now.record, like), opening, world) | prices
        return now, {name: x[..., which] for name, x in found.items()}

    def hour(now: Carry, xs: Steps) -> tuple[Carry, Outputs]:
        return jax.lax.scan(one, _new_hour(now, like, world), xs)

    _, steps = jax.lax.scan(hour, carry, _by_hour(exogenous, world))
    return {name: x.reshape(-1, *x.shape[2:]) for name, x in steps.items()}


def _by_hour(exogenous: Float[Array, "step a p"], world: World) -> Steps:
    """What the exogenous path alone decides of every step, by hour: (hour step a p)."""
    shape = (world.hours, world.steps_per_hour, *exogenous.shape[1:])
    mood = moods(ages(exogenous, world.behaviour), world.behaviour)
    depth = depth_of_steps(exogenous, mood, world)
    return jax.tree.map(lambda x: x.reshape(shape), (exogenous, depth, mood))


def depth_of_steps(exogenous: Float[Array, "step a p"], mood: Mood, world: World) -> Float[Array, "step a p"]:
    """Depth divisor of every step, from the exogenous return of the last five minutes, or what there is of them; times
    what an overlay makes of it, and what makers that have left leave of it."""
    lag = min(world.five_minutes, exogenous.shape[0])
    before = jnp.concatenate([jnp.zeros_like(exogenous[:lag]), exogenous[: exogenous.shape[0] - lag]])
    divisor = depth_divisor(exogenous - before, world.sigma)
    divisor, thinness = jnp.where(world.impact.depth > 0, divisor, 1.0), world.conditions.thinness
    divisor = divisor if thinness is None else divisor * thinness[..., None]
    return divisor if mood.absent is None else divisor / (1 - mood.absent)


def open_carry(
    ladders: Ladders, world: World, accounts: Accounts | None, assets: int, paths: int
) -> tuple[Carry, Record]:
    """A block of paths before its first step."""
    venues, dtype = world.adv.shape[0], ladders.rows.dtype
    pools, entries = world.pool_cash.shape[0], ladders.rows.shape[3]
    funds = open_funds(world, paths, dtype)
    market = jnp.zeros((venues, assets, paths), dtype)
    ladder = reach = jnp.zeros((venues, assets, 2, entries, paths), dtype)
    kept = Kept(scale=jnp.ones_like(ladder), shift=ladder)
    if (inflow := inflow_of(world)) is not None:
        reach, kept = none_open(reach, kept, inflow.cohorts, ladders)
        ladder = jnp.zeros_like(reach)
    cash = funds.cash.value
    quotes = Quotes(index=market[0], basis=market, mark=market, spot=None if world.inverse is None else market)
    state = State(
        u_local=market,
        u_global=market[0],
        quotes=quotes,
        reach=reach,
        queued=ladder,
        kept=kept,
        funds=funds,
        extremes=open_extremes(quotes, cash),
    )
    record = Record(
        done=reach,
        taken=ladder,
        budget=market,
        makers_left=market,
        stocks=open_stocks(ladders, accounts, world, paths),
        hour=open_hour(world, ladders, ladder.shape[3], paths),
    )
    memory = Memory(
        basis=jnp.zeros((world.window, *market.shape), dtype),
        basis_sum=market,
        premium_sum=market,
        halts=None if world.breakers is None else open_halts(world.breakers, assets, paths, dtype),
        block_peaks=jnp.full((world.blocks + 1, pools, paths), -jnp.inf, dtype).at[0].set(cash),
        seen=None if world.conditions.stale is None else market,
        step=jnp.asarray(0),
    )
    holdings = None if accounts is None else open_watched(accounts, paths)
    return Carry(state=state, record=pack(record), memory=memory, holdings=holdings), record


def _new_hour(carry: Carry, like: Record, world: World) -> Carry:
    """Clear what is summed over an hour, and give the makers their capacity."""
    carry = cleared(carry, like, world)
    record = unpack(carry.record, like)
    makers_left = jnp.broadcast_to(world.auction[..., None], record.makers_left.shape)
    holdings = carry.holdings
    if holdings is not None:
        holdings = replace(holdings, deleveraged=jnp.zeros_like(holdings.deleveraged))
    memory = carry.memory
    if memory.halts is not None:
        memory = replace(memory, halts=replace(memory.halts, halted=jnp.zeros_like(memory.halts.halted)))
    return replace(carry, record=pack(replace(record, makers_left=makers_left)), memory=memory, holdings=holdings)


def cleared(carry: Carry, like: Record, world: World) -> Carry:
    """Clear what is reported: sums and extremes."""
    state, record = carry.state, unpack(carry.record, like)
    at, vault = worth_of(state.quotes, world), state.funds.vault
    hour = jax.tree.map(jnp.zeros_like, record.hour)
    record = replace(record, hour=hour if vault is None else replace(hour, vault_open=vault.equity(at)))
    state = replace(state, extremes=open_extremes(state.quotes, state.funds.equity))
    return replace(carry, state=state, record=pack(record))


def _paused(carry: Carry, world: World) -> Outputs:
    """Share of the hour in which circuit breakers stopped each venue [1]."""
    halts = carry.memory.halts
    steps = jnp.zeros_like(carry.state.quotes.basis[:, 0]) if halts is None else halts.halted
    return {"paused": steps / world.steps_per_hour}


def _vaults(state: State, hour: Hour, at: Worth, world: World) -> Outputs:
    """Equity and profit of the vaults [USD]; NaN where a venue has none."""
    vault, rule = state.funds.vault, world.vaults
    if vault is None or rule is None or hour.vault_open is None:
        nobody = jnp.full_like(at.unit[:, 0], jnp.nan)
        return {"vault_equity": nobody, "vault_profit": nobody}
    equity, there = vault.equity(at), (rule.capacity > 0)[:, None]
    return {
        "vault_equity": jnp.where(there, equity, jnp.nan),
        "vault_profit": jnp.where(there, equity - hour.vault_open, jnp.nan),
    }


def open_interest(state: State, record: Record, world: World) -> Float[Array, "v a p"]:
    """One-sided, at the mark [USD]."""
    stocks, vault = record.stocks, state.funds.vault
    others = [stocks.makers, state.funds.inventory, stocks.rest] + ([] if vault is None else [vault.inventory])
    longs = stocks.traders.value[:, :, 0] + sum(jnp.maximum(x.value, 0.0) for x in others)
    return (longs + world.block[..., None]) * worth_of(state.quotes, world).unit


def report(state: State, record: Record, opening: Float[Array, "v a p"], world: World) -> Outputs:
    """What is kept of an hour that began with the open interest `opening`."""
    hour, past, quotes, at = record.hour, state.extremes, state.quotes, worth_of(state.quotes, world)
    adl_volume = add_up(hour.layers[layers_of(world).index("adl")], 2)
    return _vaults(state, hour, at, world) | {
        "liquidation_volume": add_up(hour.layers, 0),
        "stop_volume": jnp.zeros_like(hour.layers[0]) if hour.stopped is None else hour.stopped,
        "absorbed_volume": jnp.moveaxis(add_up(hour.layers, 3), 0, 2),
        "deficit": hour.deficit,
        "surplus": hour.surplus,
        "fund_equity": state.funds.equity,
        "fund_low": past.fund_low,
        "adl_volume": adl_volume,
        "adl_haircut": hour.adl_haircut,
        "adl_accounts": add_up(hour.adl_accounts, 1, 2, 3) + hour.adl_cross_accounts,
        **judge(hour.burden, adl_volume, hour.adl_haircut, opening),
        "socialised_loss": hour.socialised,
        "voluntary_volume": jnp.zeros_like(hour.layers[0]) if hour.voluntary is None else hour.voluntary,
        "opened_volume": jnp.zeros_like(hour.layers[0]) if hour.opened is None else hour.opened,
        "collateral_sold": jnp.zeros_like(adl_volume) if hour.collateral_sold is None else hour.collateral_sold,
        "index_close": jnp.exp(quotes.index),
        "index_low": jnp.exp(past.index_low),
        "index_high": jnp.exp(past.index_high),
        "basis_low": jnp.expm1(past.basis_low),
        "basis_high": jnp.expm1(past.basis_high),
        "open_interest": open_interest(state, record, world),
        "accounts_liquidated": hour.accounts,
        "first_round_volume": hour.first_round,
        "ledger_residual": ledger_residual(record.stocks, state.funds, world),
    }
