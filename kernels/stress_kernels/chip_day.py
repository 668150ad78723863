"""All hours of a block of paths in one kernel: the state stays in registers, and reports leave once an hour."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from stress_kernels.chip_orders import Lanes, sync
from stress_kernels.chip_prices import Prices, Rows, basis_of, exogenous, quote, reached
from stress_kernels.chip_round import Cascade, Held, Memories, State, add, add_sum, at_row, is_busy, observed, one_round, total
from stress_kernels.chip_tables import Boards, Report, Sizes, Tables
from stress_kernels.money import Sum


class Memory(NamedTuple):
    """What remembers earlier steps."""

    total: Rows
    """Of the bases in the mark's average, by market."""
    premium: Rows
    """Of the premiums since the last funding."""
    shift: Rows
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
    to = Memories(tables, boards, report)

    def hour(h: Array, carry: Carry) -> Carry:
        state, memory = carry
        state = _new_hour(state, h, to, sizes)
        first = h * sizes.steps_per_hour
        state, memory = jax.lax.fori_loop(
            first, first + sizes.steps_per_hour, lambda k, now: _step(k, now, log, h, to, sizes), (state, memory)
        )
        _end_hour(state, h, report)
        return state, memory

    state, _ = jax.lax.fori_loop(0, sizes.hours, hour, _opening(tables, sizes, log.dtype))
    for f, fall in enumerate(state.drawdown):
        report.drawdown[f] = fall
    report.unknown[0] = state.unknown


def _opening(tables: Tables, sizes: Sizes, dtype: Any) -> Carry:
    """Before the first step."""
    nothing = jnp.zeros((sizes.lanes,), dtype)
    markets, assets, pools = ((nothing,) * n for n in (sizes.markets, sizes.assets, sizes.pools))
    equity = tuple(nothing + tables.cash[f] for f in range(sizes.pools))
    prices, extremes = Prices(assets, markets, markets), Prices(assets, markets, ())
    state = State(
        u_local=markets,
        u_global=assets,
        prices=prices,
        reach=(nothing,) * sizes.sides,
        cash=tuple(Sum(x, nothing) for x in equity),
        peak=equity,
        drawdown=pools,
        fund_low=equity,
        low=extremes,
        high=extremes,
        unknown=nothing,
    )
    return state, Memory(markets, markets, markets)


def _step(k: Array, carry: Carry, log: Any, hour: Array, to: Memories, sizes: Sizes) -> Carry:
    """From the end of one step to the end of the next."""
    (state, memory), tables = carry, to.tables
    now, depth = exogenous(k, log, tables, sizes)
    u_local = tuple(u * tables.impact[4] for u in state.u_local)
    u_global = tuple(u * tables.impact[5] for u in state.u_global)
    basis = basis_of(u_local, tables, sizes)
    memory, average = _averaged(k, basis, memory, to, sizes)
    prices = quote(now, basis, u_global, average, tables, sizes)
    state = state._replace(u_local=u_local, u_global=u_global, prices=prices)
    memory = _funded(k, state, memory, hour, to, sizes)
    held = Held(now, depth, average, memory.shift, hour)
    state = observed(state)
    wanted = reached(prices.mark, memory.shift, state.reach, tables, sizes)
    budget = tuple(jnp.zeros_like(now[0]) + tables.throughput[m] for m in range(sizes.markets))
    opening = Cascade(state, wanted, budget, jnp.int32(0), is_busy(state, wanted))
    closing = jax.lax.while_loop(
        lambda rounds: rounds.busy > 0, lambda rounds: one_round(rounds, held, to, sizes), opening
    )
    return _watched(closing.state, tables), memory


def _averaged(k: Array, basis: Rows, memory: Memory, to: Memories, sizes: Sizes) -> tuple[Memory, Rows]:
    """Take a sample of the basis and average over each venue's window, at first over what there is of it."""
    ring, sums, average = to.boards.ring, [], []
    here = jax.lax.rem(k, jnp.int32(sizes.window))
    for m, x in enumerate(basis):
        window = to.tables.average[m // sizes.assets]
        slot = jax.lax.rem(k + sizes.window - window, jnp.int32(sizes.window))
        gone = jnp.where(k >= window, ring[slot, m], 0.0)
        sums.append(memory.total[m] + x - gone)
        average.append(sums[m] / jnp.minimum(k + 1, window).astype(x.dtype))
    sync(sizes)
    for m, x in enumerate(basis):
        ring[here, m] = x
    sync(sizes)
    premium = tuple(past + jnp.expm1(x) for past, x in zip(memory.premium, basis, strict=True))
    return memory._replace(total=tuple(sums), premium=premium), tuple(average)


def _funded(k: Array, state: State, memory: Memory, hour: Array, to: Memories, sizes: Sizes) -> Memory:
    """Funding where its time has come: every holder pays rate x mark a coin, accounts through their triggers."""
    tables, assets = to.tables, sizes.assets
    due = [jax.lax.rem(k + 1, tables.every[v]) == 0 for v in range(sizes.venues)]

    def pay(memory: Memory) -> Memory:
        per_coin = []
        for m, premium in enumerate(memory.premium):
            v = m // assets
            mean, clamp, cap = premium / tables.every[v].astype(premium.dtype), tables.clamp[v], tables.cap[v]
            rate = mean + _within(tables.interest[v] - mean, clamp)
            rate = _within(rate / tables.divisor[v], cap)
            per_coin.append(jnp.where(due[v], rate * (1 + jnp.expm1(state.prices.mark[m])), 0.0))
        _book_funding(per_coin, hour, to.report, sizes)
        return memory._replace(
            shift=tuple(map(jnp.add, memory.shift, per_coin)),
            premium=tuple(jnp.where(due[m // assets], 0.0, x) for m, x in enumerate(memory.premium)),
        )

    any_due = total([x.astype(jnp.int32) for x in due]) > 0
    return jax.lax.cond(any_due, pay, lambda memory: memory, memory)


def _within(x: Lanes, bound: Array) -> Lanes:
    return jnp.maximum(jnp.minimum(x, bound), -bound)


def _book_funding(per_coin: list[Lanes], hour: Array, report: Report, sizes: Sizes) -> None:
    """Post what traders and the rest of the market pay each other."""
    everyone, gross = jnp.ones_like(per_coin[0]) > 0, jnp.zeros_like(per_coin[0])

    def held(book: Any, row: int) -> Lanes:
        return book[hour, 0, row] + book[hour, 1, row]

    for v in range(sizes.venues):
        markets = range(v * sizes.assets, (v + 1) * sizes.assets)
        sides = [[held(report.traders, 2 * m + s) for s in (0, 1)] for m in markets]
        paid = total(per_coin[m] * (a + b) for m, (a, b) in zip(markets, sides, strict=True))
        gross += total(jnp.abs(per_coin[m]) * (jnp.abs(a) + jnp.abs(b)) for m, (a, b) in zip(markets, sides, strict=True))
        add_sum(report.traders_cash, hour, v, -paid, everyone)
        rest = total(per_coin[m] * held(report.rest, m) for m in markets)
        add_sum(report.rest_cash, hour, v, -rest, everyone)
    add(at_row(report.gross, hour, 0), gross, everyone)


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
    report, tables, nothing = to.report, to.tables, jnp.zeros_like(state.unknown)
    for sums in (report.volume, report.first_round, report.accounts, report.deficit, report.surplus):
        for row in range(sums.shape[1]):
            sums[hour, row] = nothing
    before, first = jnp.maximum(hour - 1, 0), hour == 0
    for i in (0, 1):
        report.gross[hour, i] = jnp.where(first, nothing + tables.gross[i], report.gross[before, i])
    for book, opening in (
        (report.traders, tables.traders),
        (report.rest, tables.rest),
        (report.traders_cash, None),
        (report.rest_cash, None),
    ):
        for row in range(book.shape[2]):
            start = nothing if opening is None else nothing + opening[row]
            book[hour, 0, row] = jnp.where(first, start, book[before, 0, row])
            book[hour, 1, row] = jnp.where(first, nothing, book[before, 1, row])
    sync(sizes)
    extremes = state.prices._replace(mark=())
    return state._replace(fund_low=tuple(cash.value for cash in state.cash), low=extremes, high=extremes)


def _end_hour(state: State, hour: Array, report: Report) -> None:
    """Report prices, extremes and what pools have."""
    said = (
        (report.index, state.prices.index),
        (report.mark, state.prices.mark),
        (report.index_low, state.low.index),
        (report.index_high, state.high.index),
        (report.basis_low, state.low.basis),
        (report.basis_high, state.high.basis),
        (report.fund_low, state.fund_low),
    )
    for place, rows in said:
        for i, row in enumerate(rows):
            place[hour, i] = row
    for f, cash in enumerate(state.cash):
        report.cash[hour, 0, f], report.cash[hour, 1, f] = cash.high, cash.low
