"""A pytree with paths last as one table with paths first, and back; which of many are wanted; changes seldom made.

Gathering and putting back whole rows is what the CPU does fastest; computing wants paths last.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Bool, Float, Int, UInt

_ROWS = Layout(major_to_minor=(0, 1))
_GROUP = 32
"""Numbers that are summed up by one product."""


def paths_last(x: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
    """The same numbers with those of neighbouring paths side by side in memory, whatever order they were made in."""
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def pack(tree: Any) -> Float[Array, "p column"]:
    """All leaves, (... p) each, side by side in the dtype of the first."""
    leaves = jax.tree.leaves(tree)
    paths, dtype = leaves[0].shape[-1], leaves[0].dtype
    table = jnp.concatenate([x.reshape(-1, paths).astype(dtype) for x in leaves]).T
    return with_layout_constraint(table, _ROWS)


def unpack[T](table: Float[Array, "p column"], like: T) -> T:
    """The pytree of which `table` is the rows; `like` gives structure, dtypes and shapes but for the paths."""
    leaves, structure = jax.tree.flatten(like)
    # Turned round once: what reads a column then reads consecutive numbers.
    columns = jax.lax.optimization_barrier(with_layout_constraint(with_layout_constraint(table, _ROWS).T, _ROWS))
    paths, start, parts = table.shape[0], 0, []
    for leaf in leaves:
        size = math.prod(leaf.shape[:-1])
        part = jax.lax.slice_in_dim(columns, start, start + size)
        parts.append(part.reshape(*leaf.shape[:-1], paths).astype(leaf.dtype))
        start += size
    return jax.tree.unflatten(structure, parts)


def template[T](tree: T) -> T:
    """Shapes and dtypes of a pytree's leaves, for `unpack`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def those_first(wanted: Bool[Array, " n"]) -> Int[Array, " n"]:
    """Numbers 0, 1, ..., n - 1: first those that are wanted, then the others, each in their order."""
    before = running_sum(wanted.astype(jnp.float32)).astype(jnp.int32) - wanted
    number = jnp.arange(wanted.size, dtype=jnp.int32)
    place = jnp.where(wanted, before, jnp.sum(wanted, dtype=jnp.int32) + number - before)
    return jnp.zeros_like(number).at[place].set(number, unique_indices=True, mode="promise_in_bounds")


def set_bits(wanted: Bool[Array, "m n"], count: int) -> tuple[Int[Array, " k"], Int[Array, " k"], Int[Array, ""]]:
    """Rows and columns of the first `count` that are wanted, column by column; and how many there are at most.

    What of the answer is more than that lies somewhere.
    """
    rows, columns = wanted.shape
    words = -(-rows // _GROUP)
    bits = jnp.pad(wanted, ((0, words * _GROUP - rows), (0, 0))).reshape(words, _GROUP, columns).astype(jnp.uint32)
    word = functools.reduce(jnp.bitwise_or, (bits[:, i] << jnp.uint32(i) for i in range(_GROUP))).T.reshape(-1)
    held = jax.lax.population_count(word).astype(jnp.float32)
    word, upto = jax.lax.optimization_barrier((word, running_sum(held)))
    before = upto - held
    # A word's bits end where those of the next begin: the words that have ended before a place are its number.
    ended = jnp.zeros(count + 1).at[jnp.minimum(upto, count).astype(jnp.int32)].add(1.0, mode="promise_in_bounds")
    number = jnp.minimum(running_sum(ended)[:count].astype(jnp.int32), word.size - 1)
    # Without barriers a gather works out all of it again for every number that it picks.
    number, before = jax.lax.optimization_barrier((number, before))
    mine, before = jax.lax.optimization_barrier((word[number], before[number]))
    row = _nth_bit(mine, jnp.arange(count, dtype=jnp.uint32) - before.astype(jnp.uint32))
    row = jnp.minimum(number % words * _GROUP + row, rows - 1)
    return row, number // words, jnp.minimum(upto[-1], count).astype(jnp.int32)


def _nth_bit(word: UInt[Array, " k"], n: UInt[Array, " k"]) -> Int[Array, " k"]:
    """Place of the set bit before which there are n others, by halving."""
    place = jnp.zeros_like(word)
    for width in (16, 8, 4, 2, 1):
        below = jax.lax.population_count(word & jnp.uint32((1 << width) - 1))
        above = n >= below
        n = jnp.where(above, n - below, n)
        word = jnp.where(above, word >> width, word)
        place = place + jnp.where(above, jnp.uint32(width), jnp.uint32(0))
    return place.astype(jnp.int32)


def running_sum(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """Sums of the first 1, 2, ..., n of some whole numbers: level by level, as the CPU is slow at long running sums."""
    rows = -(-x.size // _GROUP)
    inside = running(jnp.pad(x, (0, rows * _GROUP - x.size)).reshape(rows, _GROUP))
    total = inside[:, -1]
    upto = total if rows == 1 else running_sum(total)
    return (inside + (upto - total)[:, None]).reshape(-1)[: x.size]


def running(x: Float[Array, "group member"]) -> Float[Array, "group member"]:
    """Running sums of small whole numbers, which no order of summation changes."""
    upto = jnp.triu(jnp.ones((x.shape[-1], x.shape[-1]), x.dtype))
    return jnp.matmul(x, upto, precision="highest")


def when[T](wanted: Bool[Array, ""], change: Callable[[T], T], of: T) -> T:
    """`change(of)` where it is wanted, else `of` itself: a loop of one turn or none, which copies nothing."""

    def once(carry: tuple[Array, T]) -> tuple[Array, T]:
        return jnp.zeros_like(carry[0]), change(carry[1])

    return jax.lax.while_loop(lambda carry: carry[0], once, (wanted, of))[1]
