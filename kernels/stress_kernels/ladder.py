"""Single-asset accounts as sorted triggers: a step sweeps a range of rungs, whatever their number.

All accounts of one market, side and entry class form a ladder. Its rungs are ordered by *depth*, the adverse log move
of the mark that triggers them, and hold cumulative sums, so that what a move triggers is a difference of two rows.
A rung is a cell of the coordinate depth / (spread + depth), fine near the start and reaching to infinity; in a small
book every cell holds one trigger and knows its depth, and the ladder is exact.

A position on a ladder is a number of rungs passed; a part of a rung is a fraction. Margin classes (by the distance
from trigger to bankruptcy) split a sweep into accounts with equity left and accounts without: inside a class
bankruptcy follows the trigger, so the split is one more position on the ladder.

Axes: `v a` market, `s` side, `e` entry class, `c` margin class, `p` path.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static
from stress_kernels.rows import paths_last
from stress_kernels.world import along, side_sign

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
    log_margin: Float[Array, "v a s e c"]
    """ln(bankruptcy price / trigger) of a class."""
    partial: Bool[Array, "v a s e c"]
    """Classes of partial closes, whose equity stays with the account."""
    trigger_rate: Float[Array, "v a s e"]
    """Mean marginal maintenance rate and counted fee, for the shift of triggers by funding [1]."""
    spread: Float[Array, ""]
    """Depth at which half of the cells are used up [log]."""
    cells: int = static()
    """Cells of the depth coordinate."""
    probes: int = static()
    """Cells that a trigger may lie behind its natural one; 0: triggers lie at the centres of their cells."""


def _first(ladders: Ladders, shape: tuple[int, ...]) -> Int[Array, "*b"]:
    """Index of a ladder's first row in the flattened table, broadcastable to v a s e ... p."""
    v, a, s, e, rung, _ = ladders.rows.shape
    start = np.arange(v * a * s * e, dtype=np.int32).reshape(v, a, s, e) * rung
    return jnp.asarray(start.reshape((v, a, s, e) + (1,) * (len(shape) - 4)))


def _slices(table: Float[Array, " n"], start: Int[Array, "*b"], width: int) -> Float[Array, "*b w"]:
    """`width` consecutive numbers from each start."""
    numbers = jax.lax.GatherDimensionNumbers(offset_dims=(start.ndim,), collapsed_slice_dims=(), start_index_map=(0,))
    return jax.lax.gather(
        table, start[..., None], numbers, slice_sizes=(width,), mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    )


def position(ladders: Ladders, depth: Float[Array, "v a s e *c p"]) -> Float[Array, "v a s e *c p"]:
    """Rungs whose trigger is at or before `depth` [rungs, whole]."""
    size = ladders.cells
    depth = jnp.maximum(depth, 0.0)
    cell = size * (depth / (ladders.spread + depth))
    if ladders.probes == 0:
        return jnp.floor(jnp.minimum(cell + 0.5, size))
    cell = jnp.minimum(jnp.floor(cell), size)
    rung = ladders.depth.shape[-1]
    ladder = np.arange(ladders.depth.size // rung, dtype=np.int32).reshape(ladders.depth.shape[:4])
    start = jnp.asarray(ladder.reshape(ladder.shape + (1,) * (depth.ndim - 4))) * rung + cell.astype(jnp.int32)
    near = _slices(ladders.depth.reshape(-1), start, ladders.probes)
    return cell + jnp.sum(near <= depth[..., None], axis=-1, dtype=cell.dtype)


def row_at(ladders: Ladders, place: Float[Array, "v a s e p"]) -> Float[Array, "v a s e column p"]:
    """Cumulative sums at a place on each ladder, linear inside a rung."""
    whole = jnp.floor(place)
    start = (_first(ladders, place.shape) + whole.astype(jnp.int32)) * COLUMNS
    pair = jax.lax.optimization_barrier(_slices(ladders.rows.reshape(-1), start, 2 * COLUMNS))
    low, high = pair[..., :COLUMNS], pair[..., COLUMNS:]
    part = (place - whole)[..., None]
    row = jnp.where(part > 0, low + part * (high - low), low)
    return jax.lax.optimization_barrier(paths_last(jnp.moveaxis(row, -1, -2)))


def coins_at(ladders: Ladders, place: Float[Array, "v a s e p"]) -> Float[Array, "v a s e p"]:
    """Cumulative coins at a place on each ladder: `quantity(row_at(...))`, for less."""
    whole = jnp.floor(place)
    start = _first(ladders, place.shape) + whole.astype(jnp.int32)
    pair = _slices(ladders.coins.reshape(-1), start, 2)
    low, high, part = pair[..., 0], pair[..., 1], place - whole
    return jax.lax.optimization_barrier(jnp.where(part > 0, low + part * (high - low), low))


def total_row(ladders: Ladders) -> Float[Array, "v a s e column"]:
    """Sums over whole ladders."""
    return ladders.rows[..., -1, :]


@pytree
class Kept:
    """What has become of the accounts that no trigger has reached.

    Of every coin `scale` is held, and an account whose bankruptcy price was p at the start now has
    dir (scale P - shift - p) USD per coin of the start. Closing a share in deleveraging, funding and socialised losses
    are all changes of these two; none of them needs the table.
    """

    scale: Float[Array, "v a s e p"]
    """Share of each position that deleveraging has left [1]."""
    shift: Float[Array, "v a s e p"]
    """By how much a long has paid more, or a short has received more, than at the start [USD per coin of the start]."""

    def level(self, price_move: Float[Array, "v a #s #e p"]) -> Float[Array, "v a s e p"]:
        """The price move at which the accounts, as they were at the start, would stand as they do now.

        Args:
            price_move: Price - 1 [USD per coin].
        """
        return (self.scale - 1) + self.scale * price_move - self.shift


def depth_of(mark_log: Float[Array, "v a p"], kept: Kept, ladders: Ladders) -> Float[Array, "v a s e p"]:
    """Adverse log move of the mark, as the triggers see it.

    What moves bankruptcy prices moves triggers: a long is compared with scale m - shift / (1 - r), a short with
    scale m - shift / (1 + r), exact in price while the account stays in its maintenance tier.

    Args:
        mark_log: Log mark.
        kept: What is left of the accounts.
    """
    sign = side_sign(kept.shift)
    rate = ladders.trigger_rate[..., None]
    moved = kept.shift / (1 - sign * rate) * jnp.exp(-mark_log)[:, :, None, None]
    return -sign * (mark_log[:, :, None, None] + jnp.log(jnp.maximum(kept.scale - moved, 1e-3)))


def classes(row: Float[Array, "v a s e column p"]) -> tuple[Float[Array, "v a s e c p"], Float[Array, "v a s e c p"]]:
    """Quantity and bankruptcy value of each margin class."""
    return row[..., 0 : 2 * CLASSES : 2, :], row[..., 1 : 2 * CLASSES : 2, :]


def quantity(row: Float[Array, "v a s e column p"]) -> Float[Array, "v a s e p"]:
    """Coins over all margin classes."""
    return add_up(row[..., 0 : 2 * CLASSES : 2, :], -2)


@pytree
class Sweep:
    """A range of rungs, class by class."""

    low: Float[Array, "v a s e c p"]
    """Place where it starts."""
    high: Float[Array, "v a s e c p"]
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
    shape = quantity_low.shape
    return Sweep(
        low=jnp.broadcast_to(low[..., None, :], shape),
        high=jnp.broadcast_to(high[..., None, :], shape),
        quantity_low=quantity_low,
        value_low=value_low,
        quantity_high=quantity_high,
        value_high=value_high,
    )


def split(ladders: Ladders, whole: Sweep, price_move: Float[Array, "v a s p"], kept: Kept) -> tuple[Sweep, Sweep]:
    """Part a sweep at a price: accounts bankrupt there, and accounts with equity left.

    Args:
        whole: What is swept.
        price_move: Price - 1 [USD per coin].
        kept: What is left of the accounts.

    Returns:
        The bankrupt part, which comes first on the ladder, and the solvent part.
    """
    sign = side_sign(kept.shift)
    price_log = jnp.log1p(jnp.maximum(kept.level(price_move[:, :, :, None]), -0.999))
    depth = -sign[..., None] * (price_log[..., None, :] - ladders.log_margin[..., None])
    place = jnp.clip(position(ladders, depth), whole.low, whole.high)
    first = _first(ladders, place.shape)
    column = along(-2, 2 * jnp.arange(CLASSES, dtype=jnp.int32), place)
    start = (first + jnp.floor(place).astype(jnp.int32)) * COLUMNS + column
    pair = jax.lax.optimization_barrier(paths_last(jnp.moveaxis(_slices(ladders.rows.reshape(-1), start, 2), -1, 0)))
    at_low, at_high = place <= whole.low, place >= whole.high
    quantity_mid = jnp.where(at_low, whole.quantity_low, jnp.where(at_high, whole.quantity_high, pair[0]))
    value_mid = jnp.where(at_low, whole.value_low, jnp.where(at_high, whole.value_high, pair[1]))
    place, quantity_mid, value_mid = jax.lax.optimization_barrier((place, quantity_mid, value_mid))
    bankrupt = Sweep(whole.low, place, whole.quantity_low, whole.value_low, quantity_mid, value_mid)
    solvent = Sweep(place, whole.high, quantity_mid, value_mid, whole.quantity_high, whole.value_high)
    return bankrupt, solvent


def equity(part: Sweep, price_move: Float[Array, "v a s p"], kept: Kept) -> Float[Array, "v a s e c p"]:
    """What the accounts of a sweep have left when closed at a price: sum of dir q (price - bankruptcy price) [USD]."""
    level = kept.level(price_move[:, :, :, None])[..., None, :]
    return side_sign(level) * (part.quantity * level - part.value)
