"""Correlated Brownian motion."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.pytree import pytree
from stress_kernels.shocks.draws import normals


@pytree
class Brownian:
    """Log-returns of a step are normal, without drift and correlated between assets."""

    factor: Float[Array, "a a"]
    """Lower Cholesky factor of the covariance of one step's log-returns [1]."""


def paths(params: Brownian, keys: Array, steps: int) -> Float[Array, "step a p"]:
    """Log index after each step, one path a key."""
    return moved(params, numbers(params, keys, steps))


def numbers(params: Brownian, keys: Array, steps: int) -> Float[Array, "step a p"]:
    """Independent standard normals, one path a key."""
    assets, dtype = params.factor.shape[0], params.factor.dtype
    return normals(keys, (steps, assets), dtype)


def moved(params: Brownian, normal: Float[Array, "step a p"]) -> Float[Array, "step a p"]:
    """Log index after each step that standard normals make.

    The factor is applied term by term: a matrix product may add in another order for another number of paths, and
    paths would differ in their last bit.
    """
    assets = params.factor.shape[0]

    def move(log: Float[Array, "a p"], z: Float[Array, "a p"]) -> tuple[Array, Array]:
        log = log + sum(params.factor[:, b, None] * z[b][None] for b in range(assets))
        return log, log

    return jax.lax.scan(move, jnp.zeros_like(normal[0]), normal)[1]
