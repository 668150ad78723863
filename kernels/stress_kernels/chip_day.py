"""All hours of a block of paths in one kernel: what is wanted at every step stays in registers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from stress_kernels.chip_boards import Boards, Memories
from stress_kernels.chip_memory import add, add_sum, some, tile
from stress_kernels.chip_orders import sync
from stress_kernels.chip_prices import Prices, Tile, Tiles, basis_of, exogenous, quote, reached
from stress_kernels.chip_round import Cascade, Held, State, is_busy, observed, one_round
from stress_kernels.day_report import Report
from stress_kernels.day_tables import Sizes, Tables
from stress_kernels.money import Sum


class Memory(NamedTuple):
    """What remembers earlier steps."""

    total: Tiles
    """Of the bases in the mark's average."""
    premium: Tiles
    """Of the premiums since the last funding."""
    shift: Tiles
    """Funding paid so far [USD per coin]."""


Carry = tuple[State, Memory]


def day(log: Any, tables: Tables, boards: Boards, report: Report, sizes: Sizes) -> None:
    """The kernel.

    Args:
        log: Log index without impact after each step (step a p).
        tables: Of the run.
        boards: Of this block.
        report: What comes out.
        sizes: Of everything.
    """
    to = Memories(tables, boards, report, pl.ds(tables.first[0], sizes.lanes))

    def hour(h: Array, carry: Carry) -> Carry:
        opening = _new_hour(carry[0], h, to, sizes), carry[1]

        def step(i: Array, now: Carry) -> Carry:
            return _step(h * sizes.steps_per_hour + i, now, log, h, to, sizes)

        state, memory = jax.lax.fori_loop(0, sizes.steps_per_hour, step, opening)
        _end_hour(state, h, to, sizes)
        return state, memory

    state, _ = jax.lax.fori_loop(0, sizes.hours, hour, _opening(tables, sizes, log.dtype))
    for f, fall in enumerate(state.drawdown):
        report.drawdown[f, to.lanes] = fall
    report.unknown[0, to.lanes] = state.unknown


def _opening(tables: Tables, sizes: Sizes, dtype: Any) -> Carry:
    """Before the first step."""
    nobody, nothing = jnp.zeros((sizes.lanes,), dtype), jnp.zeros((sizes.width, sizes.lanes), dtype)
    markets, pools = (nothing,) * sizes.venues, (nobody,) * sizes.pools
    equity = tuple(nobody + tables.cash[f] for f in range(sizes.pools))
    state = State(
        u_local=markets,
        u_global=nothing,
        prices=Prices(nothing, markets, markets),
        reach=markets * 2,
        cash=tuple(Sum(x, nobody) for x in equity),
        peak=equity,
        drawdown=pools,
        fund_low=equity,
        index_low=nothing,
        index_high=nothing,
        unknown=nobody,
    )
    return state, Memory(markets, markets, markets)


def _step(k: Array, carry: Carry, log: Any, hour: Array, to: Memories, sizes: Sizes) -> Carry:
    """From the end of one step to the end of the next."""
    (state, memory), tables = carry, to.tables
    now, depth = exogenous(k, log, to, sizes)
    u_local = tuple(u * tables.impact[4] for u in state.u_local)
    u_global = state.u_global * tables.impact[5]
    basis = basis_of(u_local, to)
    memory, average = _averaged(k, basis, memory, to, sizes)
    prices = quote(now, basis, u_global, average, to)
    memory = _funded(k, prices, memory, hour, to, sizes)
    state = observed(state._replace(u_local=u_local, u_global=u_global, prices=prices))
    held = Held(now, depth, average, memory.shift, hour)
    wanted = reached(prices.mark, memory.shift, state.reach, to, sizes)
    budget = tuple(tables.throughput[v, :, to.lanes] for v in range(sizes.venues))
    opening = Cascade(state, wanted, budget, jnp.int32(0), is_busy(state, wanted))
    ended = jax.lax.while_loop(
        lambda rounds: rounds.busy > 0, lambda rounds: one_round(rounds, held, to, sizes), opening
    )
    return _watched(ended.state, tables), memory


def _averaged(k: Array, basis: Tiles, memory: Memory, to: Memories, sizes: Sizes) -> tuple[Memory, Tiles]:
    """Take a sample of the basis and average over each venue's window, at first over what there is of it."""
    ring, sums, average = to.boards.ring, [], []
    size = jnp.int32(sizes.window)
    for v, x in enumerate(basis):
        window = to.tables.average[v]
        oldest = ring[jax.lax.rem(k + size - window, size), v, :, to.lanes]
        sums.append(memory.total[v] + x - jnp.where(k >= window, oldest, 0.0))
        average.append(sums[v] / jnp.minimum(k + 1, window).astype(x.dtype))
    sync(sizes)
    for v, x in enumerate(basis):
        ring[jax.lax.rem(k, size), v, :, to.lanes] = x
    sync(sizes)
    premium = tuple(past + jnp.expm1(x) for past, x in zip(memory.premium, basis, strict=True))
    return memory._replace(total=tuple(sums), premium=premium), tuple(average)


def _funded(k: Array, prices: Prices, memory: Memory, hour: Array, to: Memories, sizes: Sizes) -> Memory:
    """Funding where its time has come: every holder pays rate x mark a coin, accounts through their triggers."""
    tables = to.tables
    due = [jax.lax.rem(k + 1, tables.every[v]) == 0 for v in range(sizes.venues)]

    def pay(memory: Memory) -> Memory:
        per_coin = []
        for v, premium in enumerate(memory.premium):
            mean, clamp, cap = premium / tables.every[v].astype(premium.dtype), tables.clamp[v], tables.cap[v]
            rate = mean + _within(tables.interest[v] - mean, clamp)
            rate = _within(rate / tables.divisor[v], cap)
            per_coin.append(jnp.where(due[v], rate * (1 + jnp.expm1(prices.mark[v])), 0.0))
        _book_funding(per_coin, hour, to, sizes)
        return memory._replace(
            shift=tuple(map(jnp.add, memory.shift, per_coin)),
            premium=tuple(jnp.where(now, 0.0, x) for now, x in zip(due, memory.premium, strict=True)),
        )

    any_due = sum(x.astype(jnp.int32) for x in due) > 0
    return jax.lax.cond(any_due, pay, lambda memory: memory, memory)


def _within(x: Tile, bound: Array) -> Tile:
    return jnp.maximum(jnp.minimum(x, bound), -bound)


def _book_funding(per_coin: list[Tile], hour: Array, to: Memories, sizes: Sizes) -> None:
    """Post what traders and the rest of the market pay each other."""
    report, lanes = to.report, to.lanes
    gross, everyone = jnp.zeros_like(per_coin[0][0]), jnp.ones_like(per_coin[0][0]) > 0

    def held(book: Any, number: int) -> Tile:
        here = tile(number, sizes)
        return book[hour, 0, here, lanes] + book[hour, 1, here, lanes]

    for v, rate in enumerate(per_coin):
        long, short, rest = held(report.traders, 2 * v), held(report.traders, 2 * v + 1), held(report.rest, v)
        add_sum(report.traders_cash, hour, v, lanes, -jnp.sum(rate * (long + short), axis=0), everyone)
        add_sum(report.rest_cash, hour, v, lanes, -jnp.sum(rate * rest, axis=0), everyone)
        gross += jnp.sum(jnp.abs(rate) * (jnp.abs(long) + jnp.abs(short)), axis=0)
    add(some(report.gross, hour, 0, lanes), gross, everyone)


def _watched(state: State, tables: Tables) -> State:
    """Give up paths on which a pool has so little left that it is exhausted or deleveraging may be on: it is not where
    equity is above the share of its highest peak, which no rolling peak exceeds."""
    unknown = state.unknown
    for f, cash in enumerate(state.cash):
        share, equity = tables.share[f], cash.value
        fallen = (share <= 1) & (equity <= (1 - share) * state.peak[f])
        unknown = jnp.maximum(unknown, (fallen | ~(equity > 1.0)).astype(unknown.dtype))
    return state._replace(unknown=unknown)


def _new_hour(state: State, hour: Array, to: Memories, sizes: Sizes) -> State:
    """Clear what is summed over an hour, carry the books over, and begin with new extremes."""
    report, tables, lanes, nobody = to.report, to.tables, to.lanes, jnp.zeros_like(state.unknown)
    nothing, first, before = jnp.zeros_like(state.u_global), hour == 0, jnp.maximum(hour - 1, 0)

    def carried(book: Any, at: Any, start: Any) -> None:
        book[hour, 0, at, lanes] = jnp.where(first, start, book[before, 0, at, lanes])
        book[hour, 1, at, lanes] = jnp.where(first, jnp.zeros_like(start), book[before, 1, at, lanes])

    for v in range(sizes.venues):
        here = tile(v, sizes)
        report.first_round[hour, here, lanes] = nothing
        report.accounts[hour, v, lanes] = nobody
        report.basis_low[hour, here, lanes] = report.basis_high[hour, here, lanes] = state.prices.basis[v]
        carried(report.rest, here, tables.rest[v, :, lanes])
        carried(report.traders_cash, v, nobody)
        carried(report.rest_cash, v, nobody)
        for s in (0, 1):
            side = tile(2 * v + s, sizes)
            report.volume[hour, side, lanes] = nothing
            carried(report.traders, side, tables.traders[v, s, :, lanes])
    for f in range(sizes.pools):
        report.deficit[hour, f, lanes] = report.surplus[hour, f, lanes] = nobody
    for i in (0, 1):
        report.gross[hour, i, lanes] = jnp.where(first, nobody + tables.gross[i], report.gross[before, i, lanes])
    sync(sizes)
    index, equity = state.prices.index, tuple(cash.value for cash in state.cash)
    return state._replace(fund_low=equity, index_low=index, index_high=index)


def _end_hour(state: State, hour: Array, to: Memories, sizes: Sizes) -> None:
    """Report prices, extremes and what pools have."""
    report, lanes = to.report, to.lanes
    sync(sizes)
    report.index[hour, :, lanes] = state.prices.index
    report.index_low[hour, :, lanes], report.index_high[hour, :, lanes] = state.index_low, state.index_high
    for v, (mark, basis) in enumerate(zip(state.prices.mark, state.prices.basis, strict=True)):
        here = tile(v, sizes)
        report.mark[hour, here, lanes] = mark
        report.basis_low[hour, here, lanes] = jnp.minimum(report.basis_low[hour, here, lanes], basis)
        report.basis_high[hour, here, lanes] = jnp.maximum(report.basis_high[hour, here, lanes], basis)
    for f, cash in enumerate(state.cash):
        report.fund_low[hour, f, lanes] = state.fund_low[f]
        report.cash[hour, 0, f, lanes], report.cash[hour, 1, f, lanes] = cash.high, cash.low
