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

from stress_kernels.pytree import pytree

_WIDTH = 32
"""Bits of a word, and members of a group."""


@pytree
class Listed:
    """Which pairs are wanted."""

    words: UInt[Array, "w p"]
    """A bit for each of 32 blocks."""
    upto: tuple[Float[Array, "group member"], ...]
    """Pairs in every group up to and with each member; words are the members of the first level."""

    @property
    def count(self) -> Int[Array, ""]:
        """Of all."""
        return self.upto[-1][0, -1].astype(jnp.int32)


def listed(wanted: Bool[Array, "k p"]) -> Listed:
    """Count what is wanted, level by level."""
    blocks, paths = wanted.shape
    rows = -(-blocks // _WIDTH)
    grouped = jnp.pad(wanted, ((0, rows * _WIDTH - blocks), (0, 0))).reshape(rows, _WIDTH, paths)
    # Bit by bit, along the paths.
    words = functools.reduce(jnp.bitwise_or, [grouped[:, i].astype(jnp.uint32) << i for i in range(_WIDTH)])
    counts, upto = jax.lax.population_count(words).astype(jnp.float32).reshape(-1), []
    while True:
        groups = -(-counts.size // _WIDTH)
        upto.append(_running(jnp.pad(counts, (0, groups * _WIDTH - counts.size)).reshape(groups, _WIDTH)))
        counts = upto[-1][:, -1]
        if groups == 1:
            return Listed(words, tuple(upto))


def _running(counts: Float[Array, "group member"]) -> Float[Array, "group member"]:
    """Running sums of small whole numbers, which no order of summation changes."""
    return jnp.matmul(counts, jnp.triu(jnp.ones((_WIDTH, _WIDTH), counts.dtype)), precision="highest")


def find(of: Listed, place: Int[Array, " g"], blocks: int) -> tuple[Int[Array, " g"], Int[Array, " g"]]:
    """Block and path of the pairs at some places of the list; block number `blocks` past its end."""
    rest, at = place.astype(jnp.float32), jnp.zeros_like(place)

    def descend(upto: Float[Array, "g member"], at: Array, rest: Array) -> tuple[Array, Array]:
        passed = upto <= rest[:, None]
        child = jnp.minimum(jnp.sum(passed, axis=1, dtype=at.dtype), _WIDTH - 1)
        return at * _WIDTH + child, rest - jnp.max(jnp.where(passed, upto, 0.0), axis=1)

    for level in reversed(of.upto):
        at, rest = descend(level[at], at, rest)
    paths = of.words.shape[1]
    row, path = at // paths, at % paths
    word = of.words.reshape(-1)[jnp.minimum(at, of.words.size - 1)]
    below = word[:, None] & ((jnp.uint32(2) << jnp.arange(_WIDTH, dtype=jnp.uint32)) - jnp.uint32(1))[None]
    block, _ = descend(jax.lax.population_count(below).astype(jnp.float32), row, rest)
    return jnp.where(place < of.count, block, blocks), path


def for_pairs[T](
    wanted: Bool[Array, "k p"], size: int, visit: Callable[[Int[Array, " g"], Int[Array, " g"], T], T], carry: T
) -> T:
    """Visit all pairs that are wanted, `size` at a time; the last ones are filled up with block number K."""
    # What is wanted is worked out once, along the paths, and then counted.
    of = listed(jax.lax.optimization_barrier(wanted))

    def turn(now: tuple[Array, T]) -> tuple[Array, T]:
        at, carry = now
        block, path = jax.lax.optimization_barrier(find(of, at + jnp.arange(size), wanted.shape[0]))
        return at + size, visit(block, path, carry)

    return jax.lax.while_loop(lambda now: now[0] < of.count, turn, (jnp.zeros((), jnp.int32), carry))[1]
