"""Prices on the chip, tile by tile."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.chip_boards import Memories
from stress_kernels.chip_orders import place_of
from stress_kernels.day_tables import Sizes
from stress_kernels.price import depth_divisor, signed_power
from stress_kernels.world import MARK_INDEX, MARK_INDEX_AVERAGE, MARK_LAST

Tile = Float[Array, "a p"]
Tiles = tuple[Tile, ...]
"""One for each venue, or for each side of each venue."""


class Prices(NamedTuple):
    """Logs relative to the start."""

    index: Tile
    basis: Tiles
    mark: Tiles


def basis_of(u_local: Tiles, to: Memories) -> Tiles:
    """What local imbalances add to the index."""
    tables, coefficient = to.tables, to.tables.coefficient[:, to.lanes]
    rho, delta = tables.impact[0], tables.impact[1]
    return tuple((1 - rho) * (coefficient * signed_power(u, delta)) for u in u_local)


def quote(log: Tile, basis: Tiles, u_global: Tile, average: Tiles, to: Memories) -> Prices:
    """Index and mark at given imbalances, as `price.quotes`."""
    tables = to.tables
    rho, delta, weight = tables.impact[0], tables.impact[1], tables.impact[3]
    own = rho * (tables.coefficient[:, to.lanes] * signed_power(u_global, delta))

    def with_others() -> Tile:
        asset, pushed = jax.lax.broadcasted_iota(jnp.int32, own.shape, 0), own
        for b in range(len(own)):
            of_one = jnp.sum(jnp.where(asset == b, own, 0.0), axis=0)[None]
            pushed = pushed + tables.contagion[b, :, to.lanes] * of_one
        return pushed

    index, mark = log + weight * jax.lax.cond(tables.impact[7] > 0, with_others, lambda: own), []
    for v, (here, mean) in enumerate(zip(basis, average, strict=True)):
        median = jnp.maximum(jnp.minimum(mean, here), jnp.minimum(jnp.maximum(mean, here), 0.0))
        rule = tables.mark[v]
        offset = jnp.where(rule == MARK_LAST, here, jnp.where(rule == MARK_INDEX_AVERAGE, mean, median))
        mark.append(index + jnp.where(rule == MARK_INDEX, 0.0, offset))
    return Prices(index, basis, tuple(mark))


def reached(mark: Tiles, shift: Tiles, reach: Tiles, to: Memories, sizes: Sizes) -> Tiles:
    """Place on each ladder that the marks trigger, never falling back."""
    found, tables, barrier = [], to.tables, to.tables.barrier[:, to.lanes]
    for v, log in enumerate(mark):
        moved = shift[v] * jnp.exp(-log)
        for s, sign in enumerate((1.0, -1.0)):
            less = moved / (1 - sign * tables.trigger_rate[v, s, :, to.lanes])
            depth = -sign * (log + jnp.log(jnp.maximum(1 - less, 1e-3)))
            place = place_of(depth + barrier, tables.impact[6], sizes.cells)
            found.append(jnp.maximum(reach[2 * v + s], place))
    return tuple(found)


def exogenous(k: Array, log: Any, to: Memories, sizes: Sizes) -> tuple[Tile, Tile]:
    """Log index without impact after a step, and the depth divisor.

    Args:
        k: Number of the step.
        log: Of all steps (step a p).
        to: Parameters.
        sizes: Of everything.
    """
    now = log[k, :, to.lanes]
    before = jnp.where(k >= sizes.lag, log[jnp.maximum(k - sizes.lag, 0), :, to.lanes], 0.0)
    divisor = depth_divisor(now - before, to.tables.sigma[:])
    return now, jnp.where(to.tables.impact[2] > 0, divisor, 1.0)
