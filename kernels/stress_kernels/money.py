"""Sums of money that keep what 32 bits would drop.

A stock of 10^9 USD in 32 bits has a resolution of 64 USD, and a day is made of thousands of small flows. `Sum` carries
the rounding error of every addition beside the sum (Knuth's two-sum), so that the total is good to about 48 bits.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.pytree import pytree


@pytree
class Sum:
    """A compensated sum: the value is high + low."""

    high: Float[Array, "*b"]
    low: Float[Array, "*b"]

    @classmethod
    def of(cls, value: Float[Array, "*b"]) -> Sum:
        """A sum that starts at `value`."""
        return cls(value, jnp.zeros_like(value))

    def add(self, x: Float[Array, "*b"]) -> Sum:
        """This sum plus x."""
        total = self.high + x
        back = total - self.high
        error = (self.high - (total - back)) + (x - back)
        return Sum(total, self.low + error)

    @property
    def value(self) -> Float[Array, "*b"]:
        """The sum, rounded once."""
        return self.high + self.low


def add_up(x: Float[Array, "*b"], *axes: int) -> Float[Array, "*c"]:
    """Sum over short axes, term after term.

    The order is fixed whatever the number of paths, so that a path's last bit is too; and the additions fuse with
    what comes before, which a reduction on the CPU does not.
    """
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        terms = [jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]
        x = functools.reduce(jnp.add, terms)
    return x
