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
    if inflow is None:
        return ladders
    fresh = inflow.ladders

    def tables(of: Array, more: Array) -> Array:
        return jnp.concatenate([of, more], axis=3)

    def classes(of: Array, more: Array) -> Array:
        return tables(of, jnp.repeat(more, inflow.cohorts, axis=3))

    rows = tables(ladders.rows, fresh.rows)
    first = jnp.arange(rows[..., 0, 0].size, dtype=jnp.int32).reshape(*rows.shape[:4], 1) * rows.shape[-2]
    return replace(
        ladders,
        rows=rows,
        coins=tables(ladders.coins, fresh.coins),
        depth=tables(ladders.depth, fresh.depth),
        first=classes(first[:, :, :, :-1], first[:, :, :, -1:]),
        sign=classes(ladders.sign, fresh.sign),
        log_margin=classes(ladders.log_margin, fresh.log_margin),
        partial=classes(ladders.partial, fresh.partial),
        trigger_rate=classes(ladders.trigger_rate, fresh.trigger_rate),
        stops=None if ladders.stops is None else classes(ladders.stops, jnp.zeros_like(fresh.sign, bool)),
        widened=None if ladders.widened is None or fresh.widened is None else classes(ladders.widened, fresh.widened),
    )


def none_open(
    reach: Float[Array, "v a s e p"], kept: Kept, inflow: Inflow, ladders: Ladders
) -> tuple[Float[Array, "v a s every p"], Kept]:
    """Where a run begins, with its cohorts, none of which is open.

    Args:
        reach: Of the ladders without cohorts.
        kept: Of the same.
        inflow: Of the run.
        ladders: Without cohorts.
    """
    cohorts = jnp.zeros_like(jnp.repeat(reach[:, :, :, :1], inflow.cohorts, axis=3))
    end = ladders.rows.shape[-2] - 2
    scale = jnp.concatenate([kept.scale, cohorts + 1], axis=3)
    shift = jnp.concatenate([kept.shift, cohorts], axis=3)
    return jnp.concatenate([reach, cohorts + end], axis=3), Kept(scale, shift, jnp.ones_like(scale))
