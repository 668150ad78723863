"""Single-asset accounts as sorted triggers: a step sweeps a range of rungs, whatever their number.

All accounts of one market, side and entry class form a ladder. Its rungs are ordered by *depth*, the adverse log move
of the mark that triggers them, and hold cumulative sums, so that what a move triggers is a difference of two rows.
A rung is a cell of the coordinate depth / (spread + depth), fine near the start and reaching to infinity; in a small
book every cell holds one trigger and knows its depth, and the ladder is exact.

A position on a ladder is a number of rungs passed; a part of a rung is a fraction. Margin classes (by the distance
from trigger to bankruptcy) split a sweep into accounts with equity left and accounts without: inside a class
bankruptcy follows the trigger, so the split is one more position on the ladder.

Axes: `v a` market, `s` side, `e` entry class, `c` margin class, `p` path; where ladders stand side by side, all of
length 1 but the last (`ladder_lanes.py`).
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static
from stress_kernels.rows import paths_last
from stress_kernels.world import along

CLASSES = 6
"""Margin classes of a ladder."""
COLUMNS = 16
"""A row: (quantity, bankruptcy value) of each class, then accounts, entry value, and quantity of the largest 1 and 10 %
of accounts."""
ACCOUNTS, ENTRY, TOP, TOP_10 = (2 * CLASSES + i for i in range(4))


@pytree
class Ladders:
    """Cumulative tables of all ladder accounts."""

    rows: Float[Array, "v a s e rung column"]
    """Sums over the rungs before this one: quantity [coins], quantity x (bankruptcy price - 1) [USD], accounts,
    quantity x (entry price - 1) [USD]; a partial close holds quantity x (trigger - 1) instead of bankruptcy."""
    coins: Float[Array, "v a s e rung"]
    """Quantity over all classes, for searches [coins]."""
    depth: Float[Array, "v a s e rung"]
    """Where the trigger in a cell lies [log]; infinite in an empty cell."""
    first: Int[Array, "v a s e #p"]
    """Number of each ladder's first rung among those of all."""
    sign: Float[Array, "v a s e #p"]
    """+1 for longs, -1 for shorts."""
    log_margin: Float[Array, "v a s e c #p"]
    """ln(bankruptcy price / trigger) of a class."""
    partial: Bool[Array, "v a s e c #p"]
    """Classes of partial closes, whose equity stays with the account."""
    trigger_rate: Float[Array, "v a s e #p"]
    """Mean marginal maintenance rate and counted fee, for the shift of triggers by funding [1]."""
    spread: Float[Array, ""]
    """Depth at which half of the cells are used up [log]."""
    cells: int = static()
    """Cells of the depth coordinate."""
    probes: int = static()
    """Cells that a trigger may lie behind its natural one; 0: triggers lie at the centres of their cells; -1: evenly in
    them, for derivatives (`smooth.py`)."""
    stops: Bool[Array, "v a s e #p"] | None = None
    """Ladders of stop orders, whose trigger is the price that their holder has named; where there are any."""
    failing: Float[Array, "v a s e rung c"] | None = None
    """Adverse log move at which the accounts of a rung of stop orders are bankrupt, never falling along a ladder."""
    widened: Float[Array, "v a s e #p"] | None = None
    """By how much nearer triggers are while a breaker widens margins [log]; where one may."""
    copies: Float[Array, "v a s e p"] | None = None
    """How many there are of each account of a table, where that is not one [1]."""

    def counted(self, of_table: Float[Array, "v a s e *c #p"]) -> Float[Array, "v a s e *c #p"]:
        """Sums over all copies, from those of the table."""
        if self.copies is None:
            return of_table
        copies = self.copies.reshape(*self.copies.shape[:4], *(1,) * (of_table.ndim - 5), -1)
        return of_table * copies

    def of_paths(self, chosen: Int[Array, " n"]) -> Ladders:
        """Those of some paths."""
        return self if self.copies is None else replace(self, copies=self.copies[..., chosen])


def _slices(table: Float[Array, " n"], start: Int[Array, "*b"], width: int) -> Float[Array, "*b w"]:
    """`width` consecutive numbers from each start."""
    numbers = jax.lax.GatherDimensionNumbers(offset_dims=(start.ndim,), collapsed_slice_dims=(), start_index_map=(0,))
    return jax.lax.gather(
        table, start[..., None], numbers, slice_sizes=(width,), mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    )


def position(ladders: Ladders, depth: Float[Array, "v a s e *c p"]) -> Float[Array, "v a s e *c p"]:
    """Rungs whose trigger is at or before `depth` [rungs, whole but on smooth ladders]."""
    size = ladders.cells
    depth = jnp.maximum(depth, 0.0)
    cell = size * (depth / (ladders.spread + depth))
    if ladders.probes < 0:
        return jnp.minimum(cell, size)
    if ladders.probes == 0:
        return jnp.floor(jnp.minimum(cell + 0.5, size))
    cell = jnp.minimum(jnp.floor(cell), size)
    # The table of depths has a few rungs less a ladder.
    first = ladders.first // ladders.rows.shape[-2] * ladders.depth.shape[-1]
    first = first if depth.ndim == first.ndim else first[..., None, :]
    start = first + cell.astype(jnp.int32)
    near = _slices(ladders.depth.reshape(-1), start, ladders.probes)
    return cell + jnp.sum(near <= depth[..., None], axis=-1, dtype=cell.dtype)


def row_at(ladders: Ladders, place: Float[Array, "v a s e p"]) -> Float[Array, "v a s e column p"]:
    """Cumulative sums at a place on each ladder, linear inside a rung."""
    whole = jnp.floor(place)
    start, table = (ladders.first + whole.astype(jnp.int32)) * COLUMNS, ladders.rows.reshape(-1)

    def between() -> Float[Array, "v a s e p column"]:
        pair, part = jax.lax.optimization_barrier(_slices(table, start, 2 * COLUMNS)), (place - whole)[..., None]
        low, high = pair[..., :COLUMNS], pair[..., COLUMNS:]
        return jnp.where(part > 0, low + part * (high - low), low)

    # Only a queue or deleveraging stops inside a rung.
    row = jax.lax.cond(jnp.any(place > whole), between, lambda: _slices(table, start, COLUMNS))
    return jax.lax.optimization_barrier(ladders.counted(paths_last(jnp.moveaxis(row, -1, -2))))


def coins_at(ladders: Ladders, place: Float[Array, "v a s e p"]) -> Float[Array, "v a s e p"]:
    """Cumulative coins at a place on each ladder: `quantity(row_at(...))`, for less."""
    whole = jnp.floor(place)
    start = ladders.first + whole.astype(jnp.int32)
    pair = _slices(ladders.coins.reshape(-1), start, 2)
    low, high, part = pair[..., 0], pair[..., 1], place - whole
    return jax.lax.optimization_barrier(ladders.counted(jnp.where(part > 0, low + part * (high - low), low)))


def total_row(ladders: Ladders) -> Float[Array, "v a s e column #p"]:
    """Sums over whole ladders."""
    if ladders.rows.shape[3] == ladders.first.shape[3]:
        return ladders.counted(ladders.rows[..., -1, :, None])
    # Some share a table.
    total = ladders.rows.reshape(-1, COLUMNS)[ladders.first[..., 0] + ladders.rows.shape[-2] - 1]
    return ladders.counted(total[..., None])


@pytree
class Kept:
    """What has become of the accounts that no trigger has reached.

    Of every coin `scale` is held, and an account whose bankruptcy price was p at the start now has
    dir (scale P - shift - p) USD per coin of the start. Closing a share in deleveraging, funding and socialised losses
    are all changes of these two; none of them needs the table.
    """

    scale: Float[Array, "v a s e p"]
    """Coins held of each coin of the table: the share that deleveraging has left; of a cohort opened later over its
    price [1]."""
    shift: Float[Array, "v a s e p"]
    """By how much a long has paid more, or a short has received more, than at the start [USD per coin of the start]."""
    opened: Float[Array, "v a s e p"] | None = None
    """Price at which a table that stands for several cohorts was opened, where there are any [USD per coin]."""

    def level(self, price_move: Float[Array, "v a #s #e p"]) -> Float[Array, "v a s e p"]:
        """The price move at which the accounts, as they were at the start, would stand as they do now.

        Args:
            price_move: Price - 1 [USD per coin].
        """
        return (self.scale - 1) + self.scale * price_move - self.shift

    @property
    def share(self) -> Float[Array, "v a s e p"]:
        """Of each account's position that is left [1]."""
        return self.scale if self.opened is None else self.scale * self.opened

    def entry(self, table: Float[Array, "v a s e p"]) -> Float[Array, "v a s e p"]:
        """Entry price - 1 of accounts for which their table says `table` [USD per coin]."""
        return table if self.opened is None else (1 + table) * self.opened - 1


def depth_of(mark_log: Float[Array, "v a p"], kept: Kept, ladders: Ladders) -> Float[Array, "v a s e p"]:
    """Adverse log move of the mark, as the triggers see it.

    What moves bankruptcy prices moves triggers: a long is compared with scale m - shift / (1 - r), a short with
    scale m - shift / (1 + r), exact in price while the account stays in its maintenance tier. A stop stays where it is.

    Args:
        mark_log: Log mark.
        kept: What is left of the accounts.
    """
    moved = kept.shift / (1 - ladders.sign * ladders.trigger_rate) * jnp.exp(-mark_log)[:, :, None, None]
    depth = -ladders.sign * (mark_log[:, :, None, None] + jnp.log(jnp.maximum(kept.scale - moved, 1e-3)))
    if ladders.stops is None:
        return depth
    return jnp.where(ladders.stops, -ladders.sign * mark_log[:, :, None, None], depth)


def classes(row: Float[Array, "v a s e column p"]) -> tuple[Float[Array, "v a s e c p"], Float[Array, "v a s e c p"]]:
    """Quantity and bankruptcy value of each margin class."""
    return row[..., 0 : 2 * CLASSES : 2, :], row[..., 1 : 2 * CLASSES : 2, :]


def quantity(row: Float[Array, "v a s e column p"]) -> Float[Array, "v a s e p"]:
    """Coins over all margin classes."""
    return add_up(row[..., 0 : 2 * CLASSES : 2, :], -2)


@pytree
class Sweep:
    """A range of rungs, class by class."""

    low: Float[Array, "v a s e #c p"]
    """Place where it starts."""
    high: Float[Array, "v a s e #c p"]
    quantity_low: Float[Array, "v a s e c p"]
    value_low: Float[Array, "v a s e c p"]
    quantity_high: Float[Array, "v a s e c p"]
    value_high: Float[Array, "v a s e c p"]

    @property
    def quantity(self) -> Float[Array, "v a s e c p"]:
        """Coins in it."""
        return self.quantity_high - self.quantity_low

    @property
    def value(self) -> Float[Array, "v a s e c p"]:
        """Its quantity x (bankruptcy price - 1) [USD]."""
        return self.value_high - self.value_low


def sweep(
    low: Float[Array, "v a s e p"],
    high: Float[Array, "v a s e p"],
    row_low: Float[Array, "v a s e column p"],
    row_high: Float[Array, "v a s e column p"],
) -> Sweep:
    """The range between two places whose rows are known."""
    quantity_low, value_low = classes(row_low)
    quantity_high, value_high = classes(row_high)
    return Sweep(
        low=low[..., None, :],
        high=high[..., None, :],
        quantity_low=quantity_low,
        value_low=value_low,
        quantity_high=quantity_high,
        value_high=value_high,
    )


def parted_at(
    whole: Sweep,
    place: Float[Array, "v a s e c p"],
    coins: Float[Array, "v a s e c p"],
    value: Float[Array, "v a s e c p"],
) -> tuple[Sweep, Sweep]:
    """What of a sweep lies before a place with these cumulative sums, and what behind it."""
    before = Sweep(whole.low, place, whole.quantity_low, whole.value_low, coins, value)
    behind = Sweep(place, whole.high, coins, value, whole.quantity_high, whole.value_high)
    return before, behind


def split(ladders: Ladders, whole: Sweep, price_move: Float[Array, "v a s e p"], kept: Kept) -> tuple[Sweep, Sweep]:
    """Part a sweep at a price: accounts bankrupt there, and accounts with equity left.

    Args:
        whole: What is swept.
        price_move: Price - 1 [USD per coin].
        kept: What is left of the accounts.

    Returns:
        The bankrupt part, which comes first on the ladder, and the solvent part.
    """
    price_log = jnp.log1p(jnp.maximum(kept.level(price_move), -0.999))
    depth = -ladders.sign[..., None, :] * (price_log[..., None, :] - ladders.log_margin)
    place = jnp.clip(position(ladders, depth), whole.low, whole.high)
    if ladders.stops is not None:
        own = _failed(ladders, whole, -ladders.sign * price_log)
        place = jnp.where(ladders.stops[..., None, :], own, place)
    column = along(-2, 2 * jnp.arange(CLASSES, dtype=jnp.int32), place)
    start = (ladders.first[..., None, :] + jnp.floor(place).astype(jnp.int32)) * COLUMNS + column
    pair = jax.lax.optimization_barrier(paths_last(jnp.moveaxis(_slices(ladders.rows.reshape(-1), start, 2), -1, 0)))
    if ladders.probes < 0:
        after = paths_last(jnp.moveaxis(_slices(ladders.rows.reshape(-1), start + COLUMNS, 2), -1, 0))
        pair = pair + (place - jnp.floor(place))[None] * (after - pair)
    if ladders.copies is not None:
        pair = pair * ladders.copies[None, ..., None, :]
    at_low, at_high = place <= whole.low, place >= whole.high
    quantity_mid = jnp.where(at_low, whole.quantity_low, jnp.where(at_high, whole.quantity_high, pair[0]))
    value_mid = jnp.where(at_low, whole.value_low, jnp.where(at_high, whole.value_high, pair[1]))
    place, quantity_mid, value_mid = jax.lax.optimization_barrier((place, quantity_mid, value_mid))
    return parted_at(whole, place, quantity_mid, value_mid)


def _failed(ladders: Ladders, whole: Sweep, depth: Float[Array, "v a s e p"]) -> Float[Array, "v a s e c p"]:
    """Places in a sweep of stop orders before which accounts are bankrupt at a depth, class by class, by bisection: how
    far bankruptcy lies behind a stop differs from rung to rung."""
    assert ladders.failing is not None
    table, shape = ladders.failing.reshape(-1), whole.quantity_low.shape
    column = along(-2, jnp.arange(CLASSES, dtype=jnp.int32), whole.quantity_low)

    def bisect(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        below, above = bracket
        middle = jnp.floor(0.5 * (below + above))
        at = (ladders.first[..., None, :] + middle.astype(jnp.int32)) * CLASSES + column
        bankrupt = table.at[at].get(mode="promise_in_bounds") <= depth[..., None, :]
        here = below < above
        return jnp.where(here & bankrupt, middle + 1, below), jnp.where(here & ~bankrupt, middle, above)

    low, high = (jnp.broadcast_to(x, shape) for x in (jnp.floor(whole.low), jnp.ceil(whole.high)))
    place, _ = jax.lax.fori_loop(0, ladders.rows.shape[-2].bit_length(), bisect, (low, high))
    return jnp.clip(place, whole.low, whole.high)


def equity(
    ladders: Ladders, part: Sweep, price_move: Float[Array, "v a s e p"], kept: Kept
) -> Float[Array, "v a s e c p"]:
    """What the accounts of a sweep have left when closed at a price: sum of dir q (price - bankruptcy price) [USD]."""
    level = kept.level(price_move)[..., None, :]
    return ladders.sign[..., None, :] * (part.quantity * level - part.value)
