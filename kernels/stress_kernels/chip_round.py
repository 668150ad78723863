"""A cascade round on the chip: orders are listed and closed, their flows move prices, pools receive and pay."""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool

from stress_kernels.chip_orders import Lanes, close_orders, sync
from stress_kernels.chip_prices import Prices, Rows, basis_of, quote, reached
from stress_kernels.chip_tables import Boards, Report, Sizes, Tables
from stress_kernels.money import Sum


class Memories(NamedTuple):
    """References to everything that is not in registers."""

    tables: Tables
    boards: Boards
    report: Report


class State(NamedTuple):
    """What rounds change of the paths of a block."""

    u_local: Rows
    u_global: Rows
    prices: Prices
    reach: Rows
    cash: tuple[Sum, ...]
    """Of pools, which hold nothing else."""
    peak: Rows
    drawdown: Rows
    fund_low: Rows
    low: Prices
    """In the hour; marks are not looked at."""
    high: Prices
    unknown: Lanes
    """1 where a path has met something that the kernel does not do."""


class Held(NamedTuple):
    """What they do not."""

    log: Rows
    """Index without impact."""
    depth: Rows
    average: Rows
    shift: Rows
    hour: Array


class Cascade(NamedTuple):
    """Between two rounds."""

    state: State
    wanted: Rows
    """Places that the marks trigger."""
    budget: Rows
    """Of markets, what the engine can still take in [USD]."""
    number: Array
    busy: Array
    """Whether any path of the block has something to close."""


class Found(NamedTuple):
    """Answers of a round by side, 0 where there was no order."""

    usd: Rows
    received: Rows
    deficit: Rows
    quantity: Rows
    proceeds: Rows
    accounts: Rows
    beyond: Rows


def total(rows: Any) -> Any:
    """Sum, term after term."""
    return reduce(jnp.add, rows)


def swept(state: State, wanted: Rows) -> list[Bool[Array, " lane"]]:
    """Sides on which a round closes anything; none on a path that is given up."""
    known = state.unknown < 0.5
    return [known & (high > low) for low, high in zip(state.reach, wanted, strict=True)]


def is_busy(state: State, wanted: Rows) -> Array:
    """1 if any path of the block has something to close."""
    return jnp.max(reduce(jnp.logical_or, swept(state, wanted)).astype(jnp.int32))


def one_round(now: Cascade, held: Held, to: Memories, sizes: Sizes) -> Cascade:
    """From the marks of a state to new ones."""
    state, closing = now.state, swept(now.state, now.wanted)
    found = _closed(now, closing, held, to, sizes)
    by_market = [found.usd[2 * m] + found.usd[2 * m + 1] for m in range(sizes.markets)]
    unknown = [state.unknown, *found.beyond]
    unknown += [(usd > left).astype(usd.dtype) for usd, left in zip(by_market, now.budget, strict=True)]
    state, short = _paid(state, found, held, to, sizes)
    state = _pressed(state, found, held, to.tables, sizes)
    _book(found, closing, by_market, now.number, held.hour, to, sizes)
    reach = tuple(
        jnp.where(there, high, low) for there, high, low in zip(closing, now.wanted, state.reach, strict=True)
    )
    state = observed(state._replace(reach=reach, unknown=reduce(jnp.maximum, [*unknown, *short])))
    wanted = reached(state.prices.mark, held.shift, reach, to.tables, sizes)
    budget = tuple(jnp.maximum(left - usd, 0.0) for left, usd in zip(now.budget, by_market, strict=True))
    number = now.number + 1
    busy = jnp.where(number < sizes.rounds, is_busy(state, wanted), 0)
    return Cascade(state, wanted, budget, number, busy)


def _closed(now: Cascade, closing: list[Any], held: Held, to: Memories, sizes: Sizes) -> Found:
    """List the orders, have all threads work them off, and collect the answers."""
    boards, state = to.boards, now.state
    posted = {
        "mark": state.prices.mark,
        "u_local": state.u_local,
        "shift": held.shift,
        "index": state.prices.index,
        "u_global": state.u_global,
        "depth": held.depth,
        "low": state.reach,
        "high": now.wanted,
    }
    for name, rows in posted.items():
        for i, row in enumerate(rows):
            getattr(boards, name)[i] = row
    lane = jnp.arange(sizes.lanes, dtype=jnp.int32)
    count = total([there.astype(jnp.int32) for there in closing])
    place = jnp.cumsum(count) - count
    for side, there in enumerate(closing):
        # Who has none writes nothing, and that beyond the list: two threads must not share a place.
        at = jnp.where(there, place, sizes.sides * sizes.lanes + lane)
        triton.store(boards.orders.at[at], side * sizes.lanes + lane, mask=there)
        place = place + there.astype(jnp.int32)
    sync(sizes)
    close_orders(jnp.sum(count), to.tables, boards, sizes)
    sync(sizes)

    def answers(name: str) -> Rows:
        board = getattr(boards, name)
        # Without an order the place may hold anything, and not a number too.
        return tuple(
            jnp.where(there, triton.load(at_row(board, side), mask=there, other=0.0), 0.0)
            for side, there in enumerate(closing)
        )

    return Found(*map(answers, Found._fields))


def _paid(state: State, found: Found, held: Held, to: Memories, sizes: Sizes) -> tuple[State, list[Lanes]]:
    """Pools receive fees and surpluses and pay deficits; and where one of them cannot."""
    cash, short = [], []
    for f, before in enumerate(state.cash):

        def of_pool(sides: Rows, f: int = f) -> Lanes:
            markets = [sides[2 * m] + sides[2 * m + 1] for m in range(sizes.markets)]
            return total(to.tables.behind[f * sizes.markets + m] * x for m, x in enumerate(markets))

        receipts, deficits = of_pool(found.received), of_pool(found.deficit)
        add(at_row(to.report.surplus, held.hour, f), receipts, receipts > 0)
        add(at_row(to.report.deficit, held.hour, f), deficits, deficits > 0)
        after = before.add(receipts)
        short.append((deficits > jnp.maximum(after.value, 0.0)).astype(deficits.dtype))
        cash.append(after.add(-deficits))
    return state._replace(cash=tuple(cash)), short


def _pressed(state: State, found: Found, held: Held, tables: Tables, sizes: Sizes) -> State:
    """Flows move imbalances, all markets at once, and prices are quoted anew."""
    assets = sizes.assets
    pressure = [
        (found.usd[2 * m + 1] - found.usd[2 * m]) * held.depth[m % assets] for m in range(sizes.markets)
    ]  # Longs sell.
    u_local = tuple(u + pressure[m] / tables.adv[m] for m, u in enumerate(state.u_local))
    u_global = tuple(u + total(pressure[a::assets]) / tables.adv_global[a] for a, u in enumerate(state.u_global))
    prices = quote(held.log, basis_of(u_local, tables, sizes), u_global, held.average, tables, sizes)
    return state._replace(u_local=u_local, u_global=u_global, prices=prices)


def observed(state: State) -> State:
    """Take the extremes."""
    equity = [cash.value for cash in state.cash]
    peak = tuple(map(jnp.maximum, state.peak, equity))
    fallen = (top - now for top, now in zip(peak, equity, strict=True))
    return state._replace(
        peak=peak,
        drawdown=tuple(map(jnp.maximum, state.drawdown, fallen)),
        fund_low=tuple(map(jnp.minimum, state.fund_low, equity)),
        low=_extremes(jnp.minimum, state.low, state.prices),
        high=_extremes(jnp.maximum, state.high, state.prices),
    )


def _extremes(of: Any, past: Prices, now: Prices) -> Prices:
    return Prices(tuple(map(of, past.index, now.index)), tuple(map(of, past.basis, now.basis)), ())


def _book(
    found: Found, closing: list[Any], by_market: list[Lanes], number: Array, hour: Array, to: Memories, sizes: Sizes
) -> None:
    """Post the round in the books of both sides, and add it to the hour."""
    report, signs = to.report, (1.0, -1.0) * sizes.markets
    for side, there in enumerate(closing):
        add(at_row(report.volume, hour, side), found.usd[side], there)
        add_sum(report.traders, hour, side, -signs[side] * found.quantity[side], there)
    somewhere = reduce(jnp.logical_or, closing)
    for m in range(sizes.markets):
        there, (long, short) = closing[2 * m] | closing[2 * m + 1], found.quantity[2 * m : 2 * m + 2]
        add(at_row(report.first_round, hour, m), jnp.where(number == 0, by_market[m], 0.0), there)
        add_sum(report.rest, hour, m, long - short, there)
    for v in range(sizes.venues):
        here = slice(2 * v * sizes.assets, 2 * (v + 1) * sizes.assets)
        paid = total(x * sign for x, sign in zip(found.proceeds[here], signs[here], strict=True))
        add(at_row(report.accounts, hour, v), total(found.accounts[here]), somewhere)
        owed = total(found.deficit[here]) - total(found.received[here])
        add_sum(report.traders_cash, hour, v, paid, somewhere)
        add_sum(report.traders_cash, hour, v, owed, somewhere)
        add_sum(report.rest_cash, hour, v, -paid, somewhere)
    flows = total([*found.proceeds, *found.received, *found.deficit])
    add(at_row(report.gross, hour, 0), flows, somewhere)
    add(at_row(report.gross, hour, 1), total(found.quantity), somewhere)


def at_row(of: Any, *at: Any) -> Any:
    """Reference to a row in memory; whole numbers as arrays, which is what masked loads take."""
    return of.at[tuple(np.int32(i) if isinstance(i, int) else i for i in at)]


def add(to: Any, x: Lanes, there: Any) -> None:
    """Add to a row in memory."""
    triton.store(to, triton.load(to, mask=there, other=0.0) + x, mask=there)


def add_sum(book: Any, hour: Array, number: int, x: Lanes, there: Any) -> None:
    """Add to a row of a book, whose sums have a high and a low part."""
    high, low = (at_row(book, hour, i, number) for i in (0, 1))
    held = Sum(triton.load(high, mask=there, other=0.0), triton.load(low, mask=there, other=0.0))
    after = held.add(x)
    triton.store(high, after.high, mask=there)
    triton.store(low, after.low, mask=there)
