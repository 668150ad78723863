"""Fresh accounts as further entry classes of a market side: cohorts share one table, each with a price of its own.

An account that is opened at a price m with so many USD of notional has its entry, its trigger and its bankruptcy price
at m times those of one opened at 1, and 1 / m times the coins; brackets of maintenance are in USD and the same. So a
cohort is the table of one opened at the start with `Kept.scale` = 1 / m, and everything that happens to ladders happens
to it. One that is not open yet has been passed to its end.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.behaviour import Inflow
from stress_kernels.ladder import Kept, Ladders
from stress_kernels.world import World


def inflow_of(world: World) -> Inflow | None:
    """The inflow of fresh accounts, where there is any."""
    return None if world.behaviour is None else world.behaviour.inflow


def joined(ladders: Ladders, inflow: Inflow | None) -> Ladders:
    """The ladders of a run with those of its cohorts, which come last among the entry classes."""
    return ladders if inflow is None else with_tables(ladders, inflow.ladders, inflow.cohorts)


def with_tables(ladders: Ladders, fresh: Ladders, cohorts: int) -> Ladders:
    """Ladders with those of so many cohorts, which share one table each market side and come last.

    Args:
        ladders: Some of which may share a table already.
        fresh: A cohort as if opened at the start, one entry class.
        cohorts: How many there are.
    """

    def tables(of: Array, more: Array) -> Array:
        return jnp.concatenate([of, more], axis=3)

    def classes(of: Array, more: Array) -> Array:
        return tables(of, jnp.repeat(more, cohorts, axis=3))

    rows, before, length = tables(ladders.rows, fresh.rows), ladders.rows.shape[3], ladders.rows.shape[-2]
    table = ladders.first // length
    side = jnp.arange(rows[..., 0, 0, 0].size, dtype=jnp.int32).reshape(*rows.shape[:3], 1, 1)
    failing = ladders.failing
    if failing is not None:
        # No account of a cohort has a stop order.
        failing = tables(failing, jnp.zeros_like(failing, shape=(*failing.shape[:3], 1, *failing.shape[4:])))
    return replace(
        ladders,
        rows=rows,
        coins=tables(ladders.coins, fresh.coins),
        depth=tables(ladders.depth, fresh.depth),
        first=length * classes(table + side, side * (before + 1) + before),
        sign=classes(ladders.sign, fresh.sign),
        log_margin=classes(ladders.log_margin, fresh.log_margin),
        partial=classes(ladders.partial, fresh.partial),
        trigger_rate=classes(ladders.trigger_rate, fresh.trigger_rate),
        stops=None if ladders.stops is None else classes(ladders.stops, jnp.zeros_like(fresh.sign, bool)),
        failing=failing,
        widened=None if ladders.widened is None or fresh.widened is None else classes(ladders.widened, fresh.widened),
    )


def none_open(
    reach: Float[Array, "v a s e p"], kept: Kept, count: int, ladders: Ladders
) -> tuple[Float[Array, "v a s every p"], Kept]:
    """Places and accounts with further cohorts, none of which is open.

    Args:
        reach: Of the ladders without them.
        kept: Of the same.
        count: How many there are.
        ladders: Without them.
    """
    cohorts = jnp.zeros_like(jnp.repeat(reach[:, :, :, :1], count, axis=3))
    end = ladders.rows.shape[-2] - 2
    scale = jnp.concatenate([kept.scale, cohorts + 1], axis=3)
    shift = jnp.concatenate([kept.shift, cohorts], axis=3)
    before = jnp.ones_like(kept.scale) if kept.opened is None else kept.opened
    opened = jnp.concatenate([before, cohorts + 1], axis=3)
    return jnp.concatenate([reach, cohorts + end], axis=3), Kept(scale, shift, opened)
