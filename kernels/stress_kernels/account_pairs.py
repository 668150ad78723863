"""Pairs of a block of accounts and a path, listed and worked off a few at a time.

What is wanted is counted in words of 32 blocks, the words in groups of 32 and so on up; the n-th pair is found by going
down. On every path the blocks come in their order, whatever is wanted on the others, so that what is summed over a path
is summed in the same order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from stress_kernels.account_words import WORD
from stress_kernels.pytree import pytree
from stress_kernels.rows import running


@pytree
class Listed:
    """Which pairs are wanted."""

    words: UInt[Array, "w p"]
    """A bit for each of up to 32 blocks."""
    first: Int[Array, " w"]
    """Block of each word's first bit."""
    upto: tuple[Float[Array, "group member"], ...]
    """Pairs in every group up to and with each member; words are the members of the first level."""

    @property
    def count(self) -> Int[Array, ""]:
        """Of all."""
        return self.upto[-1][0, -1].astype(jnp.int32)


def listed(wanted: Bool[Array, "k p"]) -> Listed:
    """Count what is wanted."""
    # Once, although what follows reads them twice.
    bits = jax.lax.optimization_barrier(_bits(wanted))
    return listed_bits(bits, WORD * jnp.arange(len(bits)))


def listed_bits(bits: UInt[Array, "w p"], first: Int[Array, " w"]) -> Listed:
    """Count the bits of words, whose first blocks are given, level by level."""
    counts, upto = jax.lax.population_count(bits).astype(jnp.float32).reshape(-1), []
    while True:
        groups = -(-counts.size // WORD)
        upto.append(running(jnp.pad(counts, (0, groups * WORD - counts.size)).reshape(groups, WORD)))
        counts = upto[-1][:, -1]
        if groups == 1:
            return Listed(bits, first, tuple(upto))


def _bits(wanted: Bool[Array, "k p"]) -> UInt[Array, "w p"]:
    """Words of 32 blocks, bit by bit, along the paths."""
    blocks, paths = wanted.shape
    rows = -(-blocks // WORD)
    grouped = jnp.pad(wanted, ((0, rows * WORD - blocks), (0, 0))).reshape(rows, WORD, paths)
    return functools.reduce(jnp.bitwise_or, [grouped[:, i].astype(jnp.uint32) << i for i in range(WORD)])


def find(of: Listed, place: Int[Array, " g"], blocks: int) -> tuple[Int[Array, " g"], Int[Array, " g"]]:
    """Block and path of the pairs at some places of the list; block number `blocks` past its end."""
    rest, at = place.astype(jnp.float32), jnp.zeros_like(place)

    def descend(upto: Float[Array, "g member"], rest: Array) -> tuple[Array, Array]:
        passed = upto <= rest[:, None]
        child = jnp.minimum(jnp.sum(passed, axis=1, dtype=at.dtype), WORD - 1)
        return child, rest - jnp.max(jnp.where(passed, upto, 0.0), axis=1)

    for level in reversed(of.upto):
        child, rest = descend(level[at], rest)
        at = at * WORD + child
    paths = of.words.shape[1]
    row, path = at // paths, at % paths
    word = of.words.reshape(-1)[jnp.minimum(at, of.words.size - 1)]
    below = word[:, None] & ((jnp.uint32(2) << jnp.arange(WORD, dtype=jnp.uint32)) - jnp.uint32(1))[None]
    bit, _ = descend(jax.lax.population_count(below).astype(jnp.float32), rest)
    return jnp.where(place < of.count, of.first[jnp.minimum(row, of.first.size - 1)] + bit, blocks), path


def for_pairs[T](of: Listed, blocks: int, size: int, visit: Callable[[Array, Array, T], T], carry: T) -> T:
    """Visit all pairs of a list, `size` at a time; the last ones are filled up with block number `blocks`.

    `visit` is given their blocks, their paths, and what `carry` has become.
    """

    def turn(now: tuple[Array, T]) -> tuple[Array, T]:
        at, carry = now
        block, path = jax.lax.optimization_barrier(find(of, at + jnp.arange(size), blocks))
        return at + size, visit(block, path, carry)

    return jax.lax.while_loop(lambda now: now[0] < of.count, turn, (jnp.zeros((), jnp.int32), carry))[1]
