"""Blocks of recorded hours in a new order: the stationary bootstrap of Politis and Romano (1994)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.pytree import pytree


@pytree
class Blocks:
    """Recorded hours, all assets together; each is followed by the one recorded next, or by one drawn afresh.

    Blocks are therefore of geometric length. The last recorded hour is followed by the first, so that every hour is
    drawn equally often.
    """

    log: Float[Array, "row step a"]
    """Log index at each step's end within a recorded hour, against the hour's opening [1]."""
    fresh: Float[Array, ""]
    """Chance that an hour begins a new block [1]."""


def numbers(params: Blocks, keys: Array, steps: int) -> tuple[Int[Array, "hour p"], Bool[Array, "hour p"]]:
    """Of each hour which recorded one would begin a block, and whether one begins."""
    recorded, each, _ = params.log.shape
    hours = steps // each

    def draw(key: Array) -> tuple[Array, Array]:
        where, chance = jax.random.split(key)
        start = jax.random.randint(where, (hours,), 0, recorded)
        return start, jax.random.uniform(chance, (hours,), params.log.dtype) < params.fresh

    start, fresh = (jnp.moveaxis(x, 0, -1) for x in jax.vmap(draw)(keys))
    return start, fresh


def followed(params: Blocks, given: tuple[Int[Array, "hour p"], Bool[Array, "hour p"]]) -> Int[Array, "hour p"]:
    """Which recorded hours follow each other, by these numbers."""
    start, fresh = given
    recorded, _, _ = params.log.shape

    def follow(row: Int[Array, " p"], drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        row = jnp.where(drawn[1], drawn[0], (row + 1) % recorded)
        return row, row

    return jnp.concatenate([start[:1], jax.lax.scan(follow, start[0], (start[1:], fresh[1:]))[1]])


def paths(params: Blocks, keys: Array, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step of whole hours, one path a key."""
    return moved(params, numbers(params, keys, steps))


def moved(params: Blocks, given: tuple[Int[Array, "hour p"], Bool[Array, "hour p"]]) -> Float[Array, "step a p"]:
    """Log index after each step that these numbers make."""
    _, _, assets = params.log.shape
    row = followed(params, given)

    def hour(log: Float[Array, "a p"], row: Int[Array, " p"]) -> tuple[Array, Array]:
        within = log[None] + jnp.moveaxis(params.log[row], 0, -1)
        return within[-1], within

    start = jnp.zeros((assets, row.shape[1]), params.log.dtype)
    return jax.lax.scan(hour, start, row)[1].reshape(-1, *start.shape)
