"""Positions into ladders: triggers, staged closings, margin classes, cumulative tables."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stress_kernels.ladder import ACCOUNTS, CLASSES, COLUMNS, ENTRY, TOP, TOP_10, Ladders
from stress_kernels.pytree import host

from stress.closings import Closings, Schedule, closings
from stress.portfolio import Positions
from stress.stops import StopOrders, failing_depth

Array = NDArray[np.float64]
Key = tuple[int, int, int, int]
"""Venue, asset, side, and whether the orders are forced (0) or stop orders (1)."""

SPREAD = 0.1
"""Depth at which half of the cells of a ladder are used up [log]."""
EXACT_PROBES = 16
"""A book is exact where no trigger lies this many cells behind its own."""
SMALL_BOOK = 64
"""A book with at most this many closings per market side is always exact."""
_MOST_REQUIRED = 0.95
"""Share of its notional that an account is asked for at most, however wide margins get [1]."""
TOP_SHARES = {TOP: 0.01, TOP_10: 0.1}
"""The largest accounts of a market side, by number, in the columns of a ladder's rows."""


@dataclass(frozen=True)
class Side:
    """Closings of a market side on their way into a table."""

    depth: Array
    cell: NDArray[np.int64]
    orders: Closings
    klass: NDArray[np.int64]
    entry_class: NDArray[np.int64]
    top: Mapping[int, Array]
    """Share of each order that is of the largest accounts, by column [1]."""


@dataclass(frozen=True)
class Book:
    """Ladders, and what a person may want to know of them."""

    ladders: Ladders
    exact: bool
    accounts: float
    long_usd: float
    """Account longs at the start [USD]."""
    short_usd: float
    stops_usd: tuple[float, float]
    """Positions with a stop order at the start, long and short, those at support levels included [USD]."""
    fresh: Ladders | None = None
    """Of accounts that are opened later, as if at the start, where there are any; one entry class."""
    back: Ladders | None = None
    """The same of accounts that come back after the last hour."""


class PastTrigger(ValueError):
    """A position is at or past its trigger at the starting marks."""

    def __init__(self, row: int, trigger: float, start: float) -> None:
        super().__init__(f"row {row}: trigger {trigger:g} USD against a starting mark of {start:g} USD")
        self.row, self.trigger, self.start = row, trigger, start


def compile_book(
    positions: Positions,
    schedules: dict[tuple[int, int], Schedule],
    start_price: Array,
    venues: int,
    cells: int,
    entry_classes: int,
    dtype: str,
    stops: StopOrders | None = None,
    fresh: Positions | None = None,
    back: Positions | None = None,
) -> Book:
    """Sort all accounts into ladders; stop orders, where there are any, into further ones behind them.

    Args:
        positions: Isolated positions.
        schedules: Rules of every listed market, by venue and asset.
        start_price: Index price of each asset at the start [USD].
        venues: Number of venues.
        cells: Rungs of a ladder.
        entry_classes: Ladders of a market side, by entry price.
        dtype: Of the tables.
        stops: Stop orders, where there are any.
        fresh: Accounts for ladders of their own, of the same size.
        back: Others for further ones.

    Raises:
        PastTrigger: A position would be liquidated before the first step.
    """
    assets = len(start_price)
    sides = _sides(positions, schedules, start_price, venues, cells, entry_classes, stops)
    others = [
        {} if more is None else _sides(more, schedules, start_price, venues, cells, 1, None) for more in (fresh, back)
    ]
    apart = {_apart(key, i): side for i, several in enumerate(others) for key, side in several.items()}
    placed, probes = _place(sides | apart, cells)
    kinds = 1 if stops is None else 2
    shape = venues, assets, 2
    ladders = _ladders(sides, schedules, placed, probes, (*shape, kinds * entry_classes), entry_classes, cells, dtype)
    later: list[Ladders | None] = [None, None]
    for i, more in enumerate((fresh, back)):
        if more is not None:
            mine = {key: placed[_apart(key, i)] for key in others[i] if placed}
            later[i] = _ladders(others[i], schedules, mine, probes, (*shape, 1), 1, cells, dtype)
    notional = np.abs(positions.quantity) * start_price[positions.asset] * positions.count
    long_usd = float(notional[positions.quantity > 0].sum())
    stopped = [sum(float(x.orders.quantity.sum()) for key, x in sides.items() if key[2:] == (s, 1)) for s in (0, 1)]
    short_usd = float(notional.sum()) - long_usd
    accounts, stops_usd = float(positions.count.sum()), (stopped[0], stopped[1])
    return Book(ladders, probes > 0, accounts, long_usd, short_usd, stops_usd, *later)


def _apart(key: Key, which: int) -> Key:
    """A key of later accounts among those of the accounts at the start."""
    return (*key[:2], key[2] + 2 * (which + 1), key[3])


def _sides(
    positions: Positions,
    schedules: Mapping[tuple[int, int], Schedule],
    start_price: Array,
    venues: int,
    cells: int,
    entry_classes: int,
    stops: StopOrders | None,
) -> dict[Key, Side]:
    """Closings of every market side that holds anything."""
    assets = len(start_price)
    key = (positions.venue.astype(np.int64) * assets + positions.asset) * 2 + (positions.quantity < 0)
    order = np.argsort(key.astype(np.uint16), kind="stable")
    bounds = np.searchsorted(key[order], np.arange(venues * assets * 2 + 1))
    sides: dict[Key, Side] = {}
    for group in range(venues * assets * 2):
        rows = order[bounds[group] : bounds[group + 1]]
        market = v, a, _ = group // (2 * assets), group // 2 % assets, group % 2
        if len(rows) or (stops is not None and market in stops.supports):
            several = _of_market(
                positions, rows, market, schedules[v, a], float(start_price[a]), cells, entry_classes, stops
            )
            sides |= {(*market, kind): side for kind, side in enumerate(several) if len(side.depth)}
    return sides


def _ladders(
    sides: Mapping[Key, Side],
    schedules: Mapping[tuple[int, int], Schedule],
    placed: Mapping[Key, NDArray[np.int64]],
    probes: int,
    shape: tuple[int, int, int, int],
    entry_classes: int,
    cells: int,
    dtype: str,
) -> Ladders:
    """Tables of all market sides; `placed` and `probes` as from `_place`."""
    length = cells + probes + 2
    rows_table = np.zeros((*shape, length, COLUMNS), dtype)
    depth = np.full((*shape, cells + probes), np.inf, dtype)
    margin, partial = (np.zeros((*shape, CLASSES), kind) for kind in (dtype, bool))
    failing = np.zeros((*shape, length, CLASSES), dtype)
    rates, widened = np.zeros((2, *shape), dtype)
    for key, side in sides.items():
        (v, a, s, stops), cell = key, placed.get(key, side.cell)
        here = v, a, s, slice(stops * entry_classes, (stops + 1) * entry_classes)
        rows_table[*here, 1:] = table = _cumulate(side, cell, length - 1, entry_classes)
        margin[here], partial[here] = _class_margins(side)
        if stops:
            failing[*here, :-1] = failing_depth(table, 1 - 2 * s)
        else:
            rates[here], widened[here] = _mean_rate(side, schedules[v, a]), _widened(side, schedules[v, a])
        if probes:
            finite = np.isfinite(side.depth)
            depth[here][side.entry_class[finite], cell[finite]] = side.depth[finite]
    of_stops = np.broadcast_to(np.arange(shape[-1]) >= entry_classes, shape)[..., None]
    return Ladders(
        rows=host(rows_table),
        coins=host(functools.reduce(np.add, (rows_table[..., column] for column in range(0, 2 * CLASSES, 2)))),
        depth=host(depth),
        first=host(np.arange(np.prod(shape)).reshape(*shape, 1) * length, np.int32),
        sign=host(np.broadcast_to(np.reshape([1, -1], (2, 1, 1)), (*shape, 1)), dtype),
        log_margin=host(margin[..., None]),
        partial=host(partial[..., None]),
        trigger_rate=host(rates[..., None]),
        spread=host(SPREAD, dtype),
        cells=cells,
        probes=probes,
        stops=host(of_stops) if of_stops.any() else None,
        failing=host(failing) if of_stops.any() else None,
        widened=host(widened[..., None]) if any(x.margin_times > 1 for x in schedules.values()) else None,
    )


def _of_market(
    positions: Positions,
    rows: NDArray[np.int64],
    market: tuple[int, int, int],
    schedule: Schedule,
    start: float,
    cells: int,
    entry_classes: int,
    stops: StopOrders | None,
) -> list[Side]:
    """Closings of one market side, with the class and the cell of each: forced ones, and stop orders if there are."""
    quantity, entry, count = (
        positions.quantity[rows] * start,
        positions.entry_price[rows] / start,
        positions.count[rows],
    )
    cash, sign = positions.margin[rows] - quantity * entry, 1.0 if market[2] == 0 else -1.0
    orders = closings(cash, quantity, entry, count, schedule)
    trigger = orders.trigger[: len(rows)]
    if np.any(sign * trigger >= sign):
        worst = int(np.argmax(sign * trigger >= sign))
        raise PastTrigger(int(rows[worst]), float(trigger[worst] * start), start)
    size = np.abs(quantity)
    klass = _weighted_class(entry, size * count, entry_classes)
    top = {column: _largest(size, count, share) for column, share in TOP_SHARES.items()}

    def side(orders: Closings, stopped: bool = False) -> Side:
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where(orders.trigger > 0, -sign * np.log(orders.trigger), np.inf)
            natural = np.minimum(np.floor(cells * depth / (SPREAD + depth)), cells - 1)
        return Side(
            depth=depth,
            cell=np.where(np.isfinite(depth), natural, cells).astype(np.int64),
            orders=orders,
            klass=orders.stratum if stopped else _margin_classes(orders, depth),
            # Holders at a support level are none of the accounts, and small.
            entry_class=np.append(klass, 0)[orders.owner],
            top={column: np.append(largest, 0.0)[orders.owner] for column, largest in top.items()},
        )

    if stops is None:
        return [side(orders)]
    own = stops.of(market, cash, quantity, entry, count, trigger)
    return [side(orders.of_copies(stops.without(trigger))), side(own, stopped=True)]


def _weighted_class(x: Array, weight: Array, classes: int) -> NDArray[np.int64]:
    """Class of each value, the classes of equal total weight and ascending."""
    if classes == 1 or len(x) == 0:
        return np.zeros(len(x), np.int64)
    low, high = float(x.min()), float(x.max())
    if high - low < 1e-9:
        return np.zeros(len(x), np.int64)
    mass, edges = np.histogram(x, bins=4096, range=(low, high), weights=weight)
    cuts = np.searchsorted(np.cumsum(mass), mass.sum() * np.arange(1, classes) / classes)
    return np.searchsorted(edges[cuts + 1], x, side="left").astype(np.int64)


def _margin_classes(orders: Closings, depth: Array) -> NDArray[np.int64]:
    """Classes by the log distance from trigger to bankruptcy; partial closes have the last two for themselves.

    The classes share the coins about equally, near triggers counting more than far ones.
    """
    weight = orders.quantity * np.exp(-depth / SPREAD)
    for_partial = 2 if orders.partial.any() else 0
    klass = np.zeros(len(orders.trigger), np.int64)
    for chosen, first, classes in (
        (~orders.partial, 0, CLASSES - for_partial),
        (orders.partial, CLASSES - for_partial, for_partial),
    ):
        if chosen.any():
            distance = np.log(np.maximum(np.abs(1 - orders.ratio[chosen]), 1e-6))
            distinct = np.unique(np.round(distance, 9)) if chosen.sum() <= 4096 else ()
            if 0 < len(distinct) <= classes:
                klass[chosen] = first + np.searchsorted(distinct, np.round(distance, 9))
            else:
                klass[chosen] = first + _weighted_class(distance, weight[chosen], classes)
    return klass


def _class_margins(side: Side) -> tuple[Array, NDArray[np.bool_]]:
    """Mean ln(bankruptcy price / trigger) of each margin class, and which classes are of partial closes."""
    orders, weight = side.orders, side.orders.quantity * np.exp(-side.depth / SPREAD)
    ratio = np.log(np.maximum(orders.ratio, 1e-6))
    mass = np.bincount(side.klass, weight, CLASSES)
    mean = np.bincount(side.klass, weight * ratio, CLASSES) / np.where(mass > 0, mass, 1.0)
    return mean, np.bincount(side.klass, orders.partial, CLASSES) > 0


def _mean_rate(side: Side, schedule: Schedule) -> float:
    """Mean marginal maintenance rate at the trigger, and the fee where it is counted [1]."""
    orders = side.orders
    counted = schedule.counted_fee
    usable = (orders.accounts > 0) & np.isfinite(side.depth)
    if not usable.any():
        return float(schedule.rate[0]) + counted
    size = (orders.quantity / np.where(orders.accounts > 0, orders.accounts, 1.0))[usable] * orders.trigger[usable]
    tier = np.maximum(np.searchsorted(schedule.floor, size, side="left") - 1, 0)
    return float(np.average(schedule.rate[tier], weights=orders.quantity[usable])) + counted


def _widened(side: Side, schedule: Schedule) -> float:
    """Mean log distance by which triggers come nearer while maintenance is a multiple of the schedule's.

    An account with p_b = T (1 - r - fee) is then triggered at p_b / (1 - times r - fee), a short with plus signs: exact
    while r is what it requires over its notional at either price. Near triggers count more than far ones.
    """
    orders, counted, times = side.orders, schedule.counted_fee, schedule.margin_times
    usable = np.isfinite(side.depth) & (orders.quantity > 0)
    if times == 1 or not usable.any():
        return 0.0
    ratio = orders.ratio[usable]
    required, sign = np.abs(1 - ratio), np.sign(1 - ratio)
    wider = np.minimum(times * (required - counted) + counted, _MOST_REQUIRED)
    shift = sign * (np.log(ratio) - np.log1p(-sign * np.maximum(wider, required)))
    return float(np.average(shift, weights=orders.quantity[usable] * np.exp(-side.depth[usable] / SPREAD)))


def _largest(size: Array, count: Array, share: float) -> Array:
    """Share of each account's copies that is among the largest, which make up `share` of all; equal sizes alike."""
    _, group = np.unique(-size, return_inverse=True)
    copies = np.bincount(group, count)
    before = np.cumsum(copies) - copies
    return np.clip((share * copies.sum() - before) / copies, 0.0, 1.0)[group]


def _place(sides: Mapping[Key, Side], cells: int) -> tuple[dict[Key, NDArray[np.int64]], int]:
    """Give every distinct trigger a cell of its own, where that moves none far; else leave cells shared.

    Returns:
        Cells by market side, and the probes a look-up needs; none and 0 where cells are shared.
    """
    placed, probes, small = {}, 1, True
    for key, side in sides.items():
        small = small and len(side.depth) <= SMALL_BOOK
        if len(side.depth) > cells // 4:
            return {}, 0
        own = side.cell.copy()
        for entry_class in np.unique(side.entry_class):
            chosen = (side.entry_class == entry_class) & (side.cell < cells)
            distinct, which = np.unique(side.depth[chosen], return_inverse=True)
            natural = np.zeros(len(distinct), np.int64)
            natural[which] = side.cell[chosen]
            index = np.arange(len(distinct))
            moved = np.maximum.accumulate(natural - index) + index
            probes = max(probes, int(np.max(moved - natural, initial=0)) + 1)
            own[chosen] = moved[which]
        placed[key] = own
    limit = SMALL_BOOK if small else EXACT_PROBES
    if probes > limit:
        return {}, 0
    rounded = 1 << (probes - 1).bit_length()
    never = {key: np.where(sides[key].cell == cells, cells + rounded, own) for key, own in placed.items()}
    return never, rounded


def _cumulate(side: Side, cell: NDArray[np.int64], length: int, entry_classes: int) -> Array:
    """Cumulative rows of a market side, shape (entry class, length, column); sums in 64 bits."""
    orders = side.orders
    where = side.entry_class * length + cell
    size = entry_classes * length
    table = np.zeros((size, COLUMNS))
    by_class = where * CLASSES + side.klass
    table[:, 0 : 2 * CLASSES : 2] = np.bincount(by_class, orders.quantity, size * CLASSES).reshape(size, CLASSES)
    value = orders.quantity * (orders.value - 1)
    table[:, 1 : 2 * CLASSES : 2] = np.bincount(by_class, value, size * CLASSES).reshape(size, CLASSES)
    table[:, ACCOUNTS] = np.bincount(where, orders.accounts, size)
    table[:, ENTRY] = np.bincount(where, orders.quantity * (orders.entry - 1), size)
    for column, top in side.top.items():
        table[:, column] = np.bincount(where, orders.quantity * top, size)
    return np.cumsum(table.reshape(entry_classes, length, COLUMNS), axis=1)
