"""A diffusion whose variance, one factor for all assets, wanders about its mean (Heston 1993)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.pytree import pytree
from stress_kernels.shocks.draws import normals
from stress_kernels.shocks.quantiles import from_normal

_STREAM = 102  # as in `student_t`


@pytree
class Variance:
    """Log-returns are normal with covariance v S, v a square-root process of mean 1:

        dv = kappa (1 - v) dt + xi sqrt(v) dW

    Euler's scheme with full truncation (Lord, Koekkoek, van Dijk 2010): v may step below zero and counts as zero there.
    At steps of a minute and half-lives of hours or more its bias is far below the sampling error of a run.
    """

    factor: Float[Array, "a a"]
    """Lower Cholesky factor of the covariance of one step's log-returns at v = 1 [1]."""
    pull: Float[Array, ""]
    """kappa dt [1]."""
    wobble: Float[Array, ""]
    """xi sqrt(dt) [1]."""
    leverage: Float[Array, " a"]
    """What dW takes of each of the assets' normals; the rest of its unit variance is its own [1]."""
    log_start: Float[Array, " knot"]
    """Log of v at the start, as `from_normal` takes it."""


def paths(params: Variance, keys: Array, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step, one path a key; without `wobble`, from v = 1, those of `brownian`, bit for bit."""
    return moved(params, numbers(params, keys, steps))


def numbers(
    params: Variance, keys: Array, steps: int
) -> tuple[Float[Array, "1 p"], Float[Array, "step a p"], Float[Array, "step p"]]:
    """Independent standard normals: of the variance at the start, and of prices and variance in the steps."""
    assets, dtype = params.factor.shape[0], params.factor.dtype
    streams = jax.vmap(lambda key: jax.random.fold_in(key, _STREAM))(keys)
    own = normals(streams, (steps + 1,), dtype)
    return own[:1], normals(keys, (steps, assets), dtype), own[1:]


def moved(
    params: Variance, given: tuple[Float[Array, "1 p"], Float[Array, "step a p"], Float[Array, "step p"]]
) -> Float[Array, "step a p"]:
    """Log index after each step that these numbers make."""
    first, normal, own = given
    assets = params.factor.shape[0]
    rest = jnp.sqrt(jnp.maximum(1 - jnp.sum(params.leverage**2), 0.0))

    def move(state: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        (log, v), (z, w) = state, at
        alive = jnp.maximum(v, 0.0)
        root = jnp.sqrt(alive)
        log = log + root[None] * sum(params.factor[:, b, None] * z[b][None] for b in range(assets))
        noise = rest * w + sum(params.leverage[b] * z[b] for b in range(assets))
        return (log, v + params.pull * (1 - alive) + params.wobble * root * noise), log

    start = jnp.zeros_like(normal[0]), from_normal(params.log_start, first[0])
    return jax.lax.scan(move, start, (normal, own))[1]
