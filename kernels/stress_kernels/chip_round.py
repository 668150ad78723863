"""A cascade round on the chip: orders are listed and closed, their flows move prices, pools receive and pay."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool

from stress_kernels.chip_boards import Boards, Memories
from stress_kernels.chip_memory import add, add_sum, extend, some, tile
from stress_kernels.chip_orders import Lanes, close_orders, sync
from stress_kernels.chip_prices import Prices, Tile, Tiles, basis_of, quote, reached
from stress_kernels.day_tables import Sizes
from stress_kernels.money import Sum


class State(NamedTuple):
    """What rounds change of the paths of a block."""

    u_local: Tiles
    u_global: Tile
    prices: Prices
    reach: Tiles
    cash: tuple[Sum, ...]
    """Of pools, which hold nothing else."""
    peak: tuple[Lanes, ...]
    drawdown: tuple[Lanes, ...]
    fund_low: tuple[Lanes, ...]
    """In the hour."""
    index_low: Tile
    index_high: Tile
    unknown: Lanes
    """1 where a path has met something that the kernel does not do."""


class Held(NamedTuple):
    """What they do not."""

    log: Tile
    """Index without impact."""
    depth: Tile
    average: Tiles
    shift: Tiles
    hour: Array


class Cascade(NamedTuple):
    """Between two rounds."""

    state: State
    wanted: Tiles
    """Places that the marks trigger, by side."""
    budget: Tiles
    """What the engine can still take in [USD]."""
    number: Array
    busy: Array
    """1 while any path of the block has something to close."""


class Found(NamedTuple):
    """Answers of a round by side, 0 where there was no order."""

    usd: Tiles
    received: Tiles
    deficit: Tiles
    quantity: Tiles
    proceeds: Tiles
    accounts: Tiles
    beyond: Tiles


Closing = list[Bool[Array, "a p"]]
"""Where anything is swept, by side."""


def swept(state: State, wanted: Tiles) -> Closing:
    """What a round closes; nothing on a path that is given up."""
    known = (state.unknown < 0.5)[None]
    return [known & (high > low) for low, high in zip(state.reach, wanted, strict=True)]


def is_busy(state: State, wanted: Tiles) -> Array:
    """1 if any path of the block has something to close."""
    return jnp.max(reduce(jnp.logical_or, swept(state, wanted)).astype(jnp.int32))


def one_round(now: Cascade, held: Held, to: Memories, sizes: Sizes) -> Cascade:
    """From the marks of a state to new ones."""
    opening, closing = now.state, swept(now.state, now.wanted)
    found = _closed(now, closing, held, to, sizes)
    by_market = tuple(found.usd[2 * v] + found.usd[2 * v + 1] for v in range(sizes.venues))
    late = [(usd > left).astype(usd.dtype) for usd, left in zip(by_market, now.budget, strict=True)]
    unknown = jnp.max(reduce(jnp.maximum, [*found.beyond, *late]), axis=0)
    state, short = _paid(opening, found, held, to, sizes)
    state = _pressed(state, found, held, to)
    _book(found, closing, by_market, now, held.hour, to, sizes)
    _widen(opening, state, reduce(jnp.logical_or, closing), held.hour, to, sizes)
    reach = tuple(jnp.where(there, b, a) for there, a, b in zip(closing, state.reach, now.wanted, strict=True))
    given_up = reduce(jnp.maximum, [state.unknown, unknown, *short])
    state = observed(state._replace(reach=reach, unknown=given_up))
    wanted = reached(state.prices.mark, held.shift, reach, to, sizes)
    budget = tuple(jnp.maximum(left - usd, 0.0) for left, usd in zip(now.budget, by_market, strict=True))
    number = now.number + 1
    return Cascade(state, wanted, budget, number, jnp.where(number < sizes.rounds, is_busy(state, wanted), 0))


def _closed(now: Cascade, closing: Closing, held: Held, to: Memories, sizes: Sizes) -> Found:
    """List the orders, have all threads work them off, and collect the answers."""
    boards, lanes, state = to.boards, to.lanes, now.state
    boards.index[:, lanes], boards.u_global[:, lanes] = state.prices.index, state.u_global
    boards.depth[:, lanes] = held.depth
    by_row = (
        (boards.mark, state.prices.mark),
        (boards.u_local, state.u_local),
        (boards.shift, held.shift),
        (boards.low, state.reach),
        (boards.high, now.wanted),
    )
    for board, tiles in by_row:
        for i, x in enumerate(tiles):
            board[tile(i, sizes), lanes] = x
    total = _listed(closing, boards, sizes)
    sync(sizes)
    close_orders(total, to, sizes)
    sync(sizes)

    def answers(name: str) -> Tiles:
        board = getattr(boards, name)
        # Without an order the place may hold anything, and not a number too.
        return tuple(
            jnp.where(there, triton.load(board.at[tile(i, sizes), lanes], mask=there, other=0.0), 0.0)
            for i, there in enumerate(closing)
        )

    return Found(*map(answers, Found._fields))


def _listed(closing: Closing, boards: Boards, sizes: Sizes) -> Array:
    """Write down where there are orders, those of a path one after the other; how many there are."""
    lane = jnp.arange(sizes.lanes, dtype=jnp.int32)[None]
    row = jnp.arange(sizes.width, dtype=jnp.int32)[:, None]
    counts = [there.astype(jnp.int32) for there in closing]
    of_path = reduce(jnp.add, [jnp.sum(count, axis=0) for count in counts])
    place = jnp.cumsum(of_path) - of_path
    for i, (there, count) in enumerate(zip(closing, counts, strict=True)):
        at = place[None] + jnp.cumsum(count, axis=0) - count
        code = (i * sizes.width + row) * sizes.lanes + lane
        # Where there is none nothing is written, and that beyond the list: two threads must not share a place.
        beyond = sizes.rows * sizes.lanes + row * sizes.lanes + lane
        triton.store(boards.orders.at[jnp.where(there, at, beyond)], code, mask=there)
        place = place + jnp.sum(count, axis=0)
    return jnp.sum(of_path)


def _paid(state: State, found: Found, held: Held, to: Memories, sizes: Sizes) -> tuple[State, list[Lanes]]:
    """Pools receive fees and surpluses and pay deficits; and where one of them cannot."""
    cash, short = [], []
    for f, before in enumerate(state.cash):

        def of_pool(sides: Tiles, f: int = f) -> Lanes:
            behind = [to.tables.behind[f, v, :, to.lanes] for v in range(sizes.venues)]
            return jnp.sum(sum(x * (sides[2 * v] + sides[2 * v + 1]) for v, x in enumerate(behind)), axis=0)

        receipts, deficits = of_pool(found.received), of_pool(found.deficit)
        add(some(to.report.surplus, held.hour, f, to.lanes), receipts, receipts > 0)
        add(some(to.report.deficit, held.hour, f, to.lanes), deficits, deficits > 0)
        after = before.add(receipts)
        short.append((deficits > jnp.maximum(after.value, 0.0)).astype(deficits.dtype))
        cash.append(after.add(-deficits))
    return state._replace(cash=tuple(cash)), short


def _pressed(state: State, found: Found, held: Held, to: Memories) -> State:
    """Flows move imbalances, all markets at once, and prices are quoted anew; longs sell."""
    tables, lanes = to.tables, to.lanes
    flows = [short - long for long, short in zip(found.usd[::2], found.usd[1::2], strict=True)]
    pressure = [flow * held.depth for flow in flows]
    pushed = [x / tables.adv[v, :, lanes] for v, x in enumerate(pressure)]
    u_local = tuple(map(jnp.add, state.u_local, pushed))
    u_global = state.u_global + sum(pressure[1:], pressure[0]) / tables.adv_global[:, lanes]
    prices = quote(held.log, basis_of(u_local, to), u_global, held.average, to)
    return state._replace(u_local=u_local, u_global=u_global, prices=prices)


def observed(state: State) -> State:
    """Take the extremes of indices and funds."""
    equity, index = [cash.value for cash in state.cash], state.prices.index
    peak = tuple(map(jnp.maximum, state.peak, equity))
    fallen = (top - now for top, now in zip(peak, equity, strict=True))
    return state._replace(
        peak=peak,
        drawdown=tuple(map(jnp.maximum, state.drawdown, fallen)),
        fund_low=tuple(map(jnp.minimum, state.fund_low, equity)),
        index_low=jnp.minimum(state.index_low, index),
        index_high=jnp.maximum(state.index_high, index),
    )


def _widen(before: State, after: State, there: Bool[Array, "a p"], hour: Array, to: Memories, sizes: Sizes) -> None:
    """Take the extremes of the basis on both sides of a round: between rounds it only falls back towards zero."""
    report, lanes = to.report, to.lanes
    anywhere = jnp.max(there.astype(jnp.int32), axis=0)[None] > 0
    here = jnp.broadcast_to(anywhere, there.shape)
    for v, (a, b) in enumerate(zip(before.prices.basis, after.prices.basis, strict=True)):
        extend(some(report.basis_low, hour, tile(v, sizes), lanes), jnp.minimum(a, b), here, jnp.minimum)
        extend(some(report.basis_high, hour, tile(v, sizes), lanes), jnp.maximum(a, b), here, jnp.maximum)


def _book(
    found: Found, closing: Closing, by_market: Tiles, now: Cascade, hour: Array, to: Memories, sizes: Sizes
) -> None:
    """Post the round in the books of both sides, and add it to the hour."""
    report, lanes = to.report, to.lanes
    for i, there in enumerate(closing):
        add(some(report.volume, hour, tile(i, sizes), lanes), found.usd[i], there)
        add_sum(report.traders, hour, tile(i, sizes), lanes, (2 * (i % 2) - 1) * found.quantity[i], there)
    for v in range(sizes.venues):
        there, (long, short) = closing[2 * v] | closing[2 * v + 1], found.quantity[2 * v : 2 * v + 2]
        first = jnp.where(now.number == 0, by_market[v], 0.0)
        add(some(report.first_round, hour, tile(v, sizes), lanes), first, there)
        add_sum(report.rest, hour, tile(v, sizes), lanes, long - short, there)
    gross, coins, anywhere = [], [], jnp.max(reduce(jnp.logical_or, closing).astype(jnp.int32), axis=0) > 0
    for v in range(sizes.venues):
        both = slice(2 * v, 2 * v + 2)
        earned, deficit, received = (x[both] for x in (found.proceeds, found.deficit, found.received))
        paid = jnp.sum(earned[0] - earned[1], axis=0)
        add(some(report.accounts, hour, v, lanes), jnp.sum(sum(found.accounts[both]), axis=0), anywhere)
        add_sum(report.traders_cash, hour, v, lanes, paid, anywhere)
        add_sum(report.traders_cash, hour, v, lanes, jnp.sum(sum(deficit) - sum(received), axis=0), anywhere)
        add_sum(report.rest_cash, hour, v, lanes, -paid, anywhere)
        gross.append(jnp.sum(sum([*earned, *deficit, *received]), axis=0))
        coins.append(jnp.sum(sum(found.quantity[both]), axis=0))
    add(some(report.gross, hour, 0, lanes), reduce(jnp.add, gross), anywhere)
    add(some(report.gross, hour, 1, lanes), reduce(jnp.add, coins), anywhere)
