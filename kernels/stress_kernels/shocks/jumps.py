"""Jumps common to all assets or of one asset alone, spread over minutes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static
from stress_kernels.shocks.sizes import ExponentialSizes, NormalSizes


@pytree
class Jumps:
    """Poisson jumps from several sources; a source moves every asset by its loading."""

    per_step: Float[Array, " source"]
    """Intensity of each source [1/step]."""
    sizes: NormalSizes | ExponentialSizes
    """Law of the log size of a source's jump."""
    loading: Float[Array, "source a"]
    """Log size of an asset's move per log size of the source's jump."""
    shortest: Float[Array, ""]
    """A jump is spread evenly over a time drawn uniformly between these two [steps]."""
    longest: Float[Array, ""]
    most: int = static()
    """Jumps drawn per source and path; more than that many in a run have a negligible chance."""


def paths(params: Jumps, keys: Array, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step due to jumps, one path a key.

    A jump at time t that lasts d has happened by time s to the extent of clip((s - t) / d, 0, 1).
    """
    sources, dtype = params.per_step.shape[0], params.per_step.dtype
    shape = (sources, params.most)

    def draw(key: Array) -> tuple[Array, Array, Array]:
        when, size, last = jax.random.split(key, 3)
        gaps = jax.random.exponential(when, shape, dtype) / jnp.maximum(params.per_step, 1e-30)[:, None]
        sizes = params.sizes.draw(size, params.most)
        lasts = jax.random.uniform(last, shape, dtype, 0.0, 1.0)
        start = jnp.zeros(sources, dtype)
        times = []
        for j in range(params.most):
            start = start + gaps[:, j]
            times.append(start)
        return jnp.stack(times, axis=1), sizes, params.shortest + lasts * (params.longest - params.shortest)

    times, sizes, lasts = (jnp.moveaxis(x, 0, -1) for x in jax.vmap(draw)(keys))

    def at(_: None, step: Array) -> tuple[None, Float[Array, "a p"]]:
        share = jnp.clip((step.astype(dtype) + 1 - times) / lasts, 0.0, 1.0)
        moved = add_up(share * sizes, 1)
        return None, add_up(params.loading[:, :, None] * moved[:, None], 0)

    return jax.lax.scan(at, None, jnp.arange(steps))[1]
