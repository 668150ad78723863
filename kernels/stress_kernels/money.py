"""Sums of money that keep what 32 bits would drop.

A stock of 10^9 USD in 32 bits has a resolution of 64 USD, and a day is made of thousands of small flows. `Sum` carries
the rounding error of every addition beside the sum (Knuth's two-sum), so that the total is good to about 48 bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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
    return _fold(jnp.add, x, axes)


def any_of(x: Bool[Array, "*b"], *axes: int) -> Bool[Array, "*c"]:
    """Whether any is true along short axes; as `add_up`, along the paths."""
    return _fold(jnp.logical_or, x, axes)


def _fold(join: Callable[[Array, Array], Array], x: Array, axes: tuple[int, ...]) -> Array:
    for axis in axes:
        x = functools.reduce(join, jax.lax.split(x, [1] * x.shape[axis], axis % x.ndim))
    return jax.lax.squeeze(x, axes)
