"""A path given in advance, the same on every simulated path but for jitter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.pytree import pytree


@pytree
class Points:
    """Log index at each step's end, and how much paths differ from it."""

    log: Float[Array, "step a"]
    size_sd: Float[Array, ""]
    """Each path scales the logs by exp(N(0, size_sd))."""
    delay: Float[Array, ""]
    """Each path starts later by U(0, delay) [steps]."""


def paths(params: Points, keys: Array, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step, one path a key; without jitter the given path itself, bit for bit."""
    dtype = params.log.dtype

    def draw(key: Array) -> tuple[Array, Array]:
        size, late = jax.random.split(key)
        return jnp.exp(params.size_sd * jax.random.normal(size, (), dtype)), params.delay * jax.random.uniform(
            late, (), dtype
        )

    scale, late = jax.vmap(draw)(keys)
    padded = jnp.concatenate([jnp.zeros_like(params.log[:1]), params.log])

    def at(_: None, step: Array) -> tuple[None, Float[Array, "a p"]]:
        when = jnp.clip(step.astype(dtype) + 1 - late, 0.0, float(steps))
        low = jnp.floor(when)
        part, row = when - low, low.astype(jnp.int32)
        before, after = padded[row], padded[jnp.minimum(row + 1, steps)]
        return None, (
            scale[:, None] * jnp.where(part[:, None] > 0, before + part[:, None] * (after - before), before)
        ).T

    return jax.lax.scan(at, None, jnp.arange(steps))[1]
