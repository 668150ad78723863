"""Filtered historical simulation: recorded hours over their own volatility, times a volatility that moves on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stress_kernels.pytree import pytree
from stress_kernels.shocks import blocks

_STREAM = 103  # as in `student_t`


@pytree
class Garch:
    """Hours of a price table over the volatility that they had, all assets together, redrawn one by one.

    The volatility of each asset is a GJR-GARCH(1, 1) (Glosten, Jagannathan, Runkle 1993) of its own hourly returns:

        h' = omega + (alpha + gamma 1[r < 0]) r^2 + beta h

    What the assets have in common is in the redrawn hours (Barone-Adesi, Giannopoulos, Vosper 1999), the course of
    prices inside an hour too: it is the recorded one, as large as the volatility of the moment makes it.
    """

    residuals: blocks.Blocks
    """Recorded hours, each over the volatility that it had; `fresh` is 1."""
    omega: Float[Array, " a"]
    alpha: Float[Array, " a"]
    gamma: Float[Array, " a"]
    beta: Float[Array, " a"]
    start: Float[Array, "state a"]
    """Variances of an hour at the start, of which each path draws one for all assets [1]."""


def paths(params: Garch, keys: Array, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step of whole hours, one path a key."""
    _, each, assets = params.residuals.log.shape
    states = params.start.shape[0]
    which = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, _STREAM), (), 0, states))(keys)

    def hour(state: tuple[Array, Array], row: Int[Array, " p"]) -> tuple[tuple[Array, Array], Array]:
        log, variance = state
        moved = jnp.sqrt(variance)[None] * jnp.moveaxis(params.residuals.log[row], 0, -1)
        last = moved[-1]
        weight = params.alpha[:, None] + jnp.where(last < 0, params.gamma[:, None], 0.0)
        variance = params.omega[:, None] + weight * last**2 + params.beta[:, None] * variance
        return (log + last, variance), log[None] + moved

    start = jnp.zeros((assets, keys.shape[0]), params.start.dtype), params.start[which].T
    drawn = blocks.rows(params.residuals, keys, steps // each)
    return jax.lax.scan(hour, start, drawn)[1].reshape(steps, assets, -1)
