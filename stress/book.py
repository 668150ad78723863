"""Positions into ladders: triggers, staged closings, margin classes, cumulative tables."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stress_kernels.ladder import ACCOUNTS, CLASSES, COLUMNS, ENTRY, TOP, TOP_10, Ladders
from stress_kernels.pytree import host

from stress.portfolio import Positions
from stress.triggers import bankruptcy_price, deductions, trigger_price
from stress.venues import FractionStaging, RestoreStaging, Staging, TierStaging

Array = NDArray[np.float64]
Key = tuple[int, int, int]
"""Venue, asset and side."""

SPREAD = 0.1
"""Depth at which half of the cells of a ladder are used up [log]."""
FLOOR_TOLERANCE = 1e-3
"""A notional this little above a floor counts as at it [1]."""
MOST_CLOSINGS = 24
"""Staged closings of one account; what is open then closes whole."""
EXACT_PROBES = 16
"""A book is exact where no trigger lies this many cells behind its own."""
SMALL_BOOK = 64
"""A book with at most this many closings per market side is always exact."""
TOP_SHARES = {TOP: 0.01, TOP_10: 0.1}
"""The largest accounts of a market side, by number, in the columns of a ladder's rows."""


@dataclass(frozen=True)
class Schedule:
    """Maintenance and staging of one market."""

    floor: Array
    rate: Array
    fee: float
    """Fee on what is closed [1]."""
    fee_in_trigger: bool
    staging: Staging
    pause_steps: int = 0
    """Steps after a partial close until the account is tested again; for accounts on cross margin."""
    riskiest_first: bool = False
    """Of several positions only the one that requires most is closed."""

    @property
    def counted_fee(self) -> float:
        """Fee where the trigger counts it, else 0 [1]."""
        return self.fee if self.fee_in_trigger else 0.0

    @property
    def deduction(self) -> Array:
        """D_j [USD]."""
        return deductions(self.floor, self.rate)


@dataclass(frozen=True)
class Closings:
    """Forced orders of one market side, each at its trigger; coins are worth 1 USD at the start."""

    trigger: Array
    quantity: Array
    """Coins over all copies."""
    value: Array
    """Bankruptcy price; of a partial close, the trigger [USD per coin]."""
    ratio: Array
    """Bankruptcy price of the account at that time over the trigger [1]."""
    partial: NDArray[np.bool_]
    accounts: Array
    """Accounts that end with it."""
    entry: Array
    owner: NDArray[np.int64]
    """Row of the account in its market side."""


def closings(cash: Array, quantity: Array, entry: Array, count: Array, schedule: Schedule) -> Closings:
    """All forced orders of accounts of one sign, each closing assumed to execute at its trigger.

    A staged account is cut as the venue's rule says, keeps its equity but for the fee, and meets its next trigger with
    what is left. One whose equity does not outlast the fee of the cut would close in the next round and closes whole.
    By `tiers`, longs move down the brackets; a short's notional grows back on the way to its next trigger, so it is
    cut to the same floor again, in steps that shrink quickly. By `fraction`, an account that the cut leaves past its
    next trigger fails the next test and closes whole; any other begins anew. Nobody pauses between two closings.

    Args:
        cash: margin - q entry [USD], shape (n).
        quantity: Signed coins, all of one sign, shape (n).
        entry: Entry price [USD], shape (n).
        count: Copies of each account, shape (n).
        schedule: The market's brackets and staging.
    """
    rate, deduction, counted = schedule.rate, schedule.deduction, schedule.counted_fee
    owner, before = np.arange(len(cash)), np.full(len(cash), np.nan)
    parts: list[tuple[NDArray[Any], ...]] = []
    for last in [False] * (MOST_CLOSINGS - 1) + [True]:
        trigger = trigger_price(cash, quantity, rate, deduction, counted)
        price = bankruptcy_price(cash, quantity)
        size, sign = np.abs(quantity), np.sign(quantity)
        # What is left after a cut may be past its trigger at once.
        failed = sign * trigger >= sign * before
        trigger = np.where(failed, before, trigger)
        reachable = trigger > 0
        safe = np.where(reachable, trigger, 1.0)
        equity = sign * size * (trigger - price)
        left = np.where(reachable, _target(size * safe, equity, failed, schedule) / safe, 0.0)
        fee = schedule.fee * (size - left) * trigger
        cut = (left > 0) & (left < size) & (equity > fee) & (not last)
        closed = np.where(cut, size - left, size)
        parts.append(
            (trigger, closed * count, np.where(cut, trigger, price), np.where(reachable, price / safe, 1.0),
             cut, np.where(cut, 0.0, count), entry, owner)
        )  # fmt: skip
        if not cut.any():
            break
        cash = (cash + sign * closed * trigger - fee)[cut]
        quantity, entry, count, owner, before = (
            (sign * left)[cut], entry[cut], count[cut], owner[cut], trigger[cut]
        )  # fmt: skip
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Closings(*columns)


def _target(notional: Array, equity: Array, failed: NDArray[np.bool_], schedule: Schedule) -> Array:
    """Notional to which an account is cut; 0 where it is closed whole [USD].

    Args:
        notional: At the trigger [USD].
        equity: At the trigger [USD].
        failed: Whether the account was cut before and has not passed a test since.
        schedule: The market's brackets and staging.
    """
    match schedule.staging:
        case TierStaging() as rule:
            floors = schedule.floor[np.isfinite(schedule.floor)]
            tier = np.searchsorted(floors * (1 + FLOOR_TOLERANCE), notional, side="left") - 1
            tier = np.maximum(tier, 0)
            lower = np.maximum(tier - (rule.down - 1), 0)
            return np.where(tier < rule.whole_below, 0.0, floors[lower])
        case FractionStaging() as rule:
            return np.where(failed | (notional <= rule.above_usd), 0.0, (1 - rule.share) * notional)
        case RestoreStaging() as rule:
            # target (rate_j n - D_j + fee n) <= E in every tier
            most = (equity[:, None] / rule.target + schedule.deduction) / (schedule.rate + schedule.counted_fee)
            return np.min(most, axis=1)
        case _:
            return np.zeros_like(notional)


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
    fresh: Ladders | None = None
    """Of accounts that are opened later, as if at the start, where there are any; one entry class."""


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
    fresh: Positions | None = None,
) -> Book:
    """Sort all accounts into ladders.

    Args:
        positions: Isolated positions.
        schedules: Rules of every listed market, by venue and asset.
        start_price: Index price of each asset at the start [USD].
        venues: Number of venues.
        cells: Rungs of a ladder.
        entry_classes: Ladders of a market side, by entry price.
        dtype: Of the tables.
        fresh: Accounts for ladders of their own, of the same size.

    Raises:
        PastTrigger: A position would be liquidated before the first step.
    """
    assets = len(start_price)
    sides = _sides(positions, schedules, start_price, venues, cells, entry_classes)
    others = {} if fresh is None else _sides(fresh, schedules, start_price, venues, cells, 1)
    placed, probes = _place(sides | {(v, a, s + 2): side for (v, a, s), side in others.items()}, cells)
    shape = venues, assets, 2
    ladders = _ladders(sides, schedules, placed, probes, (*shape, entry_classes), cells, dtype)
    more = None
    if fresh is not None:
        mine = {key: placed[*key[:2], key[2] + 2] for key in others if placed}
        more = _ladders(others, schedules, mine, probes, (*shape, 1), cells, dtype)
    notional = np.abs(positions.quantity) * start_price[positions.asset] * positions.count
    long_usd = float(notional[positions.quantity > 0].sum())
    return Book(ladders, probes > 0, float(positions.count.sum()), long_usd, float(notional.sum()) - long_usd, more)


def _sides(
    positions: Positions,
    schedules: Mapping[tuple[int, int], Schedule],
    start_price: Array,
    venues: int,
    cells: int,
    entry_classes: int,
) -> dict[Key, Side]:
    """Closings of every market side that holds anything."""
    assets = len(start_price)
    key = (positions.venue.astype(np.int64) * assets + positions.asset) * 2 + (positions.quantity < 0)
    order = np.argsort(key.astype(np.uint16), kind="stable")
    bounds = np.searchsorted(key[order], np.arange(venues * assets * 2 + 1))
    sides: dict[Key, Side] = {}
    for group in range(venues * assets * 2):
        rows = order[bounds[group] : bounds[group + 1]]
        if len(rows):
            v, a, s = group // (2 * assets), group // 2 % assets, group % 2
            sides[v, a, s] = _side(positions, rows, schedules[v, a], float(start_price[a]), cells, entry_classes)
    return sides


def _ladders(
    sides: Mapping[Key, Side],
    schedules: Mapping[tuple[int, int], Schedule],
    placed: Mapping[Key, NDArray[np.int64]],
    probes: int,
    shape: tuple[int, int, int, int],
    cells: int,
    dtype: str,
) -> Ladders:
    """Tables of all market sides; `placed` and `probes` as from `_place`."""
    length, entry_classes = cells + probes + 2, shape[-1]
    rows_table = np.zeros((*shape, length, COLUMNS), dtype)
    depth = np.full((*shape, cells + probes), np.inf, dtype)
    margin, partial = (np.zeros((*shape, CLASSES), kind) for kind in (dtype, bool))
    rates = np.zeros(shape, dtype)
    for (v, a, s), side in sides.items():
        cell = placed.get((v, a, s), side.cell)
        rows_table[v, a, s, :, 1:] = _cumulate(side, cell, length - 1, entry_classes)
        margin[v, a, s], partial[v, a, s] = _class_margins(side)
        rates[v, a, s] = _mean_rate(side, schedules[v, a])
        if probes:
            finite = np.isfinite(side.depth)
            depth[v, a, s, side.entry_class[finite], cell[finite]] = side.depth[finite]
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
    )


def _side(
    positions: Positions, rows: NDArray[np.int64], schedule: Schedule, start: float, cells: int, entry_classes: int
) -> Side:
    """Closings of one market side, with the class and the cell of each."""
    quantity = positions.quantity[rows] * start
    entry = positions.entry_price[rows] / start
    orders = closings(positions.margin[rows] - quantity * entry, quantity, entry, positions.count[rows], schedule)
    sign = 1.0 if quantity[0] > 0 else -1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(orders.trigger > 0, -sign * np.log(orders.trigger), np.inf)
    first = depth[: len(rows)]
    if np.any(first <= 0):
        worst = int(np.argmax(first <= 0))
        raise PastTrigger(int(rows[worst]), float(orders.trigger[worst] * start), start)
    with np.errstate(invalid="ignore"):
        cell = np.where(np.isfinite(depth), np.minimum(np.floor(cells * depth / (SPREAD + depth)), cells - 1), cells)
    size, count = np.abs(quantity), positions.count[rows]
    return Side(
        depth=depth,
        cell=cell.astype(np.int64),
        orders=orders,
        klass=_margin_classes(orders, depth),
        entry_class=_weighted_class(entry, size * count, entry_classes)[orders.owner],
        top={column: _largest(size, count, share)[orders.owner] for column, share in TOP_SHARES.items()},
    )


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
