"""One time step: prices, funding, cascade rounds, unwinding, funds."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stress_kernels.account_watch import funded
from stress_kernels.account_words import Watched
from stress_kernels.accounts import Accounts, Holdings, bereave, wake
from stress_kernels.behaviour import Mood
from stress_kernels.breakers import judge_halts
from stress_kernels.cohorts import inflow_of
from stress_kernels.contracts import settle
from stress_kernels.funding import funding_rate
from stress_kernels.ladder import Ladders
from stress_kernels.layers import curve
from stress_kernels.marks import Held, observe, press
from stress_kernels.money import add_up
from stress_kernels.pools import exhausted, transfer
from stress_kernels.price import push, quotes
from stress_kernels.pytree import pytree
from stress_kernels.rows import pack, unpack, when
from stress_kernels.state import Memory, Record, State, worth_of
from stress_kernels.turns import cascade
from stress_kernels.voluntary import close_some, turn_over
from stress_kernels.world import World

Funded = tuple[Array, Watched] | None


@pytree
class Carry:
    """A block of paths between two steps."""

    state: State
    record: Float[Array, "p column"]
    """`Record` as rows."""
    memory: Memory
    holdings: Holdings | None
    """Accounts on cross margin, where there are any."""


def step(
    carry: Carry,
    exogenous: Float[Array, "a p"],
    depth: Float[Array, "a p"],
    like: Record,
    ladders: Ladders,
    world: World,
    accounts: Accounts | None = None,
    mood: Mood | None = None,
) -> Carry:
    """From the end of one step to the end of the next.

    Args:
        exogenous: Log index without impact at the end of the step.
        depth: Depth divisor of the step.
        like: Shapes of the record.
        accounts: Those on cross margin, where there are any.
        mood: Of makers and holders in the step, where any behave.
    """
    now, state = world.conditions.at(carry.memory.step), carry.state
    world, impact = _at_work(world, now.working), world.impact
    u_local, u_global = state.u_local * impact.decay_local, state.u_global * impact.decay_global
    basis = (1 - impact.rho) * push(u_local, impact)
    memory, average = _average(carry.memory, basis, now.premium, world)
    deviation, seen = None, memory.seen
    if now.deviation is not None:
        deviation = jnp.broadcast_to(now.deviation[0, ..., None], basis.shape)
    if now.stale is not None and seen is not None:
        seen = jnp.where(now.stale[0, :, None, None], seen, jnp.nan)
    opening = quotes(exogenous, u_local, u_global, average, world, deviation, seen)
    liquidates = widened = None
    if memory.halts is not None and world.breakers is not None:
        halts, liquidates, widened = judge_halts(memory.halts, opening.index, memory.step, world.breakers)
        memory = replace(memory, halts=halts)
    absent, nearer = (None, None) if mood is None else (mood.absent, mood.nearer)
    held = Held(exogenous, depth, average, deviation, liquidates, seen, widened, absent, nearer)
    state = replace(state, u_local=u_local, u_global=u_global, quotes=opening)
    rested = None if carry.holdings is None else wake(carry.holdings, memory.step)
    state, record, memory, paid = _fund(state, carry.record, memory, rested, like, world, accounts)
    record, left = _lose(record, paid, memory.step, like, world, accounts)
    state, record, holdings = cascade(
        observe(state, world), record, left, held, memory.step, like, ladders, world, accounts
    )
    state, record = _unwind(state, record, held, like, world)
    if mood is not None and mood.closing is not None:
        state, record = close_some(state, record, mood.closing, held, like, ladders, world)
    if (inflow := inflow_of(world)) is not None:
        state, record = turn_over(state, record, memory.step, inflow, held, like, ladders, world)
    if world.transfers is not None:
        # Between the two nobody looks: a fund is not low that is topped up at once.
        funds = transfer(state.funds, worth_of(state.quotes, world), world.transfers, world)
        state = observe(replace(state, funds=funds), world)
    state, memory = _watch(state, memory, world)
    if seen is not None:
        memory = replace(memory, seen=jnp.where(jnp.isnan(seen), state.quotes.index[None], seen))
    return Carry(state=state, record=record, memory=replace(memory, step=memory.step + 1), holdings=holdings)


def _at_work(world: World, working: Float[Array, "1 v"] | None) -> World:
    """The venues at the share of their speed at which they work in a step."""
    if working is None:
        return world
    share, vaults = working[0][:, None], world.vaults
    if vaults is not None:
        vaults = replace(vaults, unwind=vaults.unwind * share)
    return replace(world, throughput=world.throughput * share, unwind=world.unwind * share, vaults=vaults)


def _average(
    memory: Memory, basis: Float[Array, "v a p"], more: Float[Array, "1 v a"] | None, world: World
) -> tuple[Memory, Float[Array, "v a p"]]:
    """Take a sample of the basis and average over each venue's window, at first over what there is of it."""
    k, size = memory.step, world.window
    venues = jnp.arange(basis.shape[0])
    window = world.rules.mark_window
    # Read before anything is written: else the whole window is copied.
    oldest, samples = jax.lax.optimization_barrier((memory.basis[(k - window) % size, venues], memory.basis))
    gone = jnp.where((k >= window)[:, None, None], oldest, 0.0)
    total = memory.basis_sum + basis - gone
    samples = jax.lax.dynamic_update_index_in_dim(samples, basis, k % size, 0)
    premium = memory.premium_sum + jnp.expm1(basis) + (0.0 if more is None else more[0, ..., None])
    count = jnp.minimum(k + 1, window).astype(basis.dtype)
    return replace(memory, basis=samples, basis_sum=total, premium_sum=premium), total / count[:, None, None]


def _fund(
    state: State,
    record: Float[Array, "p column"],
    memory: Memory,
    holdings: Holdings | None,
    like: Record,
    world: World,
    accounts: Accounts | None,
) -> tuple[State, Array, Memory, Holdings | None]:
    """Funding where its time has come: every holder pays rate x mark a coin, or rate / mark coins for an inverse USD;
    accounts through their triggers."""
    every = world.rules.funding_every
    due = (memory.step + 1) % every == 0

    def pay(before: tuple[State, Array, Memory, Funded]) -> tuple[State, Array, Memory, Funded]:
        state, record, memory, of_accounts = before
        now = due[:, None, None]
        premium = memory.premium_sum / every.astype(memory.premium_sum.dtype)[:, None, None]
        price = jnp.abs(settle(jnp.expm1(state.quotes.mark), world.inverse))
        per_coin = jnp.where(now, funding_rate(premium, world.rules) * price, 0.0)

        def flow(coins: Float[Array, "v a p"]) -> Float[Array, "c v p"]:
            return -world.by_currency(per_coin * coins)

        kept, funds = unpack(record, like), state.funds
        stocks = kept.stocks
        flows = world.by_currency(add_up(jnp.abs(per_coin)[:, :, None] * jnp.abs(stocks.traders.value), 2))
        stocks = replace(
            stocks,
            traders_cash=stocks.traders_cash.add(flow(add_up(stocks.traders.value, 2))),
            makers_cash=stocks.makers_cash.add(flow(stocks.makers.value)),
            rest_cash=stocks.rest_cash.add(flow(stocks.rest.value)),
            gross_cash=stocks.gross_cash + add_up(flows, 1),
        )
        funds = funds.receive(-per_coin * funds.inventory.value, world)
        if funds.vault is not None:
            funds = replace(funds, vault=funds.vault.receive(-per_coin * funds.vault.inventory.value, world))
        after = replace(
            state,
            funds=funds,
            kept=replace(state.kept, shift=state.kept.shift + state.kept.scale * per_coin[:, :, None, None]),
        )
        later = replace(memory, premium_sum=jnp.where(now, 0.0, memory.premium_sum))
        if accounts is not None and holdings is not None and of_accounts is not None:
            paid, watched = of_accounts
            of_accounts = funded(replace(holdings, paid=paid, watched=watched), accounts, per_coin)
        return after, pack(replace(kept, stocks=stocks)), later, of_accounts

    before = None if holdings is None else (holdings.paid, holdings.watched)
    state, record, memory, after = when(jnp.any(due), pay, (state, record, memory, before))
    if holdings is not None and after is not None:
        holdings = replace(holdings, paid=after[0], watched=after[1])
    return state, record, memory, holdings


def _lose(
    record: Float[Array, "p column"],
    holdings: Holdings | None,
    step: Int[Array, ""],
    like: Record,
    world: World,
    accounts: Accounts | None,
) -> tuple[Array, Holdings | None]:
    """Accounts that lose money elsewhere: it goes to the rest of the market."""
    if accounts is None or holdings is None or accounts.losses is None:
        return record, holdings
    losses = accounts.losses

    def lose(before: tuple[Array, Array, Watched]) -> tuple[Array, Array, Watched]:
        record, money, watched = before
        of = replace(holdings, money=money, watched=watched)
        money, watched, gone = bereave(of, accounts, losses, step)
        kept, usd = unpack(record, like), world.in_usd(gone)
        stocks = replace(
            kept.stocks,
            traders_cash=kept.stocks.traders_cash.add(-usd),
            rest_cash=kept.stocks.rest_cash.add(usd),
            gross_cash=kept.stocks.gross_cash + add_up(usd, 1),
        )
        return pack(replace(kept, stocks=stocks)), money, watched

    due = jnp.any(losses.step == step)
    record, money, watched = when(due, lose, (record, holdings.money, holdings.watched))
    return record, replace(holdings, money=money, watched=watched)


def _unwind(
    state: State, record: Float[Array, "p column"], held: Held, like: Record, world: World
) -> tuple[State, Array]:
    """Pools and vaults sell what they took over into the book, at most at their rates, without a take bound.

    Every market, and either of the two in it, starts from the same imbalances.
    """

    def sell(before: tuple[State, Array]) -> tuple[State, Array]:
        state, record = before
        kept, funds, unit = unpack(record, like), state.funds, worth_of(state.quotes, world).unit
        line = curve(held.exogenous, state.u_local, state.u_global, held.depth, world)

        def sale(inventory: Float[Array, "v a p"], rate: Float[Array, "v a"]) -> tuple[Array, Array]:
            # A price so low that its contract is worth nothing in 32 bits is one all the same.
            most = rate[..., None] / jnp.maximum(unit, jnp.finfo(unit.dtype).tiny)
            coins = jnp.sign(inventory) * jnp.minimum(jnp.abs(inventory), most)
            flow = (-coins * unit)[:, :, None]
            price = jnp.expm1(line.mean(flow, line.after(flow, world), world)[:, :, 0])
            return coins, coins * settle(price, world.inverse)

        coins, cash = sale(funds.inventory.value, world.unwind)
        funds = replace(funds, inventory=funds.inventory.add(-coins)).receive(cash, world)
        gross_coins, gross_cash = jnp.abs(coins), jnp.abs(cash)
        if funds.vault is not None and world.vaults is not None:
            more, earned = sale(funds.vault.inventory.value, world.vaults.unwind)
            vault = replace(funds.vault, inventory=funds.vault.inventory.add(-more)).receive(earned, world)
            funds, coins, cash = replace(funds, vault=vault), coins + more, cash + earned
            gross_coins, gross_cash = gross_coins + jnp.abs(more), gross_cash + jnp.abs(earned)
        stocks = replace(
            kept.stocks,
            rest_cash=kept.stocks.rest_cash.add(-world.by_currency(cash)),
            rest=kept.stocks.rest.add(coins),
            gross_cash=kept.stocks.gross_cash + add_up(world.by_currency(gross_cash), 1),
            gross_coins=kept.stocks.gross_coins + add_up(gross_coins, 0, 1),
        )
        after = press(replace(state, funds=funds), -coins * unit, held, world)
        return after if world.transfers is not None else observe(after, world), pack(replace(kept, stocks=stocks))

    holds = jnp.any(state.funds.inventory.value != 0)
    if state.funds.vault is not None:
        holds = holds | jnp.any(state.funds.vault.inventory.value != 0)
    return when(holds, sell, (state, record))


def _watch(state: State, memory: Memory, world: World) -> tuple[State, Memory]:
    """Rolling peaks, drawdown ADL on or off, and the first hour without equity.

    The rolling peak is kept in blocks: the window is the blocks that lie in it and the one that runs.
    """
    k, equity = memory.step, state.funds.equity
    count = world.blocks + 1
    block, fresh = (k // world.block_steps) % count, (k % world.block_steps == 0) & (k > 0)
    old = jax.lax.dynamic_index_in_dim(memory.block_peaks, block, 0, keepdims=False)
    now = jnp.maximum(jnp.where(fresh, equity, old), equity)
    peaks = jax.lax.dynamic_update_index_in_dim(memory.block_peaks, now, block, 0)
    age = (block - jnp.arange(count)) % count
    within = age[:, None] <= world.rules.adl_blocks[world.pool_venue][None]
    rolling = jnp.max(jnp.where(within[..., None], peaks, -jnp.inf), axis=0)
    share = world.rules.adl_share[world.pool_venue][:, None]
    hour = (k // world.steps_per_hour).astype(equity.dtype)
    gone = exhausted(state.extremes.fund_low) & jnp.isnan(state.funds.exhausted_hour)
    funds = replace(
        state.funds,
        adl_on=(share <= 1) & (exhausted(equity) | (equity <= (1 - share) * rolling)),
        exhausted_hour=jnp.where(gone, hour, state.funds.exhausted_hour),
    )
    return replace(state, funds=funds), replace(memory, block_peaks=peaks)
