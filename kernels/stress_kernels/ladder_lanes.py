"""The ladders on which a round sweeps anything, side by side: a few of all that its paths have.

A lane is one ladder of one path. Its arrays have the axes of those of ladders, all of length 1 but the last, so that
what is written for ladders serves both. What other ladders have of a round is nothing.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from stress_kernels.ladder import Kept, Ladders
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static
from stress_kernels.rows import those_first

Shape = tuple[int, ...]


@pytree
class Lanes:
    """Some ladders of some paths."""

    place: Int[Array, " k"]
    """Of each among all (v a s e p), one after the other."""
    ladders: Ladders
    """Their tables and parameters."""
    kept: Kept
    """What earlier rounds have left of their accounts."""
    shape: Shape = static()
    """Of all ladders, (v a s e p)."""

    @classmethod
    def of(cls, ladders: Ladders, wanted: Bool[Array, "v a s e p"], kept: Kept, count: int) -> Lanes:
        """The ladders that are wanted, at most `count`, filled up with others: with nothing waiting on them, they sweep
        nothing."""
        place = jax.lax.optimization_barrier(those_first(wanted.reshape(-1))[:count])
        paths = wanted.shape[-1]

        def mine(x: Array) -> Array:
            tail = x.shape[4:-1]
            rows = x.reshape(wanted.size // paths, *tail)[place // paths]
            return jnp.moveaxis(rows, 0, -1)[None, None, None, None]

        at = replace(
            ladders,
            first=mine(ladders.first),
            sign=mine(ladders.sign),
            log_margin=mine(ladders.log_margin),
            partial=mine(ladders.partial),
            trigger_rate=mine(ladders.trigger_rate),
            stops=None if ladders.stops is None else mine(ladders.stops),
            copies=None if ladders.copies is None else _look_up(ladders.copies, place),
        )
        here = Kept(scale=_look_up(kept.scale, place), shift=_look_up(kept.shift, place))
        return cls(place, at, here, wanted.shape)

    def of_ladders(self, x: Float[Array, "v a s e p"]) -> Float[Array, "1 1 1 1 k"]:
        """Numbers of ladders."""
        return _look_up(x, self.place)

    def of_sides(self, x: Float[Array, "v a s p"]) -> Float[Array, "1 1 1 1 k"]:
        """Numbers of market sides."""
        *_, entries, paths = self.shape
        return _look_up(x, self.place // (entries * paths) * paths + self.place % paths)

    def of_markets(self, x: Float[Array, "v a p"]) -> Float[Array, "1 1 1 1 k"]:
        """Numbers of markets."""
        *_, sides, entries, paths = self.shape
        return _look_up(x, self.place // (sides * entries * paths) * paths + self.place % paths)

    def spread(self, x: Float[Array, "1 1 1 1 k"]) -> Float[Array, "v a s e p"]:
        """Back to all ladders: nothing on the others."""
        return self.put(x, jnp.zeros(self.shape, x.dtype))

    def put(self, x: Float[Array, "1 1 1 1 k"], into: Float[Array, "v a s e p"]) -> Float[Array, "v a s e p"]:
        """Back to all ladders, the others as they are."""
        put = into.reshape(-1).at[self.place].set(x.reshape(-1), unique_indices=True, mode="promise_in_bounds")
        return jax.lax.optimization_barrier(put.reshape(self.shape))

    def sum(self, x: Float[Array, "1 1 1 1 k"]) -> Float[Array, "v a s p"]:
        """By market side, summed over entry classes."""
        return add_up(self.spread(x), 3)


def _look_up(x: Shaped[Array, "*b"], place: Int[Array, " k"]) -> Shaped[Array, "1 1 1 1 k"]:
    found = x.reshape(-1).at[place].get(mode="promise_in_bounds")
    return jax.lax.optimization_barrier(found)[None, None, None, None]
