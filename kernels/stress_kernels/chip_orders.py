"""Orders on the chip: a thread takes one swept market side of any path of its block through book and settlement.

Few sides have an order in a round, and those of a path sit in different threads. So the sides that have one are listed,
and threads take the next ones from the list whoever's they are; what they find goes back over a board. It is the quiet
part of `layers.py` and `settlement.py`: the book takes the whole order, or the path is given up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from stress_kernels.chip_boards import Boards, Memories
from stress_kernels.day_tables import Sizes, Tables
from stress_kernels.ladder import ACCOUNTS, CLASSES, COLUMNS
from stress_kernels.price import mean_power, signed_power

Lanes = Float[Array, " lane"]
Numbers = Int[Array, " lane"]


def sync(sizes: Sizes) -> None:
    """Wait until all threads of the block see what the others have written."""
    if not sizes.interpret:
        triton.debug_barrier()


def place_of(depth: Float[Array, "*b"], spread: Array, cells: int) -> Float[Array, "*b"]:
    """Rungs whose trigger is at or before a depth, triggers being at the centres of their cells [rungs]."""
    depth = jnp.maximum(depth, 0.0)
    return jnp.floor(jnp.minimum(cells * (depth / (spread + depth)) + 0.5, cells))


class Order(NamedTuple):
    """A swept market side, or what a thread without one computes in vain."""

    there: Any
    """Whether there is an order."""
    row: Numbers
    """Of the boards with a row for each side."""
    path: Numbers
    venue: Numbers
    asset: Numbers
    market: Numbers
    """Of the boards with a row for each market."""
    ladder: Numbers
    """Of the tables."""
    sign: Lanes
    """+1 for longs, -1 for shorts."""
    mark: Lanes
    """[log]"""
    shift: Lanes


class Swept(NamedTuple):
    """Its ladder between two places, class by class."""

    low: Lanes
    high: Lanes
    quantity_low: list[Lanes]
    value_low: list[Lanes]
    quantity_high: list[Lanes]
    value_high: list[Lanes]
    accounts: Lanes


def close_orders(total: Array, to: Memories, sizes: Sizes) -> None:
    """Work off the list of `total` orders; answers go to the boards."""

    def more(done: Array) -> Array:
        return done < total

    def turn(done: Array) -> Array:
        order = _order(done + to.lanes.start, total, to.boards, sizes)
        _close(order, to.tables, to.boards, sizes)
        return done + sizes.threads

    jax.lax.while_loop(more, turn, jnp.int32(0))


def _order(first: Array, total: Array, boards: Boards, sizes: Sizes) -> Order:
    number = first + jnp.arange(sizes.threads, dtype=jnp.int32)
    there = number < total
    code = jnp.where(there, triton.load(boards.orders.at[number], mask=there, other=0), 0)
    row, path = _divided(code, sizes.lanes)
    side, asset = _divided(row, sizes.width)
    venue, short = _divided(side, 2)
    market = venue * sizes.width + asset
    ladder = 2 * (venue * sizes.assets + asset) + short
    mark = boards.mark[market, path]
    sign = jnp.where(short > 0, -1.0, 1.0).astype(mark.dtype)
    return Order(there, row, path, venue, asset, market, ladder, sign, mark, boards.shift[market, path])


def _divided(x: Numbers, by: int) -> tuple[Numbers, Numbers]:
    """Quotient and remainder of numbers >= 0."""
    quotient = jax.lax.div(x, jnp.full_like(x, by))
    return quotient, x - quotient * by


def _close(order: Order, tables: Tables, boards: Boards, sizes: Sizes) -> None:
    swept = _swept(order, tables, boards, sizes)
    coins = [jnp.maximum(b - a, 0.0) for a, b in zip(swept.quantity_low, swept.quantity_high, strict=True)]
    usd = sum(coins) * (1 + jnp.expm1(order.mark))
    earned, beyond = _sold(usd, order, tables, boards)
    deficit, received = _settled(swept, earned, order, tables, sizes)
    quantity = sum(b - a for a, b in zip(swept.quantity_low, swept.quantity_high, strict=True))
    answers = {
        "usd": usd,
        "received": received,
        "deficit": deficit,
        "quantity": quantity,
        "proceeds": quantity * (1 + earned),
        "accounts": swept.accounts,
        "beyond": beyond,
    }
    # Who has no order writes nothing, and that to a row of its own: two threads must not share a place.
    at = jnp.where(order.there, order.row, sizes.rows)
    path = jnp.where(order.there, order.path, 0)
    for name, answer in answers.items():
        triton.store(getattr(boards, name).at[at, path], answer, mask=order.there)


def _swept(order: Order, tables: Tables, boards: Boards, sizes: Sizes) -> Swept:
    low, high = boards.low[order.row, order.path], boards.high[order.row, order.path]
    before, after = (_row(order, place, sizes) for place in (low, high))

    def columns(row: Numbers, first: int) -> list[Lanes]:
        return [tables.rows[row + column] for column in range(first, 2 * CLASSES, 2)]

    ended = tables.rows[after + ACCOUNTS] - tables.rows[before + ACCOUNTS]
    return Swept(low, high, columns(before, 0), columns(before, 1), columns(after, 0), columns(after, 1), ended)


def _row(order: Order, place: Lanes, sizes: Sizes) -> Numbers:
    """Where the row of a place begins in the table."""
    return (order.ladder * sizes.rungs + place.astype(jnp.int32)) * COLUMNS


def _sold(usd: Lanes, order: Order, tables: Tables, boards: Boards) -> tuple[Lanes, Lanes]:
    """Mean price - 1 along the impact curve, and 1 where the curve leads beyond the take bound."""
    rho, delta, weight = tables.impact[0], tables.impact[1], tables.impact[3]
    market, asset = (order.venue, order.asset, order.path), (order.asset, order.path)
    u_local, u_global = boards.u_local[order.market, order.path], boards.u_global[asset]
    index, depth, coefficient = boards.index[asset], boards.depth[asset], tables.coefficient[asset]
    start_local, start_global = signed_power(u_local, delta), signed_power(u_global, delta)
    base = index - weight * rho * coefficient * start_global

    def price(local: Lanes, everywhere: Lanes) -> Lanes:
        return base + coefficient * (weight * rho * everywhere + (1 - rho) * local)

    flow = -order.sign * usd
    by_local, by_global = flow * (depth / tables.adv[market]), flow * (depth / tables.adv_global[asset])
    end_local, end_global = signed_power(u_local + by_local, delta), signed_power(u_global + by_global, delta)
    limit = order.mark + jnp.log1p(-order.sign * tables.bound[market])
    beyond = (order.sign * (price(end_local, end_global) - limit) < 0) & (usd > 0)
    mean = price(
        mean_power(u_local, by_local, start_local, end_local, delta),
        mean_power(u_global, by_global, start_global, end_global, delta),
    )
    return jnp.expm1(mean), beyond.astype(usd.dtype)


def _settled(swept: Swept, earned: Lanes, order: Order, tables: Tables, sizes: Sizes) -> tuple[Lanes, Lanes]:
    """What accounts lack when all is closed at a price of 1 + `earned`, and what their pool gets of the others."""
    fee = tables.fee[order.venue] * (1 + earned)
    level, deficit, fees, left_over = earned - order.shift, *[jnp.zeros_like(earned)] * 3
    for c in range(CLASSES):
        klass = order.ladder * CLASSES + c
        margin, partial = tables.log_margin[klass], tables.partial[klass] > 0
        quantity, value = swept.quantity_high[c], swept.value_high[c]

        def down_to(price: Lanes, low: Lanes, c: int = c, margin: Lanes = margin) -> tuple[Lanes, Lanes, Lanes]:
            """Place before which accounts are bankrupt at a price - 1, and the sums there."""
            log = jnp.log1p(jnp.maximum(price - order.shift, -0.999))
            place = place_of(-order.sign * (log - margin), tables.impact[6], sizes.cells)
            place = jnp.minimum(jnp.maximum(place, low), swept.high)
            row = _row(order, place, sizes) + 2 * c
            return place, tables.rows[row], tables.rows[row + 1]

        def left(quantity: Lanes, value: Lanes) -> Lanes:
            return order.sign * (quantity * level - value)

        place, q0, x0 = down_to(earned, swept.low)
        _, q1, x1 = down_to(earned - order.sign * fee, place)
        deficit += jnp.maximum(-left(q0 - swept.quantity_low[c], x0 - swept.value_low[c]), 0.0)
        charged = fee * jnp.where(partial, quantity - q0, quantity - q1)
        fees += charged + jnp.where(partial, 0.0, jnp.maximum(left(q1 - q0, x1 - x0), 0.0))
        left_over += jnp.where(partial, 0.0, jnp.maximum(left(quantity - q1, value - x1) - charged, 0.0))
    return deficit, fees + tables.keeps[order.venue] * left_over
