"""How large a jump is: the laws of its log size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from stress_kernels.pytree import pytree


def exponential(uniforms: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Exponential variables of mean 1, as `jax.random.exponential` makes them from its uniforms."""
    return -jnp.log1p(-uniforms)


def mirrored_uniform(uniforms: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """1 - u, and never 1, whose exponential is infinite."""
    return jnp.minimum(1 - uniforms, 1 - jnp.finfo(uniforms.dtype).epsneg)


@pytree
class NormalSizes:
    """Log sizes are normal (Merton 1976)."""

    mean: Float[Array, " source"]
    sd: Float[Array, " source"]

    def numbers(self, key: Array, count: int) -> Float[Array, "1 source count"]:
        """What so many log sizes of every source are made of: standard normals."""
        return jax.random.normal(key, (self.mean.shape[0], count), self.mean.dtype)[None]

    def mirrored(self, numbers: Float[Array, "kind source *b"]) -> Float[Array, "kind source *b"]:
        """Numbers as likely, on the other side of the middle."""
        return -numbers

    def from_uniforms(self, uniforms: Float[Array, "kind source *b"]) -> Float[Array, "kind source *b"]:
        """Numbers from uniform ones."""
        return ndtri(uniforms)

    def sized(self, numbers: Float[Array, "1 source count"]) -> Float[Array, "source count"]:
        """Log sizes [1]."""
        return self.mean[:, None] + self.sd[:, None] * numbers[0]

    def draw(self, key: Array, count: int) -> Float[Array, "source count"]:
        """So many log sizes of every source [1]."""
        return self.sized(self.numbers(key, count))

    def log_density(self, sizes: Float[Array, "source count p"]) -> Float[Array, "source count p"]:
        """Log of the density of log sizes, but for what all laws of this kind have in common; 0 where all are equal."""
        mean, sd = self.mean[:, None, None], self.sd[:, None, None]
        off = (sizes - mean) / jnp.where(sd > 0, sd, 1.0)
        return jnp.where(sd > 0, -0.5 * off**2 - jnp.log(jnp.where(sd > 0, sd, 1.0)), 0.0)


@pytree
class ExponentialSizes:
    """Log sizes are exponential on either side, with means of their own (Kou 2002)."""

    up: Float[Array, " source"]
    """Chance that a jump goes up [1]."""
    mean_up: Float[Array, " source"]
    mean_down: Float[Array, " source"]
    """Mean log size of the jumps that go down, positive [1]."""

    def numbers(self, key: Array, count: int) -> Float[Array, "2 source count"]:
        """What so many log sizes of every source are made of: uniforms for the side and for the length."""
        shape, dtype = (self.up.shape[0], count), self.up.dtype
        return jnp.stack([jax.random.uniform(one, shape, dtype) for one in jax.random.split(key)])

    def mirrored(self, numbers: Float[Array, "kind source *b"]) -> Float[Array, "kind source *b"]:
        """Numbers as likely, on the other side of the middle."""
        return mirrored_uniform(numbers)

    def from_uniforms(self, uniforms: Float[Array, "kind source *b"]) -> Float[Array, "kind source *b"]:
        """Numbers from uniform ones: themselves."""
        return uniforms

    def sized(self, numbers: Float[Array, "2 source count"]) -> Float[Array, "source count"]:
        """Log sizes [1]."""
        upward = numbers[0] < self.up[:, None]
        return exponential(numbers[1]) * jnp.where(upward, self.mean_up[:, None], -self.mean_down[:, None])

    def draw(self, key: Array, count: int) -> Float[Array, "source count"]:
        """So many log sizes of every source [1]."""
        return self.sized(self.numbers(key, count))

    def log_density(self, sizes: Float[Array, "source count p"]) -> Float[Array, "source count p"]:
        """Log of the density of log sizes; minus infinity on a side to which no jump goes."""
        upward = ~jnp.signbit(sizes)  # also of a length of zero
        share = jnp.where(upward, self.up[:, None, None], 1 - self.up[:, None, None])
        mean = jnp.where(upward, self.mean_up[:, None, None], self.mean_down[:, None, None])
        return jnp.log(share) - jnp.where(mean > 0, jnp.abs(sizes) / mean + jnp.log(mean), 0.0)
