"""How large a jump is: the laws of its log size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.pytree import pytree


@pytree
class NormalSizes:
    """Log sizes are normal (Merton 1976)."""

    mean: Float[Array, " source"]
    sd: Float[Array, " source"]

    def draw(self, key: Array, count: int) -> Float[Array, "source count"]:
        """So many log sizes of every source [1]."""
        normal = jax.random.normal(key, (self.mean.shape[0], count), self.mean.dtype)
        return self.mean[:, None] + self.sd[:, None] * normal


@pytree
class ExponentialSizes:
    """Log sizes are exponential on either side, with means of their own (Kou 2002)."""

    up: Float[Array, " source"]
    """Chance that a jump goes up [1]."""
    mean_up: Float[Array, " source"]
    mean_down: Float[Array, " source"]
    """Mean log size of the jumps that go down, positive [1]."""

    def draw(self, key: Array, count: int) -> Float[Array, "source count"]:
        """So many log sizes of every source [1]."""
        shape, dtype = (self.up.shape[0], count), self.up.dtype
        side, length = jax.random.split(key)
        upward = jax.random.uniform(side, shape, dtype) < self.up[:, None]
        return jax.random.exponential(length, shape, dtype) * jnp.where(
            upward, self.mean_up[:, None], -self.mean_down[:, None]
        )
