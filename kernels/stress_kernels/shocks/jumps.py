"""Jumps common to all assets or of one asset alone, spread over minutes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static
from stress_kernels.shocks.sizes import ExponentialSizes, NormalSizes, exponential, mirrored_uniform


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


@pytree
class Numbers:
    """Random numbers that jumps are made of, by source and jump; paths last where there are several."""

    waits: Float[Array, "source jump *p"]
    """Uniform, for the time since the jump before."""
    sizes: Float[Array, "of_law source jump *p"]
    """As the law of sizes takes them."""
    lasts: Float[Array, "source jump *p"]
    """Uniform, for how long it lasts."""


@pytree
class Drawn:
    """Jumps, by source; those that begin after the end are as good as none."""

    times: Float[Array, "source jump *p"]
    """When they begin [steps]."""
    sizes: Float[Array, "source jump *p"]
    """Log size of the source's jump [1]."""
    lasts: Float[Array, "source jump *p"]
    """[steps]."""


def paths(params: Jumps, keys: Array, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step due to jumps, one path a key."""
    return moved(params, many(params, keys), steps)


def many(params: Jumps, keys: Array) -> Numbers:
    """Random numbers of paths, one path a key."""
    each = jax.vmap(lambda key: numbers(params, key))(keys)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), each)


def moved(params: Jumps, given: Numbers, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step that these numbers make."""
    return spread(params, jax.vmap(lambda one: draw(params, one), -1, -1)(given), steps)


def numbers(params: Jumps, key: Array) -> Numbers:
    """Random numbers of one path."""
    shape, dtype = (params.per_step.shape[0], params.most), params.per_step.dtype
    when, size, last = jax.random.split(key, 3)
    waits, lasts = (jax.random.uniform(one, shape, dtype) for one in (when, last))
    return Numbers(waits, params.sizes.numbers(size, params.most), lasts)


def mirrored(params: Jumps, given: Numbers) -> Numbers:
    """Numbers as likely, on the other side of the middle."""
    waits, lasts = mirrored_uniform(given.waits), mirrored_uniform(given.lasts)
    return Numbers(waits, params.sizes.mirrored(given.sizes), lasts)


def draw(params: Jumps, given: Numbers) -> Drawn:
    """The jumps of one path that random numbers make."""
    gaps = exponential(given.waits) / jnp.maximum(params.per_step, 1e-30)[:, None]
    start = jnp.zeros_like(gaps[:, 0])
    times = []
    for j in range(params.most):
        start = start + gaps[:, j]
        times.append(start)
    lasts = params.shortest + given.lasts * (params.longest - params.shortest)
    return Drawn(jnp.stack(times, axis=1), params.sizes.sized(given.sizes), lasts)


def spread(params: Jumps, drawn: Drawn, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step due to some jumps.

    A jump at time t that lasts d has happened by time s to the extent of clip((s - t) / d, 0, 1).
    """
    dtype = drawn.times.dtype

    def at(_: None, step: Array) -> tuple[None, Float[Array, "a p"]]:
        share = jnp.clip((step.astype(dtype) + 1 - drawn.times) / drawn.lasts, 0.0, 1.0)
        # Each found once: else for every term that enters the other.
        moved = jax.lax.optimization_barrier(add_up(jax.lax.optimization_barrier(share * drawn.sizes), 1))
        return None, add_up(params.loading[:, :, None] * moved[:, None], 0)

    return jax.lax.scan(at, None, jnp.arange(steps))[1]


def log_density(params: Jumps, drawn: Drawn, steps: int) -> Float[Array, " p"]:
    """Log density of the jumps of paths up to their end, but for what all laws of one kind have in common.

    Of a Poisson process with marks by the time T: sum over the jumps of log(intensity x density of the size), less
    intensity x T. Times and how long jumps last have one law in all.
    """
    happened = drawn.times <= steps
    each = jnp.log(params.per_step)[:, None, None] + params.sizes.log_density(drawn.sizes)
    # A source without jumps has a log of minus infinity, and nothing to multiply with it.
    return add_up(jnp.where(happened, each, 0.0), 0, 1) - steps * jnp.sum(params.per_step)
