"""Prices on the chip: a thread has a path, and every market is a vector of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from stress_kernels.chip_orders import Lanes, place_of
from stress_kernels.chip_tables import Sizes, Tables
from stress_kernels.price import depth_divisor, signed_power
from stress_kernels.world import MARK_INDEX, MARK_INDEX_AVERAGE, MARK_LAST

Rows = tuple[Lanes, ...]
"""A vector of the block's paths for each asset, market, side or pool."""


class Prices(NamedTuple):
    """Logs relative to the start."""

    index: Rows
    basis: Rows
    mark: Rows


def basis_of(u_local: Rows, tables: Tables, sizes: Sizes) -> Rows:
    """What local imbalances add to the index."""
    rho, delta, assets = tables.impact[0], tables.impact[1], sizes.assets
    return tuple(
        (1 - rho) * (tables.coefficient[m % assets] * signed_power(u, delta)) for m, u in enumerate(u_local)
    )


def quote(log: Rows, basis: Rows, u_global: Rows, average: Rows, tables: Tables, sizes: Sizes) -> Prices:
    """Index and mark, as `price.quotes`."""
    rho, delta, weight = tables.impact[0], tables.impact[1], tables.impact[3]
    own = [rho * (tables.coefficient[a] * signed_power(u, delta)) for a, u in enumerate(u_global)]
    index, mark = [], []
    for a in range(sizes.assets):
        others = sum(tables.contagion[a * sizes.assets + b] * own[b] for b in range(sizes.assets))
        index.append(log[a] + weight * (own[a] + others))
    for m, (here, mean) in enumerate(zip(basis, average, strict=True)):
        v, a = divmod(m, sizes.assets)
        median = jnp.maximum(jnp.minimum(mean, here), jnp.minimum(jnp.maximum(mean, here), 0.0))
        rule = tables.mark[v]
        offset = jnp.where(rule == MARK_LAST, here, jnp.where(rule == MARK_INDEX_AVERAGE, mean, median))
        mark.append(index[a] + jnp.where(rule == MARK_INDEX, 0.0, offset))
    return Prices(tuple(index), basis, tuple(mark))


def reached(mark: Rows, shift: Rows, reach: Rows, tables: Tables, sizes: Sizes) -> Rows:
    """Place on each side's ladder that the marks trigger, never falling back."""
    found = []
    for m in range(sizes.markets):
        moved, barrier = shift[m] * jnp.exp(-mark[m]), tables.barrier[m % sizes.assets]
        for s, sign in enumerate((1.0, -1.0)):
            side = 2 * m + s
            less = moved / (1 - sign * tables.trigger_rate[side])
            depth = -sign * (mark[m] + jnp.log(jnp.maximum(1 - less, 1e-3)))
            place = place_of(depth + barrier, tables.impact[6], sizes.cells)
            found.append(jnp.maximum(reach[side], place))
    return tuple(found)


def exogenous(k: Array, log: Any, tables: Tables, sizes: Sizes) -> tuple[Rows, Rows]:
    """Log index without impact after a step, and the depth divisor.

    Args:
        k: Number of the step.
        log: Of all steps (step a p).
        tables: Parameters.
        sizes: Numbers of markets.
    """
    now = tuple(log[k, a] for a in range(sizes.assets))
    thinner = []
    for a in range(sizes.assets):
        before = jnp.where(k >= sizes.lag, log[jnp.maximum(k - sizes.lag, 0), a], 0.0)
        divisor = depth_divisor((now[a] - before)[None], tables.sigma[a][None])[0]
        thinner.append(jnp.where(tables.impact[2] > 0, divisor, 1.0))
    return now, tuple(thinner)
