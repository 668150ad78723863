"""Multivariate Student t: a Brownian motion whose volatility, one for all assets, is drawn anew every hour."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.pytree import pytree, static
from stress_kernels.shocks.draws import normals
from stress_kernels.shocks.quantiles import from_normal

_STREAM = 101  # fold_in(key, i) is a key that split(key, n > i) gives as well: a number that no split reaches


@pytree
class StudentT:
    """Log-returns of an hour are jointly Student t, those inside it normal given the hour's volatility.

    An hour's variance is multiplied by (nu - 2) / chi2_nu, of mean 1, the same for all assets: a rough hour is rough
    for all, which is what makes large moves coincide. Returns of a step would be normal over a day by the central limit
    theorem if each drew a variance of its own.
    """

    factor: Float[Array, "a a"]
    """Lower Cholesky factor of the covariance of one step's log-returns, over all hours [1]."""
    log_scale: Float[Array, " knot"]
    """Log of what multiplies an hour's volatility, as `from_normal` takes it."""
    held: int = static()
    """Steps in an hour."""


def paths(params: StudentT, keys: Array, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step, one path a key; for large nu those of `brownian` with the same factor."""
    return moved(params, numbers(params, keys, steps))


def numbers(params: StudentT, keys: Array, steps: int) -> tuple[Float[Array, "step a p"], Float[Array, "hour p"]]:
    """Independent standard normals: of the steps, and of the volatility of each hour."""
    assets, dtype = params.factor.shape[0], params.factor.dtype
    hours = -(-steps // params.held)
    own = jax.vmap(lambda key: jax.random.fold_in(key, _STREAM))(keys)
    return normals(keys, (steps, assets), dtype), normals(own, (hours,), dtype)


def moved(params: StudentT, given: tuple[Float[Array, "step a p"], Float[Array, "hour p"]]) -> Float[Array, "step a p"]:
    """Log index after each step that these numbers make."""
    normal, hourly = given
    steps, assets, _ = normal.shape
    scale = from_normal(params.log_scale, hourly)

    def move(log: Float[Array, "a p"], at: tuple[Array, Array]) -> tuple[Array, Array]:
        step, z = at
        moved = sum(params.factor[:, b, None] * z[b][None] for b in range(assets))
        log = log + scale[step // params.held][None] * moved
        return log, log

    return jax.lax.scan(move, jnp.zeros_like(normal[0]), (jnp.arange(steps), normal))[1]
