"""The ladders on which a round sweeps anything, side by side: a few of all that its paths have.

A lane is one ladder of one path. Its arrays have the axes of those of ladders, all of length 1 but the last, so that
what is written for ladders serves both. What other ladders have of a round is nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from stress_kernels.ladder import Kept, Ladders
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static
from stress_kernels.rows import set_bits

Shape = tuple[int, ...]
_SWEPT = 8
"""Ladders of a path for which lanes are kept: more than are swept in most rounds."""


def room(shape: Shape) -> int:
    """Lanes that are kept for ladders of a shape (v a s e p), enough for all of one path."""
    *of_path, paths = shape
    return max(math.prod(of_path), min(_SWEPT, math.prod(of_path)) * paths)


@pytree
class Lanes:
    """Some ladders of some paths."""

    place: Int[Array, " k"]
    """Of each among all (v a s e p), one after the other."""
    home: Int[Array, " k"]
    """The same where something is put back; nowhere for those that only fill up."""
    ladders: Ladders
    """Their tables and parameters."""
    kept: Kept
    """What earlier rounds have left of their accounts."""
    shape: Shape = static()
    """Of all ladders, (v a s e p)."""

    @classmethod
    def of(cls, ladders: Ladders, wanted: Bool[Array, "v a s e p"], kept: Kept, count: int) -> Lanes:
        """The ladders that are wanted, at most `count`, path by path; filled up with one or the other of them."""
        paths, number = wanted.shape[-1], jnp.arange(count)
        ladder, path, some = set_bits(wanted.reshape(-1, paths), count)
        place = ladder * paths + path
        home = jnp.where(number < some, place, wanted.size + number)
        place, home = jax.lax.optimization_barrier((place, home))

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
        return cls(place, home, at, here, wanted.shape)

    def rows_of(self, paths: Int[Array, " n"], count: int) -> Int[Array, " k"]:
        """Rows of a table of the ladders of `count` paths, path by path, of which these are the numbers; nowhere for
        lanes that only fill up and for paths that are nowhere."""
        here, size = self.shape[-1], math.prod(self.shape[:-1])
        row = paths[self.place % here] * size + self.place // here
        return jnp.where(self.home == self.place, row, (count + here) * size + self.home)

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

    def of_assets(self, x: Float[Array, "a p"]) -> Float[Array, "1 1 1 1 k"]:
        """Numbers of assets."""
        _, assets, sides, entries, paths = self.shape
        return _look_up(x, self.place // (sides * entries * paths) % assets * paths + self.place % paths)

    def of_table(self, table: Float[Array, "v a s column"]) -> list[Float[Array, "1 1 1 1 k"]]:
        """Columns of a table of market sides."""
        *_, entries, paths = self.shape
        rows = table.reshape(-1, table.shape[-1]).at[self.place // (entries * paths)].get(mode="promise_in_bounds")
        columns = jax.lax.optimization_barrier(rows.T)
        return [x[None, None, None, None] for x in columns]

    def together(self, x: Float[Array, "1 1 1 1 k"]) -> Float[Array, "1 1 1 1 k"]:
        """Sums over the entry classes of each lane's market side."""
        return x if self.shape[3] == 1 else self.of_sides(self.sum(x))

    def spread(self, x: Float[Array, "1 1 1 1 k"]) -> Float[Array, "v a s e p"]:
        """Back to all ladders: nothing on the others."""
        return self.put(x, jnp.zeros(self.shape, x.dtype))

    def put(self, x: Float[Array, "1 1 1 1 k"], into: Float[Array, "v a s e p"]) -> Float[Array, "v a s e p"]:
        """Back to all ladders, the others as they are."""
        put = into.reshape(-1).at[self.home].set(x.reshape(-1), unique_indices=True, mode="drop")
        return jax.lax.optimization_barrier(put.reshape(self.shape))

    def sum(self, x: Float[Array, "1 1 1 1 k"]) -> Float[Array, "v a s p"]:
        """By market side, summed over entry classes."""
        return add_up(self.spread(x), 3)


def _look_up(x: Shaped[Array, "*b"], place: Int[Array, " k"]) -> Shaped[Array, "1 1 1 1 k"]:
    found = x.reshape(-1).at[place].get(mode="promise_in_bounds")
    return jax.lax.optimization_barrier(found)[None, None, None, None]
