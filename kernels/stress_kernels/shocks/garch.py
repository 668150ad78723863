"""Filtered historical simulation: recorded hours over their own volatility, times a volatility that moves on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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
    return moved(params, numbers(params, keys, steps))


def numbers(
    params: Garch, keys: Array, steps: int
) -> tuple[Int[Array, "1 p"], tuple[Int[Array, "hour p"], Bool[Array, "hour p"]]]:
    """Which variance each path starts from, and the numbers of its recorded hours."""
    states = params.start.shape[0]
    which = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, _STREAM), (), 0, states))(keys)
    return which[None], blocks.numbers(params.residuals, keys, steps)


def moved(
    params: Garch, given: tuple[Int[Array, "1 p"], tuple[Int[Array, "hour p"], Bool[Array, "hour p"]]]
) -> Float[Array, "step a p"]:
    """Log index after each step that these numbers make."""
    which, drawn = given
    row = blocks.followed(params.residuals, drawn)

    def hour(state: tuple[Array, Array], row: Int[Array, " p"]) -> tuple[tuple[Array, Array], Array]:
        log, variance = state
        course = jnp.sqrt(variance)[None] * jnp.moveaxis(params.residuals.log[row], 0, -1)
        last = course[-1]
        weight = params.alpha[:, None] + jnp.where(last < 0, params.gamma[:, None], 0.0)
        variance = params.omega[:, None] + weight * last**2 + params.beta[:, None] * variance
        return (log + last, variance), log[None] + course

    variance = params.start[which[0]].T
    return jax.lax.scan(hour, (jnp.zeros_like(variance), variance), row)[1].reshape(-1, *variance.shape)
